// Three charts over the time of the run.

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

function drawFlow() {
  const received = ratesOf(data.received), read = ratesOf(data.read);
  const peak = Math.max(...received, ...read, 1);
  const {context, x, y} = frame(byId("flow"), peak * 1.05, (rate) => (rate ? bytes(rate) + "/s" : "0"));
  const trace = (flow, rates) => {
    context.beginPath();
    context.moveTo(x(0), y(0));
    rates.forEach((rate, index) => {
      context.lineTo(x(index * flow.width), y(rate));
      context.lineTo(x(Math.min(data.end, (index + 1) * flow.width)), y(rate));
    });
    context.lineTo(x(Math.min(data.end, rates.length * flow.width)), y(0));
  };
  trace(data.received, received);
  context.fillStyle = colours["receiving-pale"];
  context.fill();
  context.strokeStyle = colours.receiving;
  context.stroke();
  trace(data.read, read);
  context.strokeStyle = colours.parked;
  context.setLineDash([4, 3]);
  context.stroke();
  byId("flow").setAttribute("aria-label", "at most " + bytes(Math.max(...received, 0)) + " a second were received");
  hover(byId("flow"), (px) => {
    const at = (px - CHART.left) / (x(data.end) - CHART.left) * data.end;
    const rate = (flow, rates) => bytes(rates[Math.floor(at / flow.width)] || 0) + "/s ";
    if (at < 0 || at > data.end) return null;
    return [seconds(at), rate(data.received, received) + "received", rate(data.read, read) + "read here"];
  });
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
  context.strokeStyle = context.fillStyle = colours.ink;
  for (const [share, name] of ends.length > 8 ? [[0.5, "half"], [0.95, "95 %"], [1, "all that do"]] : []) {
    const at = ends[Math.ceil(share * ends.length) - 1];
    words.push(name + ": " + seconds(at));
    context.setLineDash([3, 3]);
    context.beginPath();
    context.moveTo(x(at), y(0));
    context.lineTo(x(at), CHART.top);
    context.stroke();
  }
  context.textAlign = "left";
  words.forEach((word, index) => context.fillText(word, CHART.left + 8, 16 + 16 * index));
  byId("ends").setAttribute("aria-label", "when nodes had it; " + words.join(", "));
  hover(byId("ends"), (px) => {
    const index = Math.floor((px - CHART.left) / (x(data.end) - CHART.left) * bins.length);
    if (!(index in bins)) return null;
    const [from, to] = [index, index + 1].map((edge) => seconds(data.end * edge / bins.length));
    return [from + " to " + to, many(bins[index], "node")];
  });
}
