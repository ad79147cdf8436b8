// Map: each episode as a point, near those that look or move alike; a colour for any column, and a box that chooses.

import { episodePath, get, query, sheetAddress } from "/static/api.js";
import { addSelection, MOST } from "/static/cart.js";
import { h, replace, table, tierMark } from "/static/dom.js";
import { columnName, hours, number, share, whole } from "/static/format.js";
import { bind, showDialog } from "/static/keys.js";
import { boxOf, MapCanvas, palette } from "/static/map_canvas.js";
import { drawnInTheme } from "/static/plots.js";

const SPACES = { pictures: "look alike", motion: "move alike" };
const EDGES = ["x_min", "x_max", "y_min", "y_max"];
const NEAR_PX = 10, NEAR_MS = 150, SEARCH_DELAY_MS = 250;
const STEP = 0.02, ZOOM = 0.6; // of the view
const SHOWN = 20; // rows of the box

function four(text) {
  const values = (text ?? "").split(",").map(Number);
  return values.length === 4 && values.every(Number.isFinite) && values[0] < values[1] && values[2] < values[3] ? values : null;
}

/** What the address says. */
function asked() {
  const search = new URLSearchParams(location.search);
  return { space: search.get("space") in SPACES ? search.get("space") : "pictures", colour: search.get("colour") || "tier", filter: search.getAll("filter"), q: search.get("q") ?? "", view: four(search.get("view")), box: four(search.get("box")) };
}

class MapPage {
  constructor(main, columns) {
    this.state = asked();
    this.canvas = new MapCanvas({ hovered: (at) => this.lookSoon(at), chosen: (at) => this.place(at), boxed: (box) => this.go({ box }) });
    const coloured = columns.filter((each) => each.kind !== "text");
    const option = (name, text, own) => h("option", { value: name, selected: name === own }, text);
    this.parts = {
      search: h("input", { type: "search", id: "search", placeholder: "Tasks, captions, ids", "aria-label": "Search tasks, captions and ids", input: () => this.searchSoon() }),
      space: h("select", { id: "space", change: ({ target }) => this.go({ space: target.value, view: null, box: null }) }, Object.entries(SPACES).map(([name, text]) => option(name, text, this.state.space))),
      colour: h("select", { id: "colour", change: ({ target }) => this.go({ colour: target.value }) }, coloured.map((each) => option(each.name, columnName(each.name), this.state.colour))),
      summary: h("p", { class: "summary", role: "status" }),
      chips: h("div", { class: "chips" }),
      legend: h("div", { class: "map-legend" }),
      near: h("div", { class: "map-near", role: "region", "aria-label": "Nearest episode", "aria-live": "polite" }),
      box: h("section", { class: "map-box", "aria-label": "Box" }),
    };
    const { search, space, colour, summary, chips, legend, near, box } = this.parts;
    replace(
      main,
      h("h1", {}, "Map"),
      h("div", { class: "row tools" }, h("label", { for: "space" }, "Near are episodes that"), space, h("label", { for: "colour" }, "Colour by"), colour, search, h("button", { type: "button", id: "zoom-in", click: () => this.zoom(ZOOM) }, "Zoom in"), h("button", { type: "button", id: "zoom-out", click: () => this.zoom(1 / ZOOM) }, "Zoom out"), h("button", { type: "button", id: "whole-map", click: () => this.go({ view: null }) }, "Whole map")),
      summary,
      chips,
      h("div", { class: "map" }, this.canvas.node, h("aside", { "aria-label": "Legend and nearest episode" }, legend, near)),
      this.boxForm(),
      box,
    );
    addEventListener("popstate", () => this.load());
    document.addEventListener("connected", () => this.load());
    this.bindKeys();
  }

  bindKeys() {
    const moves = { ArrowLeft: [-1, 0, "left"], ArrowRight: [1, 0, "right"], ArrowUp: [0, 1, "up"], ArrowDown: [0, -1, "down"] };
    for (const [key, [x, y, text]] of Object.entries(moves)) bind(key, `move the cross ${text}`, (event) => this.moveCross(x, y, event.shiftKey ? 5 : 1));
    bind("Enter", "open the episode at the cross", () => this.near && location.assign(this.addressOf(this.near)));
    bind("b", "one corner of the box at the cross, then the other", () => this.corner());
    bind("f", "add the box to the cart", () => this.addBox());
    bind("+", "zoom in", () => this.zoom(ZOOM));
    bind("-", "zoom out", () => this.zoom(1 / ZOOM));
    bind("0", "whole map", () => this.go({ view: null }));
    bind("Escape", "no box", () => this.state.box && this.go({ box: null }));
  }

  go(change, { replaces = false } = {}) {
    const { view, box, ...rest } = { ...this.state, ...change };
    const text = (edges) => (edges ? edges.map((value) => Number(value.toPrecision(6))).join(",") : null);
    const address = query({ ...rest, view: text(view), box: text(box) }) || location.pathname;
    if (replaces) history.replaceState(null, "", address);
    else history.pushState(null, "", address);
    return this.load();
  }

  searchSoon() {
    clearTimeout(this.searchTimer);
    this.searchTimer = setTimeout(() => this.go({ q: this.parts.search.value }, { replaces: true }), SEARCH_DELAY_MS);
  }

  async load() {
    this.request?.abort();
    this.request = new AbortController();
    const { signal } = this.request;
    this.state = asked();
    const { space, colour, filter, q, view, box } = this.state;
    const { search } = this.parts;
    if (document.activeElement !== search) search.value = q;
    [this.parts.space.value, this.parts.colour.value] = [space, colour];
    this.canvas.node.setAttribute("aria-busy", "true");
    try {
      const edges = view ? Object.fromEntries(EDGES.map((name, place) => [name, view[place]])) : {};
      this.answer = await get("/map", { space, colour, filter, q, ...edges }, { signal });
      this.canvas.box = box;
      this.canvas.show(this.answer);
      this.drawSummary();
      this.drawChips();
      this.drawLegend();
      await this.drawBox(signal);
    } catch (error) {
      if (error.name === "AbortError") return;
      if (error.status === undefined) throw error;
      replace(this.parts.summary, h("span", { class: "failure" }, error.message, error.remedy ? `; ${error.remedy}` : ""));
    }
    this.canvas.node.removeAttribute("aria-busy");
    document.documentElement.dataset.drawn = String(Number(document.documentElement.dataset.drawn ?? 0) + 1);
  }

  drawSummary() {
    const { total, without_signature: without, in_view: seen, drawn, explained } = this.answer;
    const text = [`${whole(seen)} of ${whole(total)} episodes in view`];
    if (drawn < seen) text.push(`${whole(drawn)} of them drawn`);
    if (without) text.push(`${whole(without)} without a signature: not measured, or nothing moves`);
    text.push(`the axes hold ${share(explained[0], 1)} and ${share(explained[1], 1)} of what differs`);
    this.parts.summary.textContent = `${text.join("; ")}.`;
    this.canvas.marks.setAttribute("aria-label", `Map: ${text.join("; ")}. The table below lists the episodes of the box or of the view.`);
  }

  drawChips() {
    const { filter } = this.state;
    const chip = (each) => h("button", { type: "button", class: "chip", "aria-label": `Remove the filter ${each}`, click: () => this.go({ filter: filter.filter((other) => other !== each) }) }, each.replaceAll(":", " "), h("span", { "aria-hidden": "true" }, " ×"));
    replace(this.parts.chips, filter.map(chip));
  }

  drawLegend() {
    const { column, unit, classes, episodes, other, unknown, low, high } = this.answer.colour;
    const styleOf = palette(this.answer.colour);
    const swatch = (place) => {
      const mark = h("span", { class: "swatch", "aria-hidden": "true" });
      mark.style.background = styleOf(place);
      return mark;
    };
    const line = (place, name, count) => h("li", {}, swatch(place), h("span", { class: "name", title: name }, name || "empty"), h("span", { class: "count" }, whole(count)));
    const lines = classes.map((name, place) => line(place, name, episodes[place]));
    if (low !== null) {
      const middle = [0, 1, 2, 3, 4].map((k) => [Math.round((254 * k) / 4), low + (k / 4) * (high - low)]);
      lines.push(...middle.map(([place, value], k) => h("li", {}, swatch(place), h("span", { class: "name" }, `${["≤ ", "", "", "", "≥ "][k]}${number(value)}`))));
    }
    if (other) lines.push(line(classes.length, "other values", other));
    if (unknown) lines.push(line(255, "unknown", unknown));
    replace(this.parts.legend, h("h2", {}, columnName(column), unit ? h("span", { class: "unit" }, ` ${unit}`) : null), h("ul", {}, lines));
  }

  /** Filters of what lies between the edges. */
  within([x0, x1, y0, y1]) {
    const [x, y] = this.answer.columns;
    return [...this.state.filter, `${x}:ge:${x0}`, `${x}:le:${x1}`, `${y}:ge:${y0}`, `${y}:le:${y1}`];
  }

  get chosen() {
    return { filter: this.within(this.state.box ?? this.answer.view), q: this.state.q };
  }

  async drawBox(signal) {
    const { box } = this.state;
    for (const [place, name] of EDGES.entries()) this.fields[name].value = box ? box[place] : "";
    const page = await get("/episodes", { ...this.chosen, limit: SHOWN }, { signal });
    this.inBox = page.total;
    const add = h("button", { type: "button", id: "add-box", class: "primary", disabled: !page.total, click: () => this.addBox() }, `Add ${page.total === 1 ? "it" : `all ${whole(page.total)}`} to the cart`);
    replace(
      this.parts.box,
      h("p", { role: "status" }, h("b", {}, whole(page.total)), page.total === 1 ? " episode" : " episodes", box ? " in the box, " : " in view, ", hours(page.hours)),
      h("p", { class: "row" }, add, h("a", { class: "button", href: `/episodes${query(this.chosen)}` }, "Show in Episodes"), box ? h("button", { type: "button", id: "zoom-box", click: () => this.go({ view: box, box: null }) }, "Zoom into the box") : null),
      page.total ? this.rows(page) : null,
    );
  }

  rows({ episodes, total }) {
    const columns = [
      { name: "Episode", cell: (row) => h("a", { href: this.addressOf(row) }, row.episode_id ?? row.uid) },
      { name: "Source", cell: (row) => row.source },
      { name: "Task", cell: (row) => h("span", { class: "clamp" }, (row.tasks ?? "").replaceAll("\n", "; ") || "–") },
      { name: "Tier", cell: (row) => tierMark(row.tier) },
    ];
    return table(total > episodes.length ? `The first ${whole(episodes.length)} of ${whole(total)}` : "All of them", columns, episodes);
  }

  boxForm() {
    const names = { x_min: "x", x_max: "to", y_min: "y", y_max: "to" };
    this.fields = Object.fromEntries(EDGES.map((name) => [name, h("input", { type: "number", step: "any", required: true, name, "aria-label": name.replace("_min", ", lowest").replace("_max", ", highest") })]));
    const submit = (event) => {
      event.preventDefault();
      const [x0, x1, y0, y1] = EDGES.map((name) => Number(this.fields[name].value));
      this.go({ box: boxOf([x0, y0], [x1, y1]) });
    };
    const clear = h("button", { type: "button", id: "clear-box", click: () => this.go({ box: null }) }, "Clear");
    return h("form", { class: "row map-form", submit }, h("span", {}, "Drag a box, or"), EDGES.map((name) => h("label", {}, names[name], " ", this.fields[name])), h("button", { type: "submit" }, "Set the box"), clear);
  }

  async addBox() {
    if (!this.inBox) return;
    if (this.inBox > MOST) {
      showDialog("Cart", h("p", { role: "alert" }, `${whole(this.inBox)} episodes; the cart takes ${whole(MOST)}. Draw a smaller box.`));
      return;
    }
    try {
      await addSelection(this.chosen);
    } catch (error) {
      if (error.status === undefined) throw error;
      showDialog("Cart", h("p", { role: "alert" }, error.message));
    }
  }

  zoom(factor) {
    const [x0, x1, y0, y1] = this.canvas.view;
    const [x, y] = this.canvas.cross ?? [(x0 + x1) / 2, (y0 + y1) / 2];
    this.go({ view: [x - (x - x0) * factor, x + (x1 - x) * factor, y - (y - y0) * factor, y + (y1 - y) * factor] });
  }

  moveCross(x, y, times) {
    const [x0, x1, y0, y1] = this.canvas.view;
    const [ownX, ownY] = this.canvas.cross ?? [(x0 + x1) / 2, (y0 + y1) / 2];
    const inside = (value, low, high) => Math.min(Math.max(value, low), high);
    this.place([inside(ownX + x * times * STEP * (x1 - x0), x0, x1), inside(ownY + y * times * STEP * (y1 - y0), y0, y1)]);
  }

  place(at) {
    this.canvas.cross = at;
    this.canvas.drawMarks();
    this.lookSoon(at, true);
  }

  corner() {
    const at = this.canvas.cross;
    if (!at) return;
    if (!this.firstCorner) {
      this.firstCorner = at;
      return;
    }
    const box = boxOf(this.firstCorner, at);
    this.firstCorner = null;
    if (box[0] < box[1] && box[2] < box[3]) this.go({ box });
  }

  lookSoon(at, isCross = false) {
    clearTimeout(this.nearTimer);
    this.nearTimer = setTimeout(() => this.look(at, isCross), NEAR_MS);
  }

  /** The episode nearest to a place, a few pixels around it. A pointer that passes over nothing leaves the last one, so that its link can be reached. */
  async look([x, y], isCross) {
    if (!this.answer) return;
    const [reachX, reachY] = this.canvas.reach(NEAR_PX);
    const [nameX, nameY] = this.answer.columns;
    const around = this.within([x - reachX, x + reachX, y - reachY, y + reachY]);
    this.nearRequest?.abort();
    this.nearRequest = new AbortController();
    let page;
    try {
      page = await get("/episodes", { filter: around, q: this.state.q, column: [nameX, nameY], limit: 200 }, { signal: this.nearRequest.signal });
    } catch (error) {
      if (error.name === "AbortError" || error.status !== undefined) return;
      throw error;
    }
    const distance = (row) => Math.hypot((row[nameX] - x) / reachX, (row[nameY] - y) / reachY);
    const nearest = page.episodes.reduce((best, row) => (!best || distance(row) < distance(best) ? row : best), null);
    if (!nearest && isCross) {
      this.near = null;
      replace(this.parts.near, h("p", { class: "muted" }, "No episode at the cross."));
    }
    if (!nearest || nearest.uid === this.near?.uid) return;
    this.near = nearest;
    await this.drawNear(nearest);
  }

  async drawNear(row) {
    const text = [h("p", {}, h("a", { href: this.addressOf(row) }, row.episode_id ?? row.uid), " ", tierMark(row.tier)), h("p", { class: "clamp" }, (row.tasks ?? "").replaceAll("\n", "; ") || "–"), h("p", { class: "muted" }, [row.source, row.embodiment].filter(Boolean).join(" · "))];
    replace(this.parts.near, text);
    const { videos } = await get(episodePath(row.uid)).catch(() => ({ videos: [] }));
    if (this.near !== row || !videos.length) return;
    const picture = h("img", { alt: "", error: () => picture.remove() }); // its video is missing
    picture.src = sheetAddress(row.uid, videos[0].camera);
    this.parts.near.prepend(picture);
  }

  addressOf(row) {
    return episodePath(row.uid) + query({ filter: this.state.filter, q: this.state.q });
  }
}

export async function show(main, { columns }) {
  const page = new MapPage(main, columns);
  await page.load();
  drawnInTheme(() => {
    page.canvas.draw();
    page.drawLegend();
  });
}
