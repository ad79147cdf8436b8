// Overview: how far the episodes have come, hours by tier, what was set aside and why, what is out of date.

import { get, pause, query } from "/static/api.js";
import { bar } from "/static/bars.js";
import { h, replace, table, TIERS, tierMark } from "/static/dom.js";
import { hours, share, whole } from "/static/format.js";

const STEPS = { discovered: "Discovered", committed: "Committed", measured: "Measured", tier: "With a tier", captioned: "Captioned", latents: "With latents" };
const GROUPS = { source: "Hours by source", embodiment: "Hours by embodiment", licence_class: "Hours by licence" };
const KINDS = [...TIERS, "none"];

function total(group) {
  return Object.values(group.hours).reduce((sum, each) => sum + each, 0);
}

function figures(corpus, funnel, outcomes) {
  const aside = outcomes.filter((row) => row.state !== "committed").reduce((sum, row) => sum + row.episodes, 0);
  const committed = funnel.find((each) => each.step === "committed");
  const shown = [
    [whole(committed.episodes), "episodes"],
    [hours(committed.hours), "of recordings"],
    [whole(aside), aside === 1 ? "episode set aside" : "episodes set aside"],
    [corpus.policy || "none", "quality policy"],
  ];
  return h("ul", { class: "figures" }, shown.map(([value, name]) => h("li", {}, h("b", {}, value), h("span", {}, name))));
}

function funnelTable(funnel) {
  const most = Math.max(...funnel.map((each) => each.episodes), 1);
  return h(
    "section",
    { class: "panel" },
    h("h2", {}, "From discovery to manifests"),
    table(
      "Episodes and hours of each step",
      [
        { name: "Step", cell: ({ step }) => STEPS[step] ?? step.replace(/^manifest /, "Manifest ") },
        { name: "Episodes", number: true, cell: (row) => whole(row.episodes) },
        { name: "Share", number: true, cell: (row) => share(row.episodes, most) },
        { name: "", cell: (row) => bar([["step", row.episodes]], most) },
        { name: "Hours", number: true, cell: (row) => hours(row.hours) },
      ],
      funnel,
      { hidesCaption: true },
    ),
  );
}

function groupTable(column, groups) {
  const most = Math.max(...groups.map(total), Number.MIN_VALUE);
  const link = ({ value }) => h("a", { href: `/episodes${query({ filter: value === null ? `${column}:null:true` : `${column}:eq:${value}` })}` }, value ?? "unknown");
  const high = (group) => share(group.hours.high, total(group));
  return h(
    "section",
    { class: "panel" },
    h("h2", {}, GROUPS[column]),
    table(
      `${GROUPS[column]} and tier`,
      [
        { name: "Value", cell: link },
        { name: "By tier", cell: (group) => bar(KINDS.map((kind) => [kind, group.hours[kind]]), most) },
        { name: "Hours", number: true, cell: (group) => hours(total(group)) },
        { name: "High", number: true, cell: high },
        { name: "Episodes", number: true, cell: (group) => whole(group.episodes) },
      ],
      groups,
      { hidesCaption: true },
    ),
  );
}

function tierLegend(groups) {
  const sums = KINDS.map((kind) => [kind, groups.reduce((sum, group) => sum + group.hours[kind], 0)]).filter(([, value]) => value > 0);
  const all = sums.reduce((sum, [, value]) => sum + value, 0);
  return h(
    "section",
    { class: "panel wide" },
    h("h2", {}, "Hours by tier"),
    h("div", { class: "tall" }, bar(sums, all)),
    h("ul", { class: "tier-legend" }, sums.map(([kind, value]) => h("li", {}, tierMark(kind === "none" ? null : kind), h("span", {}, hours(value)), h("span", { class: "muted" }, share(value, all))))),
  );
}

function quarantine(outcomes) {
  const rows = outcomes.filter((row) => row.state !== "committed").sort((a, b) => b.episodes - a.episodes);
  if (!rows.length) return h("section", { class: "panel" }, h("h2", {}, "Set aside"), h("p", { class: "muted" }, "Every discovered episode is committed."));
  return h(
    "section",
    { class: "panel wide" },
    h("h2", {}, "Set aside"),
    table(
      "Episodes that are not committed, by code",
      [
        { name: "Code", cell: (row) => row.code || "–" },
        { name: "State", cell: (row) => row.state },
        { name: "Source", cell: (row) => row.source },
        { name: "Episodes", number: true, cell: (row) => whole(row.episodes) },
        { name: "Example", cell: (row) => row.example },
      ],
      rows,
      { hidesCaption: true },
    ),
  );
}

function staleness({ compared, stale }) {
  const looked = h("p", { class: "muted" }, `Compared: ${compared.join(", ")}. Of duplicates, captions, manifests and exports, eicorpus plan knows.`);
  if (!stale.length) return [h("p", {}, "Nothing of this is out of date."), looked];
  return [
    table(
      "What is out of date",
      [
        { name: "What", cell: (row) => row.what },
        { name: "Count", number: true, cell: (row) => whole(row.count) },
        { name: "Next step", cell: (row) => row.remedy },
      ],
      stale,
      { hidesCaption: true },
    ),
    looked,
  ];
}

/** It reads every measurement of the corpus: the page is shown before. */
async function showStaleness(node) {
  try {
    replace(node, staleness(await get("/stale")));
  } catch (error) {
    if (error.code === "busy") {
      await pause();
      return showStaleness(node);
    }
    if (error.status === undefined) throw error;
    replace(node, h("p", { class: "failure" }, error.message));
  }
  return node.removeAttribute("aria-busy");
}

export async function show(main, { corpus }) {
  const [overview, outcomes] = await Promise.all([get("/overview", { by: Object.keys(GROUPS) }), get("/outcomes")]);
  const isEmpty = !overview.hours.source.length;
  const stale = h("div", { id: "stale", "aria-busy": "true" }, h("p", { class: "muted" }, "Comparing …"));
  replace(
    main,
    h("h1", {}, corpus.name),
    figures(corpus, overview.funnel, outcomes.rows),
    isEmpty ? h("p", { class: "empty" }, "No episode yet. `eicorpus build` and `eicorpus ingest` add them.") : null,
    h(
      "div",
      { class: "panels" },
      isEmpty ? null : tierLegend(overview.hours.source),
      funnelTable(overview.funnel),
      isEmpty ? null : Object.keys(GROUPS).map((column) => groupTable(column, overview.hours[column])),
      h("section", { class: "panel" }, h("h2", {}, "Out of date"), stale),
      quarantine(outcomes.rows),
    ),
  );
  showStaleness(stale);
}
