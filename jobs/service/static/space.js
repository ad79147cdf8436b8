// Hands and end effectors: their paths in space by plotly, and drawn over the pictures at the timestep that is shown.

import { colour, plotly } from "/static/plots.js";

const SIDE_COLOURS = { left: "--left", right: "--right" };

function column(points, axis) {
  return points.map((point) => (point ? point[axis] : null));
}

/** The bones of a hand as one line with gaps. */
function bones(points, parents) {
  return parents.flatMap((parent, joint) => (parent < 0 ? [] : [points[parent], points[joint], null]));
}

export class Space {
  constructor(node, geometry) {
    Object.assign(this, { node, geometry, isDrawn: false });
  }

  async draw() {
    const { hands } = this.geometry;
    const path = hands.map(({ side, position }) => this.lines(position, side, { width: 3 }, `${side} path`));
    const now = hands.map(({ side }) => ({ ...this.lines([null], side, {}, side), mode: "markers", marker: { size: 5, color: colour(SIDE_COLOURS[side]) } }));
    const skeletons = hands.filter((hand) => hand.points).map(({ side }) => this.lines([null], side, { width: 4 }, `${side} hand`));
    const axis = { gridcolor: colour("--line"), color: colour("--muted"), backgroundcolor: "rgba(0,0,0,0)", zerolinecolor: colour("--line"), nticks: 5, tickfont: { size: 10 } };
    const layout = {
      height: 300,
      margin: { l: 0, r: 0, t: 0, b: 0 },
      paper_bgcolor: "rgba(0,0,0,0)",
      font: { family: "system-ui, sans-serif", size: 11, color: colour("--muted") },
      showlegend: false,
      scene: { aspectmode: "data", camera: { eye: { x: 1.7, y: 1.7, z: 1.1 } }, xaxis: { ...axis, title: { text: "x, m" } }, yaxis: { ...axis, title: { text: "y, m" } }, zaxis: { ...axis, title: { text: "z, m" } } },
      uirevision: "kept",
    };
    await (await plotly()).react(this.node, [...path, ...now, ...skeletons], layout, { displayModeBar: false, responsive: true });
    this.isDrawn = true;
  }

  lines(points, side, style, name) {
    return { type: "scatter3d", mode: "lines", name, x: column(points, 0), y: column(points, 1), z: column(points, 2), line: { color: colour(SIDE_COLOURS[side]), ...style }, hoverinfo: "skip", connectgaps: false };
  }

  /** Moves the marks to a timestep. It costs a redraw of the scene, so it is done when the clock stands. */
  async showAt(timestep) {
    if (!this.isDrawn) return;
    const { hands, parents, timesteps } = this.geometry;
    const place = placeOf(timesteps, timestep);
    const current = [...hands.map(({ position }) => [position[place]]), ...hands.filter((hand) => hand.points).map(({ points }) => bones(points[place], parents))];
    const data = { x: [], y: [], z: [] };
    current.forEach((points) => ["x", "y", "z"].forEach((name, axis) => data[name].push(column(points, axis))));
    await (await plotly()).restyle(this.node, data, current.map((_, index) => hands.length + index));
  }
}

export function placeOf(timesteps, timestep) {
  const stride = timesteps.length > 1 ? timesteps[1] - timesteps[0] : 1;
  return Math.min(Math.round(timestep / stride), timesteps.length - 1);
}

/** Draws over one picture. The canvas has the pixels of the stored video. */
export class Overlay {
  constructor(canvas, geometry, camera) {
    this.canvas = canvas;
    this.geometry = geometry;
    this.seen = geometry.pictures.filter((each) => each.camera === camera);
  }

  showAt(timestep) {
    const context = this.canvas.getContext("2d");
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    const place = placeOf(this.geometry.timesteps, timestep);
    const width = Math.max(this.canvas.width / 200, 1);
    for (const { side, trail, points } of this.seen) {
      context.strokeStyle = context.fillStyle = colour(SIDE_COLOURS[side]);
      this.line(context, trail[place], width);
      const now = trail[place][(trail[place].length - 1) / 2];
      if (now) {
        context.beginPath();
        context.arc(...now, 2 * width, 0, 2 * Math.PI);
        context.fill();
      }
      if (points) this.line(context, bones(points[place], this.geometry.parents), width);
    }
  }

  line(context, points, width) {
    context.lineWidth = width;
    context.beginPath();
    points.forEach((point, k) => {
      if (!point) return;
      if (points[k - 1]) context.lineTo(...point);
      else context.moveTo(...point);
    });
    context.stroke();
  }
}
