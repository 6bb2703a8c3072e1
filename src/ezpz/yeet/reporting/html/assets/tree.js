// Who was served by whom in the end: an icicle, one level below the other; a node is as wide as all it leads to.

const tree = {name: "this host", children: [], depth: 0, index: data.local};
const order = []; // the served nodes, each behind its parent

function growTree() {
  const placed = (node) => (node.parent >= 0 ? nodes[node.parent] : tree);
  for (const node of nodes) if (node.parent !== NOBODY) placed(node).children.push(node);
  const pending = [tree];
  while (pending.length) {
    const node = pending.pop();
    if (node !== tree) order.push(node);
    for (let i = node.children.length - 1; i >= 0; i--) pending.push(node.children[i]);
  }
  for (const node of [tree, ...order]) node.weight = 1;
  for (let i = order.length - 1; i >= 0; i--) placed(order[i]).weight += order[i].weight;
  if (data.local >= 0) tree.name = "this host, " + nodes[data.local].name;
}

let top_ = tree, boxes = [];

// Where every node below `top_` stands: x and width as shares of the whole.
function layOut() {
  boxes = [];
  const pending = [[top_, 0, 1, 0]];
  while (pending.length) {
    const [node, left, width, level] = pending.pop();
    boxes.push({node, left, width, level});
    let at = left;
    for (const child of node.children) {
      const share = width * child.weight / Math.max(1, node.weight - 1);
      pending.push([child, at, share, level + 1]);
      at += share;
    }
  }
}

function mixed(early, late, share) {
  const parts = (colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  const [from, to] = [parts(early), parts(late)];
  return "rgb(" + from.map((value, i) => Math.round(value + (to[i] - value) * share)).join(",") + ")";
}

function drawTree() {
  layOut();
  const levels = 1 + boxes.reduce((most, box) => Math.max(most, box.level), 0);
  const size = levels <= 72 ? Math.max(14, Math.min(30, 420 / levels)) : 1000 / levels; // a chain of dozens has names
  const [context, width] = prepared(byId("tree"), Math.ceil(size * levels) + 1);
  const ranks = new Map(); // how early or late among all, as a share: a straggler must not make the others one colour
  nodes.filter((node) => node.state === DONE).sort((a, b) => a.end - b.end)
    .forEach((node, rank, all) => ranks.set(node, rank / Math.max(1, all.length - 1)));
  const failed = pattern(context, FAILED);
  const gap = size > 8 ? 1 : 0;
  const paint = (box) => {
    const {node, left, level} = box, x = left * width, w = box.width * width, y = level * size;
    const thin = w < 3 ? 0 : 1, known = node === tree ? nodes[data.local] : node;
    const wide = known && known.state === FAILED ? Math.max(w - thin, 2) : w - thin;
    const share = ranks.has(known) ? ranks.get(known) : -1;
    context.fillStyle = known && known.state === FAILED ? failed
      : share >= 0 ? mixed(colours.early, colours.late, share) : colours.waiting;
    context.fillRect(x, y, wide, size - gap);
    if (known && known.again && size > 8 && w > 1.5) {
      context.fillStyle = colours.parked;
      context.fillRect(x, y, wide, 3);
    }
    if (w > 44 && size >= 14) label(context, node, share, known, x, y, w, size);
  };
  const bad = (box) => box.node.state === FAILED;
  boxes.filter((box) => !bad(box)).forEach(paint);
  boxes.filter(bad).forEach(paint);
  byId("up").hidden = top_ === tree;
  drawTreeNote(levels);
  drawTree.at = (px, py) => boxes.find((box) => box.level === Math.floor(py / size)
    && px / width >= box.left && px / width < box.left + box.width);
}

function label(context, node, share, known, x, y, w, size) {
  context.save();
  context.beginPath();
  context.rect(x, y, w - 3, size);
  context.clip();
  if (size < 16) context.font = "11px system-ui, sans-serif";
  const below = node.weight > 1 && w > 150 ? "  +" + (node.weight - 1).toLocaleString("en") : "";
  const text = fitted(context, (known && known.state === FAILED ? "✕ " : "") + node.name + below, w - 12);
  if (known && known.state === FAILED && text) {
    context.fillStyle = colours.card;
    context.fillRect(x + 3, y + 2, context.measureText(text).width + 6, size - 5);
  }
  context.fillStyle = share > 0.5 ? colours.card : colours.ink;
  context.textAlign = "left";
  context.fillText(text, x + 6, y + size / 2);
  context.restore();
}

function drawTreeNote(levels) {
  const apart = nodes.length - order.length - (data.local >= 0 ? 1 : 0);
  const words = [many(order.length, "node") + " served, " + many(levels - 1, "hop") + " deep"];
  if (top_ !== tree) words.push("below " + top_.name);
  if (apart) words.push(many(apart, "node") + (apart === 1 ? " was" : " were") + " not served, and " + (apart === 1 ? "is" : "are") + " not in it");
  byId("tree-note").textContent = words.join("; ");
}

function startTree(choose) {
  growTree();
  const legend = [["scale", "had it early to late"], ["s-failed", "failed"], ["line s-again", "adopted, or tried again"]];
  for (const [kind, words] of legend) {
    const item = document.createElement("li"), swatch = document.createElement("i");
    swatch.className = kind;
    if (kind.includes("again")) swatch.style.background = "var(--parked)";
    item.append(swatch, words);
    byId("tree-legend").append(item);
  }
  const found = (event) => drawTree.at(event.offsetX, event.offsetY);
  hover(byId("tree"), (px, py) => {
    const box = drawTree.at(px, py);
    if (!box) return null;
    const below = box.node.weight > 1 ? [many(box.node.weight - 1, "node") + " below it"] : [];
    return [...(box.node === tree ? [tree.name] : story(box.node)), ...below];
  });
  byId("tree").addEventListener("click", (event) => {
    const box = found(event);
    if (!box) return;
    top_ = box.node === top_ ? (top_ === tree ? tree : top_.parent >= 0 ? nodes[top_.parent] : tree) : box.node;
    if (!top_.children.length) top_ = top_.parent >= 0 ? nodes[top_.parent] : tree;
    if (box.node !== tree) choose(box.node);
    drawTree();
  });
  byId("up").addEventListener("click", () => { top_ = tree; drawTree(); });
}
