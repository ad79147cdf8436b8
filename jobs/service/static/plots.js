// State and action over time: one plot for each slice, drawn by plotly, with cursor and values of our own above them.

import { h } from "/static/dom.js";

export const GUTTER = { left: 56, right: 8 }; // pixels, shared with the timeline
const LEFT_OUT = /hand_keypoints_m/; // 63 lines say nothing; they are drawn as a hand
const LINES = ["--series-1", "--series-2", "--series-3", "--series-4", "--series-5", "--series-6", "--series-7"];
const TITLES = { position_m: "position, m", rot6d_cols: "rotation, columns x and y", gripper_opening: "gripper, 1 open", hand_joints_rad: "finger joints, rad", joint_position_rad: "joints, rad" };

let library = null;

/** plotly.js is 4.8 MB: it is loaded when something is to be drawn. */
export function plotly() {
  library ??= new Promise((resolve, reject) => {
    const src = document.querySelector("meta[name=plotly]").content;
    const script = h("script", { src, load: () => resolve(globalThis.Plotly), error: () => reject(new Error(`cannot load ${src}`)) });
    document.head.append(script);
  });
  return library;
}

export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** Calls `draw` now and whenever the theme changes: plotly's colours are not styles. */
export function drawnInTheme(draw) {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  return draw();
}

/** [{slice, elements: [{name, state, action}]}]: the channels of REST, by slice of the vector. */
export function slicesOf(channels) {
  const slices = new Map();
  for (const channel of channels) {
    const words = channel.name.split(".");
    const element = words.length > 1 && TITLES[words.at(-1)] === undefined ? words.at(-1) : "";
    const slice = element ? words.slice(0, -1).join(".") : channel.name;
    if (LEFT_OUT.test(slice)) continue;
    const elements = slices.get(slice) ?? new Map();
    const own = elements.get(element) ?? { name: element };
    own[channel.feature === "action" ? "action" : "state"] = channel;
    elements.set(element, own);
    slices.set(slice, elements);
  }
  return [...slices].map(([slice, elements]) => ({ slice, elements: [...elements.values()] }));
}

function titleOf(slice) {
  const words = slice.split(".");
  return [...words.slice(0, -1), TITLES[words.at(-1)] ?? words.at(-1)].join(" ");
}

/** The value of a channel at a timestep; of thinned channels the last one before it. */
function valueAt({ timesteps, values }, timestep) {
  let [low, high] = [0, timesteps.length - 1];
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (timesteps[middle] <= timestep) low = middle;
    else high = middle - 1;
  }
  return values[low];
}

export class SeriesPlot {
  constructor({ slice, elements }, series, shaded, hasTimes) {
    Object.assign(this, { elements, series, shaded, slice, hasTimes });
    this.readings = elements.slice(0, LINES.length).map((element, place) => {
      const reading = h("span", { class: "reading" }, "–");
      const key = h("span", { class: "key" }, element.name || "value");
      key.style.setProperty("--own", `var(${LINES[place]})`);
      return { element, reading, node: h("span", { class: "reading-pair" }, key, reading) };
    });
    this.canvas = h("div", { class: "plot", role: "img", "aria-label": `${titleOf(slice)} over time; state as lines, action as dots` });
    this.node = h("section", { class: "series" }, h("h3", {}, titleOf(slice), this.readings.map((each) => each.node)), this.canvas);
  }

  async draw() {
    const { rate_hz: rate, length, invalid } = this.series;
    const traces = this.readings.flatMap(({ element }, place) => {
      const line = colour(LINES[place]);
      const of = (channel, style) => ({ type: "scatter", mode: "lines", x: channel.timesteps.map((k) => k / rate), y: channel.values, line: { color: line, ...style }, hoverinfo: "skip", connectgaps: false });
      return [element.state && of(element.state, { width: 1.6 }), element.action && of(element.action, { width: 1.2, dash: "dot" })].filter(Boolean);
    });
    const isOwn = (each) => each.part === this.slice && each.feature !== "action";
    const stretches = [...invalid.filter(isOwn), ...this.shaded];
    const layout = {
      height: this.hasTimes ? 112 : 100,
      margin: { l: GUTTER.left, r: GUTTER.right, t: 6, b: this.hasTimes ? 22 : 10 },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: "system-ui, sans-serif", size: 11, color: colour("--muted") },
      showlegend: false,
      xaxis: { range: [0, length / rate], gridcolor: colour("--line"), zeroline: false, fixedrange: true, ticksuffix: " s", nticks: 8, showticklabels: this.hasTimes, ticks: this.hasTimes ? "outside" : "", tickcolor: "rgba(0,0,0,0)" },
      yaxis: { gridcolor: colour("--line"), zeroline: false, fixedrange: true, nticks: 4 },
      shapes: stretches.map(({ start, end }) => ({ type: "rect", xref: "x", yref: "paper", x0: start / rate, x1: end / rate, y0: 0, y1: 1, fillcolor: colour("--fault"), line: { width: 0 }, layer: "below" })),
    };
    await (await plotly()).react(this.canvas, traces, layout, { staticPlot: true, responsive: true });
  }

  showAt(timestep) {
    for (const { element, reading } of this.readings) reading.textContent = valueAt(element.state ?? element.action, timestep)?.toFixed(3) ?? "–";
  }
}
