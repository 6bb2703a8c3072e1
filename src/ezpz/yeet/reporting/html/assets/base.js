"use strict";
// The data, and what all pictures need. Text from the data is only ever drawn or set as textContent.

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const ROOT = -1, NOBODY = -2;
const [WAITING, RECEIVING, PARKED, CHECKING, DONE, FAILED] = [0, 1, 2, 3, 4, 5];
const STACK = [DONE, CHECKING, RECEIVING, PARKED, WAITING, FAILED];
const FONT = "12px system-ui, sans-serif";

// Text from another host, with what would not be seen, or would turn the text around it, spelt out.
const plain = (text) => text.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (c) => "\\u" + c.codePointAt(0).toString(16).padStart(4, "0"));

const nodes = data.nodes.map(([given, outcome, parent, depth, attempts, moments, received, why], index) => {
  const node = {index, name: plain(given), outcome, parent, depth, attempts, received, children: []};
  node.moments = moments.map(([at, state, via, adopted, reason]) => ({at, state, via, adopted, why: plain(reason || "")}));
  [node.code, node.message] = why.length ? why.map(plain) : ["", ""];
  const last = node.moments[node.moments.length - 1];
  node.state = last ? last.state : WAITING;
  node.end = last && last.state >= DONE ? last.at : Infinity;
  node.began = node.moments.length ? node.moments[0].at : Infinity;
  node.again = node.moments.some((moment) => moment.adopted || moment.state === WAITING);
  node.parked = node.moments.some((moment) => moment.state === PARKED);
  return node;
});

let colours = {};
function readColours() {
  const style = getComputedStyle(document.documentElement);
  const names = ["back", "card", "ink", "dim", "line", "accent", "receiving-pale", "done-pale", "early", "late", ...data.states];
  colours = Object.fromEntries(names.map((name) => [name, style.getPropertyValue("--" + name).trim()]));
  colours.states = data.states.map((state) => colours[state]);
}

// A canvas of so many CSS pixels in height and all the width it has, ready to be drawn on.
function prepared(canvas, height) {
  const width = canvas.clientWidth, ratio = window.devicePixelRatio || 1;
  canvas.style.height = height + "px";
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  context.font = FONT;
  context.textBaseline = "middle";
  return [context, width];
}

function bytes(size) {
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (size < 1000) return (unit === "B" ? Math.round(size) : size.toFixed(1)) + " " + unit;
    size /= 1000;
  }
  return size.toFixed(1) + " TB";
}

const seconds = (ms) => (ms / 1000).toFixed(data.end < 20000 ? 2 : 1) + " s";
const many = (count, noun) => count.toLocaleString("en") + " " + noun + (count === 1 ? "" : "s");
const nameOf = (index) => (index >= 0 ? nodes[index].name : index === ROOT ? "this host" : "nobody");

// A text that fits into a width: what is left out is in its middle, since names differ at their ends; "" for too little.
function fitted(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  for (let kept = Math.min(text.length - 1, Math.floor(width / 4)); kept >= 4; kept--) {
    const head = Math.floor(kept / 4), short = text.slice(0, head) + "…" + text.slice(head - kept);
    if (context.measureText(short).width <= width) return short;
  }
  return "";
}

// Round steps of an axis: about `wanted` of them up to `top`.
function stepOf(top, wanted) {
  const rough = Math.max(top, 1e-9) / wanted, power = 10 ** Math.floor(Math.log10(rough));
  return power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
}

function stateAt(node, at) {
  let state = WAITING;
  for (const moment of node.moments) {
    if (moment.at > at) break;
    state = moment.state;
  }
  return state;
}

// What there is to know about a node, in lines.
function story(node) {
  const lines = [node.name + ": " + (node.index === data.local ? "this host, " : "") + outcomeOf(node)];
  for (const moment of node.moments) {
    const by = moment.via === NOBODY ? "" : " from " + nameOf(moment.via);
    const words = {
      [WAITING]: "waits: " + moment.why, [RECEIVING]: (moment.adopted ? "adopted, receives" : "receives") + by,
      [PARKED]: "parked until the end", [CHECKING]: "has received all", [DONE]: "has it", [FAILED]: node.message || "failed",
    };
    const read = node.index === data.local && moment.state === RECEIVING;
    lines.push(seconds(moment.at) + "  " + (read ? "reads the source" : words[moment.state]));
  }
  if (lines.length > 11) lines.splice(5, lines.length - 10, "…");
  return lines;
}

function outcomeOf(node) {
  if (node.outcome === "ok") return "has it";
  return node.outcome.replace("_", " ") + (node.code ? " (" + node.code + ")" : "");
}

function showTip(event, lines) {
  const tip = byId("tip");
  tip.hidden = !lines;
  if (!lines) return;
  tip.textContent = lines.join("\n");
  const box = tip.getBoundingClientRect();
  const left = Math.min(event.clientX + 14, window.innerWidth - box.width - 8);
  const below = event.clientY + 18;
  tip.style.left = Math.max(4, left) + "px";
  tip.style.top = (below + box.height > window.innerHeight ? event.clientY - box.height - 12 : below) + "px";
}

// Show what `find` says of the place under the pointer: lines, or null.
function hover(canvas, find) {
  canvas.onmousemove = (event) => showTip(event, find(event.offsetX, event.offsetY));
  canvas.onmouseleave = (event) => showTip(event, null);
}

// Fills that tell states apart without colour.
function pattern(context, state) {
  const tile = document.createElement("canvas"), pen = tile.getContext("2d");
  tile.width = tile.height = 8;
  pen.fillStyle = colours.states[state];
  pen.fillRect(0, 0, 8, 8);
  pen.fillStyle = pen.strokeStyle = colours.card;
  if (state === PARKED) for (const [x, y] of [[1, 1], [5, 5]]) pen.fillRect(x, y, 2, 2);
  if (state === CHECKING) for (const x of [0, 4]) pen.fillRect(x, 0, 1, 8);
  if (state === FAILED) {
    pen.lineWidth = 1.6;
    for (const shift of [-8, 0, 8]) { pen.beginPath(); pen.moveTo(shift, 8); pen.lineTo(shift + 8, 0); pen.stroke(); }
  }
  return context.createPattern(tile, "repeat");
}
