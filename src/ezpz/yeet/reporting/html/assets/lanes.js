// The timeline: an axis with the phases, all nodes at once as an overview, and a bar for each node that scrolls.

const ROWS = [2, 4, 7, 11, 16, 22, 30], VIEW = 440, OVERVIEW = 110, GUTTER = 128, EDGE = 14;
const painted = document.createElement("canvas");
let shown = [], rowSize = 16, chosen = null;

// From a time to a place, alike for all three pictures, of which one has a scroll bar.
const laneWidth = () => byId("scroller").clientWidth;
const timeX = (ms) => GUTTER + (laneWidth() - GUTTER - EDGE) * Math.min(ms, data.end) / data.end;

// The stretches of a node: [from, to, state].
function stretches(node) {
  return node.moments.map((moment, i) => [moment.at, i + 1 < node.moments.length ? node.moments[i + 1].at : data.end,
    moment.state]);
}

function drawAxis() {
  const [context] = prepared(byId("axis"), 44), width = laneWidth(), x = timeX;
  data.phases.forEach(([, words, from, to], i) => {
    const left = x(from), right = Math.max(left + 1, x(to));
    context.fillStyle = i % 2 ? colours.line : colours["receiving-pale"];
    context.fillRect(left, 0, right - left, 20);
    context.fillStyle = colours.ink;
    const text = [words, words.split(/\W/)[0]].find((each) => context.measureText(each).width < right - left - 10);
    if (text) context.fillText(text, left + 6, 10.5);
  });
  context.fillStyle = colours.dim;
  context.textAlign = "center";
  timeTicks(width - GUTTER, (ms, text) => context.fillText(text, Math.min(x(ms), width - 18), 33));
  context.textAlign = "left";
  context.fillText("phases", 0, 10.5);
  hover(byId("axis"), (px, py) => {
    const phase = py < 20 && data.phases.find(([, , from, to]) => px >= x(from) && px <= Math.max(x(from) + 1, x(to)));
    return phase ? [phase[1], seconds(phase[2]) + " to " + seconds(phase[3])] : null;
  });
}

// Paint all nodes once for the overview; drawOverview puts the frame of what is in view over it.
function paintOverview() {
  const canvas = byId("overview"), scrolls = shown.length * rowSize > VIEW;
  canvas.style.display = scrolls ? "" : "none";
  if (!scrolls) return;
  const height = OVERVIEW, [context] = prepared(canvas, height), x = timeX;
  const high = Math.max(1, height / shown.length);
  const paint = (states) => shown.forEach((node, row) => {
    const y = row * height / shown.length;
    for (const [from, to, state] of stretches(node)) {
      if (!states.includes(state)) continue;
      context.fillStyle = state === DONE ? colours["done-pale"] : colours.states[state];
      context.fillRect(x(from), y, Math.max(0.7, x(to) - x(from)), state === FAILED || state === PARKED ? Math.max(high, 2) : high);
    }
  });
  paint([DONE, RECEIVING, CHECKING]);
  paint([PARKED]);
  paint([FAILED]);
  painted.width = canvas.width;
  painted.height = canvas.height;
  painted.getContext("2d").drawImage(canvas, 0, 0);
  drawOverview();
}

function drawOverview() {
  if (byId("overview").style.display === "none") return;
  const height = OVERVIEW, [context, whole] = prepared(byId("overview"), height), width = laneWidth();
  context.drawImage(painted, 0, 0, whole, height);
  const scroller = byId("scroller"), all = shown.length * rowSize;
  const top = scroller.scrollTop / all * height, part = Math.max(3, VIEW / all * height);
  context.strokeStyle = colours.ink;
  context.lineWidth = 1.5;
  context.strokeRect(GUTTER - 4, top + 0.75, width - GUTTER - EDGE + 8, Math.min(part, height - top) - 1.5);
  context.fillStyle = colours.dim;
  context.fillText("all " + shown.length.toLocaleString("en") + " nodes", 0, Math.min(Math.max(top + part / 2, 8), height - 8));
}

function drawLanes() {
  const scroller = byId("scroller"), height = Math.min(VIEW, Math.max(rowSize, shown.length * rowSize));
  scroller.style.height = height + 1 + "px";
  byId("spacer").style.height = Math.max(0, shown.length * rowSize - height) + "px";
  const [context, width] = prepared(byId("lanes"), height), x = timeX;
  const fills = {[PARKED]: pattern(context, PARKED), [CHECKING]: pattern(context, CHECKING), [FAILED]: pattern(context, FAILED)};
  context.strokeStyle = colours.line;
  timeTicks(width - GUTTER, (ms) => {
    context.beginPath();
    context.moveTo(Math.round(x(ms)) + 0.5, 0);
    context.lineTo(Math.round(x(ms)) + 0.5, height);
    context.stroke();
  });
  const first = Math.floor(scroller.scrollTop / rowSize), last = Math.ceil((scroller.scrollTop + height) / rowSize);
  shown.slice(first, last + 1).forEach((node, i) => drawLane(context, fills, x, node, (first + i) * rowSize - scroller.scrollTop, width));
  if (!shown.length) { context.fillStyle = colours.dim; context.fillText("no such node", GUTTER, height / 2); }
}

function drawLane(context, fills, x, node, y, width) {
  const pad = rowSize > 9 ? 2 : rowSize > 4 ? 1 : 0, high = rowSize - 2 * pad;
  if (node === chosen) { context.fillStyle = colours.line; context.fillRect(0, y, width, rowSize); }
  if (rowSize >= 11) {
    context.fillStyle = node.state === FAILED ? colours.failed : colours.ink;
    context.font = Math.min(12, rowSize - 1) + "px system-ui, sans-serif";
    const mark = node.state === FAILED ? "✕ " : "";
    context.fillText(mark + fitted(context, node.name, GUTTER - 10 - context.measureText(mark).width), 0, y + rowSize / 2 + 0.5);
  }
  for (const [from, to, state] of stretches(node)) {
    const left = x(from), wide = Math.max(1, x(to) - left);
    context.fillStyle = fills[state] || colours.states[state];
    if (state === WAITING) context.fillRect(left, y + rowSize / 2 - 0.5, wide, 1);
    else if (state === DONE) drawDone(context, left, wide, y, pad);
    else if (state === FAILED) drawFailed(context, left, wide, y, pad);
    else if (state === RECEIVING) drawReceived(context, x, node, from, to, y + pad, high);
    else context.fillRect(left, y + pad, wide, high);
  }
  for (const moment of node.moments) if (moment.adopted && rowSize >= 7) {
    const at = x(moment.at);
    context.fillStyle = colours.ink;
    context.beginPath();
    context.moveTo(at - 4, y + 1); context.lineTo(at + 4, y + 1); context.lineTo(at, y + Math.min(rowSize - 2, 7));
    context.fill();
  }
}

function drawDone(context, left, wide, y, pad) {
  context.fillStyle = colours["done-pale"];
  context.fillRect(left, y + pad, wide, rowSize - 2 * pad);
  context.fillStyle = colours.done;
  context.fillRect(left - 1, y + pad / 2, 3, rowSize - pad);
}

function drawFailed(context, left, wide, y, pad) {
  const block = Math.max(EDGE - 4, Math.min(28, wide)); // seen also at the very end
  context.fillRect(left, y + pad, block, rowSize - 2 * pad);
  context.fillStyle = colours.failed;
  context.fillRect(left, y + rowSize / 2 - 0.5, wide, 1);
}

// The pale bar is the time, the dark part of it how much had been received.
function drawReceived(context, x, node, from, to, y, high) {
  context.fillStyle = high > 6 ? colours["receiving-pale"] : colours.receiving;
  context.fillRect(x(from), y, Math.max(1, x(to) - x(from)), high);
  if (high <= 6) return;
  context.save();
  context.beginPath();
  context.rect(x(from), y, Math.max(1, x(to) - x(from)), high);
  context.clip();
  context.beginPath();
  context.moveTo(x(node.received[0] || from), y + high);
  let latest = node.received[0] || from;
  for (let i = 0; i < node.received.length; i += 2) {
    latest = node.received[i];
    context.lineTo(x(latest), y + high - high * node.received[i + 1] / 1000);
  }
  if (node.received.length) context.lineTo(x(Math.max(latest, to)), y + high - high * node.received.at(-1) / 1000);
  context.lineTo(x(Math.max(latest, to)), y + high);
  context.fillStyle = colours.receiving;
  context.fill();
  context.restore();
}

function receivedAt(node, at) {
  let share = 0;
  for (let i = 0; i < node.received.length && node.received[i] <= at; i += 2) share = node.received[i + 1];
  return share / 1000;
}

function startLanes(choose) {
  const scroller = byId("scroller"), lanes = byId("lanes"), overview = byId("overview");
  const nodeAt = (py) => shown[Math.floor((py + scroller.scrollTop) / rowSize)];
  scroller.addEventListener("scroll", () => { drawLanes(); drawOverview(); });
  lanes.addEventListener("click", (event) => choose(nodeAt(event.offsetY) || null));
  hover(lanes, (px, py) => {
    const node = nodeAt(py), width = lanes.clientWidth;
    if (!node) return null;
    const at = (px - GUTTER) / (width - GUTTER - EDGE) * data.end;
    const here = at >= 0 && at <= data.end && node.received.length
      ? ["at " + seconds(at) + ": " + data.states[stateAt(node, at)] + ", " + bytes(receivedAt(node, at) * data.size)] : [];
    return [...story(node), ...here];
  });
  const go = (event) => {
    if (event.buttons !== 1) return;
    scroller.scrollTop = event.offsetY / overview.clientHeight * shown.length * rowSize - VIEW / 2;
  };
  overview.addEventListener("mousedown", go);
  overview.addEventListener("mousemove", go);
}
