// The drawing of the map: points on one canvas, the box and the cross on another above it. Coordinates of data outside, pixels inside.

import { h } from "/static/dom.js";
import { number } from "/static/format.js";
import { colour } from "/static/plots.js";

const CLASS_COLOURS = ["--class-0", "--class-1", "--class-2", "--class-3", "--class-4", "--class-5", "--class-6", "--class-7"];
const UNKNOWN = 255, LAST = 65535, STEPS = 254;
const BYTES = 5; // of a point: x, y, colour
const CROSS_PX = 9;

/** What an address of REST packed into text, by number of the colour: [[x, y] ...] with 0 to 1 over the view. */
function unpacked(text) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  const byColour = new Map();
  for (let at = 0; at < bytes.length; at += BYTES) {
    const own = bytes[at + 4];
    if (!byColour.has(own)) byColour.set(own, []);
    byColour.get(own).push([view.getUint16(at, true) / LAST, view.getUint16(at + 2, true) / LAST]);
  }
  return byColour;
}

function channels(text) {
  return [1, 3, 5].map((at) => Number.parseInt(text.slice(at, at + 2), 16));
}

/** The style of each number of a colour. Tiers have the colours that they have on every page. */
export function palette({ column, classes }) {
  if (classes.length) {
    const names = column === "tier" ? classes.map((name) => `--${name}`) : CLASS_COLOURS;
      return (own) => (own === UNKNOWN || own >= classes.length ? colour("--none") : colour(names[own]));
  }
  const stops = ["--scale-low", "--scale-middle", "--scale-high"].map((name) => channels(colour(name)));
  return (own) => {
    if (own === UNKNOWN) return colour("--none");
    const at = (2 * own) / STEPS;
    const [low, high] = at < 1 ? [stops[0], stops[1]] : [stops[1], stops[2]];
    return `rgb(${low.map((value, k) => Math.round(value + (at % 1 || (at === 2 ? 1 : 0)) * (high[k] - value))).join(" ")})`;
  };
}

export class MapCanvas {
  /** `hovered`, `chosen` and `boxed` get coordinates of data. */
  constructor({ hovered, chosen, boxed }) {
    this.points = h("canvas", { class: "map-points" });
    this.marks = h("canvas", { class: "map-marks", role: "img", "aria-label": "Map" });
    this.node = h("div", { class: "map-stage" }, this.points, this.marks);
    Object.assign(this, { view: [0, 1, 0, 1], box: null, cross: null });
    this.marks.addEventListener("pointerdown", (event) => this.drag(event, { chosen, boxed }));
    this.marks.addEventListener("pointermove", (event) => !event.buttons && hovered(this.at(event)));
    new ResizeObserver(() => this.draw()).observe(this.node);
  }

  show(answer) {
    this.answer = answer;
    this.view = answer.view;
    this.byColour = unpacked(answer.points);
    this.draw();
  }

  /** Where a pointer is, in data. */
  at({ clientX, clientY }) {
    const { left, top, width, height } = this.marks.getBoundingClientRect();
    const [x0, x1, y0, y1] = this.view;
    return [x0 + ((clientX - left) / width) * (x1 - x0), y1 - ((clientY - top) / height) * (y1 - y0)];
  }

  /** Pixels of a place. */
  pixels([x, y]) {
    const [x0, x1, y0, y1] = this.view;
    return [((x - x0) / (x1 - x0)) * this.node.clientWidth, ((y1 - y) / (y1 - y0)) * this.node.clientHeight];
  }

  /** Data of so many pixels along each axis. */
  reach(pixels) {
    const [x0, x1, y0, y1] = this.view;
    return [(pixels * (x1 - x0)) / this.node.clientWidth, (pixels * (y1 - y0)) / this.node.clientHeight];
  }

  drag(event, { chosen, boxed }) {
    if (event.button) return;
    this.marks.setPointerCapture(event.pointerId);
    const from = this.at(event);
    const [startX, startY] = [event.clientX, event.clientY];
    let to = null;
    const move = (moved) => {
      if (!to && Math.hypot(moved.clientX - startX, moved.clientY - startY) < 4) return;
      to = this.at(moved);
      this.drawMarks(boxOf(from, to));
    };
    this.marks.addEventListener("pointermove", move);
    const end = () => {
      this.marks.removeEventListener("pointermove", move);
      if (to) boxed(boxOf(from, to));
      else chosen(from);
    };
    this.marks.addEventListener("lostpointercapture", end, { once: true });
  }

  context(canvas) {
    const ratio = devicePixelRatio;
    const [width, height] = [this.node.clientWidth, this.node.clientHeight];
    [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    return { context, width, height };
  }

  draw() {
    if (!this.answer) return;
    const { context, width, height } = this.context(this.points);
    const styleOf = palette(this.answer.colour);
    const size = this.answer.drawn > 20000 ? 1.6 : this.answer.drawn > 2000 ? 2.6 : 5;
    for (const [own, places] of [...this.byColour].sort(([a], [b]) => b - a)) {
      context.fillStyle = styleOf(own);
      for (const [x, y] of places) context.fillRect(x * width - size / 2, (1 - y) * height - size / 2, size, size);
    }
    this.drawEdges(context, width, height);
    this.drawMarks();
  }

  /** What the edges of the view are: the fields of the box take such numbers. */
  drawEdges(context, width, height) {
    const [x0, x1, y0, y1] = this.view.map(number);
    context.fillStyle = colour("--muted");
    context.font = "12px system-ui, sans-serif";
    for (const [text, x, y, align] of [
      [`x ${x0}`, 4, height - 5, "left"],
      [x1, width - 4, height - 5, "right"],
      [`y ${y0}`, 4, height - 21, "left"],
      [y1, 4, 14, "left"],
    ]) {
      context.textAlign = align;
      context.fillText(text, x, y);
    }
  }

  drawMarks(box = this.box) {
    const { context } = this.context(this.marks);
    context.strokeStyle = colour("--text");
    if (box) {
      const [[left, bottom], [right, top]] = [this.pixels([box[0], box[2]]), this.pixels([box[1], box[3]])];
      context.setLineDash([5, 4]);
      context.strokeRect(left, top, right - left, bottom - top);
      context.setLineDash([]);
    }
    if (!this.cross) return;
    const [x, y] = this.pixels(this.cross);
    context.beginPath();
    context.moveTo(x - CROSS_PX, y);
    context.lineTo(x + CROSS_PX, y);
    context.moveTo(x, y - CROSS_PX);
    context.lineTo(x, y + CROSS_PX);
    context.stroke();
  }
}

/** x_min, x_max, y_min, y_max of two corners. */
export function boxOf([x0, y0], [x1, y1]) {
  return [Math.min(x0, x1), Math.max(x0, x1), Math.min(y0, y1), Math.max(y0, y1)];
}
