// Thresholds of the policy in force: a histogram of each measurement, a line to drag, and the hours that would change their tier. Nothing is stored.

import { get, query } from "/static/api.js";
import { h, replace, table, TIERS, tierMark } from "/static/dom.js";
import { hours, number, whole } from "/static/format.js";
import { saveForm } from "/static/threshold_save.js";
import { agreement, nearest } from "/static/threshold_reviews.js";
import { colour, drawnInTheme, plotly } from "/static/plots.js";

const BINS = 60;
const STEPS = 500; // of the slider
const WORDS = { above: ">", at_least: "≥", below: "<", at_most: "≤" };
const MARGIN = { l: 56, r: 16, t: 8, b: 34 };
const DELAY_MS = 200;
const KINDS = [...TIERS, null];

/** What the address says: the threshold that is looked at, and the values that differ from the policy's. */
function asked() {
  const search = new URLSearchParams(location.search);
  const values = new Map(search.getAll("threshold").map((text) => [text.slice(0, text.lastIndexOf(":")), Number(text.slice(text.lastIndexOf(":") + 1))]));
  return { at: search.get("at"), values };
}

/** The episodes by value and tier, with the threshold inside of the edges. */
async function histogramAround(measurement, threshold) {
  const column = `measurements.${measurement}`;
  const [low, high] = (await get("/histogram", { column, bins: 1 })).edges;
  const reach = Math.max(high - low, Math.abs(threshold) * 0.2, 1e-9);
  const edges = { low: Math.min(low, threshold - 0.1 * reach), high: Math.max(high, threshold + 0.1 * reach) };
  return get("/histogram", { column, by: "tier", bins: BINS, ...edges });
}

class ThresholdsPage {
  constructor(main, { policy, policy_name: base, policy_digest: digest, thresholds }, { me }) {
    const { at, values } = asked();
    this.thresholds = thresholds;
    this.values = new Map([...values].filter(([name]) => thresholds.some((each) => each.name === name)));
    this.current = thresholds.find((each) => each.name === at) ?? thresholds[0];
    this.parts = {
      list: h("ul", { class: "threshold-list" }),
      title: h("header", {}),
      plot: h("div", { class: "histogram", role: "img", "aria-label": "Histogram" }),
      line: h("div", { class: "threshold-line", "aria-hidden": "true" }),
      slider: h("input", { type: "range", id: "threshold", min: 0, max: STEPS, step: 1, input: (event) => this.change(this.valueAt(event.target.value / STEPS)) }),
      value: h("input", { type: "number", id: "threshold-value", step: "any", "aria-label": "Value of the threshold", change: (event) => Number.isFinite(event.target.valueAsNumber) && this.change(event.target.valueAsNumber) }),
      reset: h("button", { type: "button", click: () => this.reset() }, "Policy's value"),
      note: h("p", { class: "muted" }),
      effect: h("div", { role: "status" }),
    };
    this.save = me.role === "admin" ? saveForm({ base, base_digest: digest }, () => this.values) : null;
    this.nearest = nearest(() => this.current.measurement);
    const { list, title, plot, line, slider, value, reset, note, effect } = this.parts;
    replace(
      main,
      h("h1", {}, "Thresholds"),
      h("p", { class: "muted" }, `Policy ${policy}. Tiers are computed again with the values of this page; nothing is stored before they are saved as a new policy.`),
      h("div", { class: "browse" }, h("nav", { "aria-label": "Thresholds of the policy" }, list), h("div", { class: "threshold" }, title, h("div", { class: "histogram-box" }, plot, line), h("div", { class: "transport" }, slider, value, reset), note, effect, this.save, this.nearest.node, agreement())),
    );
    line.addEventListener("pointerdown", (event) => this.drag(event));
    new ResizeObserver(() => this.placeLine()).observe(plot);
    document.addEventListener("connected", () => this.load());
  }

  load() {
    return Promise.all([this.open(this.current), this.ask()]);
  }

  get value() {
    return this.values.get(this.current.name) ?? this.current.value;
  }

  remember() {
    const threshold = [...this.values].map(([name, value]) => `${name}:${value}`);
    history.replaceState(history.state, "", query({ at: this.current.name, threshold }) || location.pathname);
  }

  drawList() {
    const entry = (each) => {
      const isChanged = this.values.has(each.name);
      const text = `${WORDS[each.word]} ${number(this.values.get(each.name) ?? each.value)}`;
      return h("li", {}, h("button", { type: "button", "data-focus": each.name, class: isChanged ? "changed" : null, "aria-current": each === this.current ? "true" : null, click: () => this.open(each) }, h("b", {}, each.measurement), h("span", { class: "muted" }, each.rule), h("span", { class: "bound" }, text)));
    };
    replace(this.parts.list, this.thresholds.map(entry));
  }

  async open(threshold) {
    this.current = threshold;
    this.nearest.clear();
    this.remember();
    this.drawList();
    const { measurement, word, rule, tier, text, origin } = threshold;
    replace(this.parts.title, h("h2", {}, measurement), h("p", {}, tier ? [tierMark(tier), ` if it is ${word.replace("_", " ")} the threshold and the rest of the rule holds. Rule `] : `A condition of several rules: it is ${word.replace("_", " ")} the threshold. Condition `, h("code", {}, rule), text ? `: ${text}.` : "."));
    this.parts.note.textContent = `The policy has ${number(threshold.value)}${origin ? `: ${origin}` : ""}`;
    try {
      const histogram = await histogramAround(measurement, threshold.value);
      if (this.current !== threshold) return;
      this.histogram = histogram;
    } catch (error) {
      if (error.status === undefined) throw error;
      this.parts.note.textContent = error.message;
      return;
    }
    await this.drawHistogram();
    this.showValue();
  }

  async drawHistogram() {
    const { edges, series, unit, column, unknown, below, above } = this.histogram;
    this.range = [edges[0], edges.at(-1)];
    const width = edges[1] - edges[0];
    const traces = KINDS.map((tier) => ({ tier, own: series.find((each) => each.group === tier) }))
      .filter(({ own }) => own)
      .map(({ tier, own }) => ({ type: "bar", name: tier ?? "no tier", x: own.episodes.map((_, k) => edges[k] + width / 2), y: own.episodes, width, marker: { color: colour(`--${tier ?? "none"}`), line: { width: 0 } } }));
    const layout = {
      height: 300,
      margin: MARGIN,
      barmode: "stack",
      bargap: 0,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: "system-ui, sans-serif", size: 12, color: colour("--muted") },
      showlegend: false,
      xaxis: { range: this.range, gridcolor: colour("--line"), zeroline: false, title: { text: unit, standoff: 4 } },
      yaxis: { gridcolor: colour("--line"), zeroline: false, title: { text: "episodes" }, rangemode: "tozero" },
    };
    this.parts.plot.setAttribute("aria-label", `Histogram of ${column}: episodes by value, coloured by tier; ${whole(unknown)} unknown, ${whole(below)} below and ${whole(above)} above`);
    await (await plotly()).react(this.parts.plot, traces, layout, { staticPlot: true, responsive: true });
  }

  valueAt(share) {
    const [low, high] = this.range;
    return Number((low + share * (high - low)).toPrecision(4));
  }

  share() {
    const [low, high] = this.range;
    return Math.min(Math.max((this.value - low) / (high - low), 0), 1);
  }

  placeLine() {
    if (!this.range) return;
    const width = this.parts.plot.clientWidth - MARGIN.l - MARGIN.r;
    this.parts.line.style.transform = `translateX(${MARGIN.l + this.share() * width}px)`;
  }

  showValue() {
    const { slider, value } = this.parts;
    slider.value = Math.round(this.share() * STEPS);
    slider.setAttribute("aria-label", `Threshold of ${this.current.measurement}`);
    slider.setAttribute("aria-valuetext", number(this.value));
    if (document.activeElement !== value) value.value = this.value;
    this.save?.toggleAttribute("hidden", !this.values.size);
    this.parts.reset.disabled = !this.values.has(this.current.name);
    this.placeLine();
  }

  drag(event) {
    const { line, plot } = this.parts;
    event.preventDefault();
    line.setPointerCapture(event.pointerId);
    const move = ({ clientX }) => {
      const width = plot.clientWidth - MARGIN.l - MARGIN.r;
      const share = (clientX - plot.getBoundingClientRect().left - MARGIN.l) / width;
      this.change(this.valueAt(Math.min(Math.max(share, 0), 1)));
    };
    line.addEventListener("pointermove", move);
    line.addEventListener("lostpointercapture", () => line.removeEventListener("pointermove", move), { once: true });
  }

  change(value) {
    this.values.set(this.current.name, value);
    this.changed();
  }

  reset() {
    this.values.delete(this.current.name);
    this.changed();
  }

  changed() {
    this.showValue();
    this.drawList();
    this.remember();
    this.parts.effect.setAttribute("aria-busy", "true"); // what stands there is of another value
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.ask(), DELAY_MS);
  }

  async ask() {
    this.request?.abort();
    this.request = new AbortController();
    this.parts.effect.setAttribute("aria-busy", "true");
    try {
      const threshold = [...this.values].map(([name, value]) => `${name}:${value}`);
      this.drawEffect((await get("/what-if", { threshold }, { signal: this.request.signal })).counts);
    } catch (error) {
      if (error.name === "AbortError") return;
      if (error.status === undefined) throw error;
      replace(this.parts.effect, h("p", { class: "failure" }, error.message));
    }
    this.parts.effect.removeAttribute("aria-busy");
    document.documentElement.dataset.drawn = String(Number(document.documentElement.dataset.drawn ?? 0) + 1);
  }

  drawEffect(counts) {
    const sums = TIERS.map((tier) => {
      const own = counts.filter((each) => each.tier === tier);
      const sum = (name) => own.reduce((all, each) => all + each[name], 0);
      return { tier, source: "all sources", hours: sum("hours"), hours_before: sum("hours_before"), segments: sum("segments"), segments_before: sum("segments_before") };
    });
    const changes = counts.filter((each) => each.segments !== each.segments_before || Math.abs(each.hours - each.hours_before) > 1e-9);
    const difference = (row) => signed(row.hours - row.hours_before);
    const columns = [
      { name: "Tier", cell: (row) => tierMark(row.tier) },
      { name: "Hours in force", number: true, cell: (row) => hours(row.hours_before) },
      { name: "Hours with your values", number: true, cell: (row) => hours(row.hours) },
      { name: "Change", number: true, cell: difference },
      { name: "Segments in force", number: true, cell: (row) => whole(row.segments_before) },
      { name: "Segments with your values", number: true, cell: (row) => whole(row.segments) },
    ];
    const bySource = [{ name: "Source", cell: (row) => row.source }, ...columns];
    replace(this.parts.effect, table("Tiers with these thresholds", columns, sums), changes.length ? table("What changes, by source", bySource, changes) : h("p", { class: "muted", id: "no-change" }, "No segment changes its tier."));
  }
}

function signed(value) {
  if (Math.abs(value) < 1e-9) return "–";
  return `${value > 0 ? "+" : "−"}${hours(Math.abs(value))}`;
}

export async function show(main, context) {
  const answer = await get("/thresholds");
  if (!answer.thresholds.length) {
    replace(main, h("h1", {}, "Thresholds"), h("p", { class: "empty" }, "No measurement of this corpus is compared by the policy. Run eicorpus measure."));
    return;
  }
  const page = new ThresholdsPage(main, answer, context);
  await page.load();
  drawnInTheme(() => page.histogram && page.drawHistogram());
}
