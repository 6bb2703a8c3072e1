// What the user does, and drawing it all again when the page changes.

const SORTS = {
  end: (a, b) => (a.state === FAILED) - (b.state === FAILED) || a.end - b.end || a.began - b.began,
  began: (a, b) => a.began - b.began || a.end - b.end,
  slow: (a, b) => (b.end - b.began || 0) - (a.end - a.began || 0),
  name: (a, b) => a.name.localeCompare(b.name, "en", {numeric: true}),
  job: () => 0,
};
const SHOWS = {
  all: () => true, ok: (node) => node.outcome === "ok", failed: (node) => node.outcome !== "ok",
  adopted: (node) => node.again, parked: (node) => node.parked,
};

function arrange() {
  const words = byId("find").value.toLowerCase().split(/\s+/).filter(Boolean);
  const wanted = (node) => {
    const text = (node.name + " " + node.outcome + " " + node.code + " " + node.message).toLowerCase();
    return words.every((word) => text.includes(word));
  };
  const sort = byId("sort").value;
  const all = sort === "tree" ? [...new Set([...order, ...nodes])] : [...nodes];
  shown = all.filter((node) => SHOWS[byId("show").value](node) && wanted(node));
  if (SORTS[sort]) shown.sort(SORTS[sort]);
  drawLanes();
  paintOverview();
}

function choose(node) {
  chosen = node === chosen ? null : node;
  byId("chosen").textContent = chosen ? story(chosen).join("; ") : hint;
  const row = shown.indexOf(chosen), scroller = byId("scroller");
  if (row >= 0 && (row * rowSize < scroller.scrollTop || (row + 1) * rowSize > scroller.scrollTop + VIEW)) {
    scroller.scrollTop = row * rowSize - VIEW / 2;
  }
  drawLanes();
}

function zoom(by) {
  const scroller = byId("scroller"), middle = (scroller.scrollTop + VIEW / 2) / rowSize;
  rowSize = ROWS[Math.min(ROWS.length - 1, Math.max(0, ROWS.indexOf(rowSize) + by))];
  drawLanes();
  scroller.scrollTop = middle * rowSize - VIEW / 2;
  drawLanes();
  paintOverview();
}

function filterRows() {
  const words = byId("find-row").value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const row of byId("rows").rows) {
    const text = words.length ? row.textContent.toLowerCase() : "";
    row.hidden = !words.every((word) => text.includes(word));
  }
}

function drawAll() {
  if (!laneWidth()) return; // nobody sees it
  readColours();
  drawAxis();
  arrange();
  drawTree();
  drawFlow();
  drawEach();
  drawStates();
  drawEnds();
}

const hint = byId("chosen").textContent;
byId("pictures").hidden = false;
byId("filter").hidden = false;
rowSize = nodes.length <= 14 ? 30 : nodes.length <= 40 ? 22 : 16;
startTree(choose);
startLanes(choose);
for (const id of ["find", "show", "sort"]) byId(id).addEventListener("input", arrange);
byId("tools").addEventListener("submit", (event) => event.preventDefault());
byId("find-row").addEventListener("input", filterRows);
byId("in").addEventListener("click", () => zoom(1));
byId("out").addEventListener("click", () => zoom(-1));
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
let drawn = 0; // the width at which all was drawn; a scroll bar that comes or goes changes it, too
new ResizeObserver(() => {
  const width = laneWidth();
  if (width !== drawn) { drawn = width; drawAll(); }
}).observe(byId("pictures"));
