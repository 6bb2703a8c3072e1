// Four charts over the time of the run.

const CHART = {height: 200, left: 74, right: 10, top: 8, bottom: 26};

// Axes and grid; returns the scales. `label` writes a value of the vertical axis.
function frame(canvas, top, label) {
  const [context, width] = prepared(canvas, CHART.height);
  const x = (ms) => CHART.left + (width - CHART.left - CHART.right) * ms / data.end;
  const y = (value) => CHART.height - CHART.bottom - (CHART.height - CHART.top - CHART.bottom) * value / (top || 1);
  context.strokeStyle = colours.line;
  context.fillStyle = colours.dim;
  context.textAlign = "right";
  const step = stepOf(top, 4);
  for (let value = 0; value <= top * 1.001; value += step) {
    context.beginPath();
    context.moveTo(CHART.left, Math.round(y(value)) + 0.5);
    context.lineTo(width - CHART.right, Math.round(y(value)) + 0.5);
    context.stroke();
    context.fillText(label(value), CHART.left - 8, y(value));
  }
  context.textAlign = "center";
  timeTicks(width - CHART.left - CHART.right, (ms, text) => {
    context.fillText(text, Math.min(x(ms), width - CHART.right - 12), CHART.height - 12);
  });
  return {context, width, x, y};
}

function timeTicks(width, draw) {
  const step = stepOf(data.end / 1000, Math.max(2, width / 90));
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  for (let at = 0; at * 1000 <= data.end; at += step) draw(at * 1000, at.toFixed(digits) + " s");
}

const ratesOf = (flow) => flow.bins.map((size) => size * 1000 / flow.width);

// The outline of a flow's rates, as a path that is closed at the bottom.
function trace({context, x, y}, width, rates) {
  context.beginPath();
  context.moveTo(x(0), y(0));
  rates.forEach((rate, index) => {
    context.lineTo(x(index * width), y(rate));
    context.lineTo(x(Math.min(data.end, (index + 1) * width)), y(rate));
  });
  context.lineTo(x(Math.min(data.end, rates.length * width)), y(0));
}

// Draw rates, and others dashed; `words` are behind their values when one points at them.
function drawRates(id, width, rates, words, dashed) {
  const others = dashed ? ratesOf(dashed.flow) : [], peak = Math.max(...rates, ...others, 1);
  const scales = frame(byId(id), peak * 1.05, (rate) => (rate ? bytes(rate) + "/s" : "0")), {context, x} = scales;
  trace(scales, width, rates);
  context.fillStyle = colours["receiving-pale"];
  context.fill();
  context.strokeStyle = colours.receiving;
  context.stroke();
  if (dashed) {
    trace(scales, dashed.flow.width, others);
    context.strokeStyle = colours.parked;
    context.lineWidth = 1.5;
    context.setLineDash([5, 3]);
    context.stroke();
  }
  byId(id).setAttribute("aria-label", "at most " + bytes(Math.max(...rates, 0)) + " a second " + words);
  hover(byId(id), (px) => {
    const at = (px - CHART.left) / (x(data.end) - CHART.left) * data.end;
    const rate = (all, each) => bytes(all[Math.floor(at / each)] || 0) + "/s ";
    if (at < 0 || at > data.end) return null;
    return [seconds(at), rate(rates, width) + words, ...(dashed ? [rate(others, dashed.flow.width) + dashed.words] : [])];
  });
}

function drawFlow() {
  drawRates("flow", data.received.width, ratesOf(data.received), "received by all nodes");
}

// What one node receives, on average of those that do: the same however many nodes there are.
function drawEach() {
  const {width, bins} = data.received, spent = bins.map(() => 0); // milliseconds that nodes spent receiving
  for (const node of nodes) if (node.index !== data.local) for (const [from, to, state] of stretches(node)) {
    if (state !== RECEIVING) continue;
    for (let i = Math.floor(from / width); i < bins.length && i * width < to; i++) {
      spent[i] += Math.min(to, (i + 1) * width) - Math.max(from, i * width);
    }
  }
  const rates = bins.map((size, i) => size * 1000 / Math.max(spent[i], width / 2));
  drawRates("each", width, rates, "received by one node", {flow: data.read, words: "read here"});
}

function drawStates() {
  const {context, x, y} = frame(byId("states"), nodes.length, (value) => (value % 1 ? "" : value.toLocaleString("en")));
  const steps = 200;
  const counts = Array.from({length: steps + 1}, () => [0, 0, 0, 0, 0, 0]);
  for (const node of nodes) {
    let next = 0, state = WAITING;
    for (let step = 0; step <= steps; step++) {
      while (next < node.moments.length && node.moments[next].at <= data.end * step / steps) {
        state = node.moments[next++].state;
      }
      counts[step][state]++;
    }
  }
  const below = counts.map(() => 0);
  for (const state of STACK) {
    context.beginPath();
    counts.forEach((_, step) => context.lineTo(x(data.end * step / steps), y(below[step])));
    counts.forEach((count, step) => { below[step] += count[state]; });
    for (let step = steps; step >= 0; step--) context.lineTo(x(data.end * step / steps), y(below[step]));
    context.fillStyle = state === DONE || state === RECEIVING || state === WAITING
      ? colours.states[state] : pattern(context, state);
    context.fill();
  }
  byId("states").setAttribute("aria-label", "how many nodes were in each state");
  hover(byId("states"), (px) => {
    const step = Math.round((px - CHART.left) / (x(data.end) - CHART.left) * steps);
    if (step < 0 || step > steps) return null;
    return [seconds(data.end * step / steps), ...STACK.filter((state) => counts[step][state])
      .map((state) => counts[step][state].toLocaleString("en") + " " + data.states[state])];
  });
}

function drawEnds() {
  const ends = nodes.filter((node) => node.state === DONE).map((node) => node.end).sort((a, b) => a - b);
  const bins = Array(Math.min(60, Math.max(12, nodes.length))).fill(0);
  for (const end of ends) bins[Math.min(bins.length - 1, Math.floor(end / data.end * bins.length))]++;
  const {context, x, y} = frame(byId("ends"), Math.max(...bins, 1), (value) => (value % 1 ? "" : value.toLocaleString("en")));
  context.fillStyle = colours.done;
  bins.forEach((count, index) => {
    const left = x(data.end * index / bins.length), right = x(data.end * (index + 1) / bins.length);
    context.fillRect(left + 0.5, y(count), right - left - 1, y(0) - y(count));
  });
  const words = [];
  context.strokeStyle = colours.ink;
  context.setLineDash([3, 3]);
  for (const [share, name] of ends.length > 8 ? [[0.5, "half by "], [0.95, "95 % by "], [1, "the last at "]] : []) {
    const at = ends[Math.ceil(share * ends.length) - 1];
    words.push(name + seconds(at));
    context.beginPath();
    context.moveTo(x(at), y(0));
    context.lineTo(x(at), CHART.top);
    context.stroke();
  }
  byId("shares").textContent = words.length ? ": " + words.join(", ") : "";
  byId("ends").setAttribute("aria-label", "when nodes had it; " + words.join(", "));
  hover(byId("ends"), (px) => {
    const index = Math.floor((px - CHART.left) / (x(data.end) - CHART.left) * bins.length);
    if (!(index in bins)) return null;
    const [from, to] = [index, index + 1].map((edge) => seconds(data.end * edge / bins.length));
    return [from + " to " + to, many(bins[index], "node")];
  });
}
