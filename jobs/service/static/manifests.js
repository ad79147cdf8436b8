// Manifests: every version with its hours, one in detail with mixture and normalisation, and what differs from another.

import { bar } from "/static/bars.js";
import { episodePath, get, query } from "/static/api.js";
import { h, replace, table, TIERS } from "/static/dom.js";
import { hours, number, share, whole } from "/static/format.js";
import { bind } from "/static/keys.js";

const GROUPS = { source: "Hours by source", embodiment: "Hours by embodiment", tier: "Hours by tier", split: "Hours by split", licence_class: "Hours by licence", task: "Hours by task" };
const FILTERED = ["source", "embodiment", "tier", "licence_class"]; // columns that Episodes can filter by
const STATISTICS = ["mean", "std", "q01", "q99", "min", "max"];
const SHOWN_GROUPS = 50;

/** What the address says: a manifest, a version of it, and the one it is compared with as `NAME` or `NAME/VERSION`. */
function asked() {
  const search = new URLSearchParams(location.search);
  return { name: search.get("name"), version: search.get("version"), with: search.get("with") };
}

function fullName({ name, version }) {
  return version ? `${name}/${version}` : name;
}

function split(text) {
  const [name, version = null] = text.split("/");
  return { name, version };
}

/** A version is a digest: its beginning is enough to tell it from the others. */
function shortVersion(version) {
  return version ? version.slice(0, 12) : "–";
}

function label({ name, version }) {
  return version ? `${name} ${shortVersion(version)}` : name;
}

function section(title, ...content) {
  return h("section", { class: "panel" }, h("h2", {}, title), content);
}

class ManifestsPage {
  constructor(main, { manifests, damaged }) {
    Object.assign(this, { manifests, damaged });
    this.current = -1;
    this.parts = { list: h("div", { class: "manifest-list" }), detail: h("div", { class: "manifest", role: "region", "aria-label": "Manifest" }), news: h("p", { role: "status", class: "visually-hidden" }) };
    const { list, detail, news } = this.parts;
    const problems = Object.entries(damaged).map(([name, message]) => h("p", { class: "failure" }, `${name}: ${message}`));
    replace(main, h("h1", {}, "Manifests"), news, problems, list, detail);
    addEventListener("popstate", () => this.load());
    document.addEventListener("connected", () => this.load());
    bind("j", "next manifest", () => this.select(this.current + 1));
    bind("k", "previous manifest", () => this.select(this.current - 1));
  }

  go(change) {
    history.pushState(null, "", query({ ...asked(), ...change }) || location.pathname);
    return this.load();
  }

  link(each, change, text) {
    const open = (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      this.go(change).then(() => this.parts.detail.scrollIntoView({ block: "nearest" }));
    };
    const isCurrent = fullName(each) === fullName(asked());
    return h("a", { href: query({ ...asked(), ...change }), "data-focus": fullName(each), "aria-current": isCurrent ? "true" : null, click: open }, text);
  }

  drawList() {
    if (!this.manifests.length) {
      replace(this.parts.list, h("p", { class: "empty" }, "No manifest yet. The cart, a job of the kind manifest and `eicorpus manifest build` make one."));
      return;
    }
    const most = Math.max(...this.manifests.map((each) => each.hours.all.all), Number.MIN_VALUE);
    replace(
      this.parts.list,
      table(
        "Manifests and their versions",
        [
          { name: "Name", cell: (each) => this.link(each, { name: each.name, version: each.version, with: null }, each.name) },
          { name: "Version", cell: ({ version }) => h("code", { title: version ?? "" }, shortVersion(version)) },
          { name: "Hours", number: true, cell: (each) => hours(each.hours.all.all) },
          { name: "", cell: (each) => bar([["step", each.hours.all.all]], most) },
          { name: "Segments", number: true, cell: (each) => whole(each.num_rows) },
          { name: "Episodes", number: true, cell: (each) => whole(each.num_episodes) },
          { name: "Policy", cell: (each) => each.policy.name },
          { name: "Snapshot", number: true, cell: (each) => whole(each.snapshot) },
        ],
        this.manifests,
        { hidesCaption: true },
      ),
    );
  }

  select(place) {
    const links = [...this.parts.list.querySelectorAll("tbody a")];
    if (!links.length) return;
    this.current = Math.min(Math.max(place, 0), links.length - 1);
    links[this.current].focus();
  }

  async load() {
    const { name, version, with: other } = asked();
    this.drawList();
    if (!name) replace(this.parts.detail);
    else {
      try {
        const { manifest } = await get(`/manifests/${encodeURIComponent(name)}`, { version });
        this.drawDetail(manifest, { name, version });
        if (other) await this.drawDifference(split(other), { name, version });
        this.parts.news.textContent = `Manifest ${label({ name, version })}`;
      } catch (error) {
        if (error.status === undefined) throw error;
        replace(this.parts.detail, h("p", { class: "failure", role: "alert" }, error.message, error.remedy ? `; ${error.remedy}` : ""));
      }
    }
    document.documentElement.dataset.drawn = String(Number(document.documentElement.dataset.drawn ?? 0) + 1);
  }

  drawDetail(facts, own) {
    this.difference = h("div", { class: "difference" });
    const columns = Object.keys(GROUPS).filter((by) => facts.hours[by]);
    replace(
      this.parts.detail,
      h("h2", { class: "manifest-name" }, label(own)),
      h("p", { class: "facts" }, [`${whole(facts.num_rows)} segments of ${whole(facts.num_episodes)} episodes`, hours(facts.hours.all.all), `snapshot ${facts.snapshot}`, `policy ${facts.policy.name}`, `split by ${facts.split.by}`, `text ${facts.text_policy}`].map((text) => h("span", {}, text))),
      facts.where ? h("p", { class: "wrap" }, "where ", h("code", {}, facts.where)) : null,
      this.compareForm(own),
      this.difference,
      h("div", { class: "panels" }, columns.map((by) => section(GROUPS[by], hoursTable(by, facts.hours[by]))), section("Mixture", mixture(facts.mixture)), h("section", { class: "panel wide" }, h("h2", {}, "Normalisation"), normalisation(facts.statistics))),
    );
  }

  compareForm(own) {
    const others = this.manifests.filter((each) => fullName(each) !== fullName(own));
    if (!others.length) return null;
    const current = asked().with;
    const choice = h("select", { id: "compare-with", change: (event) => this.go({ with: event.target.value || null }) }, h("option", { value: "" }, "nothing"), others.map((each) => h("option", { value: fullName(each), selected: fullName(each) === current }, label(each))));
    return h("p", { class: "row" }, h("label", { for: "compare-with" }, "Compare with"), choice);
  }

  async drawDifference(before, after) {
    const path = `/manifests/${encodeURIComponent(before.name)}/diff/${encodeURIComponent(after.name)}`;
    const difference = await get(path, { before_version: before.version, after_version: after.version });
    const { same, summary, rows, num_rows: count, built_from: from } = difference;
    const title = `From ${label(before)} to ${label(after)}`;
    replace(
      this.difference,
      section(
        title,
        h("p", {}, count ? `${whole(same)} segments are the same.` : `No difference: ${whole(same)} segments are the same.`),
        Object.keys(from).length ? h("dl", { class: "facts-list" }, Object.entries(from).map(([name, [a, b]]) => [h("dt", {}, name.replaceAll("_", " ")), h("dd", {}, `${a || "none"} → ${b || "none"}`)])) : null,
        summary.length ? differenceSummary(summary) : null,
        rows.length ? differenceRows(rows, count) : null,
      ),
    );
  }
}

function hoursTable(by, values) {
  const rows = Object.entries(values).sort(([, a], [, b]) => b - a);
  const most = Math.max(...rows.map(([, value]) => value), Number.MIN_VALUE);
  const all = rows.reduce((sum, [, value]) => sum + value, 0);
  const colourOf = (key) => (by === "tier" && TIERS.includes(key) ? key : "step");
  const name = (key) => (FILTERED.includes(by) ? h("a", { href: `/episodes${query({ filter: `${by}:eq:${key}` })}` }, key) : key);
  return table(
    GROUPS[by],
    [
      { name: "Value", cell: ([key]) => name(key) },
      { name: "", cell: ([key, value]) => bar([[colourOf(key), value]], most) },
      { name: "Hours", number: true, cell: ([, value]) => hours(value) },
      // a segment may supervise several tasks: shares of them do not add up
      by === "task" ? null : { name: "Share", number: true, cell: ([, value]) => share(value, all) },
    ].filter(Boolean),
    rows,
    { hidesCaption: true },
  );
}

function mixture({ draw_hours: drawn, groups, text }) {
  const rows = [...groups].sort((a, b) => b.share - a.share);
  const most = Math.max(...rows.map((row) => row.share), Number.MIN_VALUE);
  return [
    h("p", {}, `${hours(drawn)} are drawn from train.`, rows.length > SHOWN_GROUPS ? ` The ${SHOWN_GROUPS} greatest of ${whole(rows.length)} groups:` : ""),
    table(
      "Mixture: share of draws by group",
      [
        { name: "Group", cell: (row) => Object.values(row.group).join(", ") || "all" },
        { name: "", cell: (row) => bar([["step", row.share]], most) },
        { name: "Share", number: true, cell: (row) => share(row.share, 1) },
        { name: "Hours", number: true, cell: (row) => hours(row.hours) },
        { name: "Epochs", number: true, cell: (row) => number(row.epochs) },
        { name: "Limited by", cell: (row) => row.rule || "–" },
      ],
      rows.slice(0, SHOWN_GROUPS),
      { hidesCaption: true },
    ),
    text ? h("details", {}, h("summary", {}, "mixture.yaml"), h("pre", { class: "log", tabindex: 0, role: "region", "aria-label": "Text of the mixture" }, text)) : null,
  ];
}

function normalisation(statistics) {
  if (!statistics) return h("p", { class: "muted" }, "None: no segment of train supervises actions.");
  const bodies = Object.entries(statistics.embodiments);
  return [
    h("p", {}, `Of ${statistics.representation}, by embodiment.`),
    bodies.map(([body, own], place) => h("details", { open: place === 0 }, h("summary", {}, `${body}: ${whole(own.segments)} segments`), statisticsTable(body, own))),
  ];
}

function statisticsTable(body, own) {
  // 63 numbers of a hand's points say nothing one by one
  const rows = own.names.map((name, place) => ({ name, place })).filter(({ name }) => !name.includes("hand_"));
  const left = own.names.length - rows.length;
  const columns = STATISTICS.map((field) => ({ name: field, number: true, cell: ({ place }) => number(own[field][place]) }));
  return [
    table(`Normalisation of ${body}`, [{ name: "Element", cell: (row) => row.name }, { name: "Timesteps", number: true, cell: ({ place }) => whole(own.count[place]) }, ...columns], rows, { hidesCaption: true }),
    left ? h("p", { class: "muted" }, `${whole(left)} elements of hand points are left out.`) : null,
  ];
}

function differenceSummary(summary) {
  return table(
    "Changes by reason",
    [
      { name: "Change", cell: (row) => row.change },
      { name: "Why", cell: (row) => row.why },
      { name: "Segments", number: true, cell: (row) => whole(row.segments) },
      { name: "Timesteps", number: true, cell: (row) => whole(row.timesteps) },
    ],
    summary,
  );
}

/** A weight comes as the text of a number. */
function valueOf(text) {
  if (text === null) return "–";
  return /^\d+\.\d+$/.test(text) ? number(Number(text)) : text;
}

function differenceRows(rows, count) {
  return table(
    rows.length < count ? `The first ${whole(rows.length)} of ${whole(count)} changes` : `${whole(count)} changes`,
    [
      { name: "Segment", cell: (row) => h("a", { href: episodePath(row.uid) + query({ t: row.start }) }, `${row.uid.slice(0, 12)} ${row.start}–${row.end}`) },
      { name: "Change", cell: (row) => row.change },
      { name: "Why", cell: (row) => row.why },
      { name: "Before", cell: (row) => valueOf(row.before) },
      { name: "After", cell: (row) => valueOf(row.after) },
    ],
    rows,
  );
}

export async function show(main) {
  const page = new ManifestsPage(main, await get("/manifests"));
  await page.load();
}
