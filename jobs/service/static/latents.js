// The latents of an episode over its time: a lane of colours for each camera and encoder, with how much they change below. Equal colours are equal latents.

import { h } from "/static/dom.js";
import { number, whole } from "/static/format.js";

const WIDTH = 1200; // of the drawing; the page stretches it
const COLOURS = 16, CHANGE = 8; // pixels of height

/** Where the picture of each timestep ends: at the next one. */
function ends(timesteps, length) {
  return timesteps.map((_, place) => timesteps[place + 1] ?? length);
}

function draw(canvas, strip, length) {
  const context = canvas.getContext("2d");
  const most = Math.max(...strip.change, Number.MIN_VALUE);
  const until = ends(strip.timesteps, length);
  context.fillStyle = getComputedStyle(canvas).color;
  strip.timesteps.forEach((timestep, place) => {
    const x = (WIDTH * timestep) / length;
    const height = (CHANGE * strip.change[place]) / most;
    context.fillRect(x, COLOURS + CHANGE - height, Math.max((WIDTH * (until[place] - timestep)) / length, 1), height);
  });
  strip.timesteps.forEach((timestep, place) => {
    context.fillStyle = `rgb(${strip.colours[place].join(" ")})`;
    context.fillRect((WIDTH * timestep) / length, 0, (WIDTH * (until[place] - timestep)) / length + 1, COLOURS);
  });
}

/** In words, for those who do not see it. */
function described({ camera, encoder_id: encoder, timesteps, change, explained }) {
  const largest = change.indexOf(Math.max(...change));
  const share = explained.reduce((sum, each) => sum + each, 0);
  return `Latents of camera ${camera} by ${encoder}, ${whole(timesteps.length)} pictures. Three colours say ${number(100 * share)} % of their variance. The largest change, ${number(change[largest])}, is at timestep ${timesteps[largest]}.`;
}

function lane(strip, length) {
  const name = h("span", { class: "lane-name" }, "Latents");
  if (strip.problem || !strip.timesteps.length) return h("div", { class: "lane" }, name, h("p", { class: "muted" }, `${strip.camera}, ${strip.encoder_id}: ${strip.problem || "no picture"}`));
  const text = described(strip);
  const canvas = h("canvas", { class: "latents", width: WIDTH, height: COLOURS + CHANGE, role: "img", "aria-label": text, title: text });
  requestAnimationFrame(() => draw(canvas, strip, length)); // its colour is known once it is in the page
  return h("div", { class: "lane" }, name, h("div", { class: "lane-rows" }, h("span", { class: "lane-camera" }, `${strip.camera}, ${strip.encoder_id}`), canvas));
}

export function latentLanes(strips, length) {
  return strips.map((strip) => lane(strip, length));
}
