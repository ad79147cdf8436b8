// What is known of stretches of an episode, as lanes over one axis of time: tiers, tasks, captions, faults. Each stretch has its text.

import { h } from "/static/dom.js";
import { number } from "/static/format.js";
import { reasonGroups, reasonText } from "/static/reasons.js";

// Stretches that a picture or a number cannot be believed in; other measured stretches are events.
const FAULTS = ["frozen_video", "stuck_s", "repeat_s", "jump_z", "black_video", "unusable"];

export function isFault(name) {
  return FAULTS.some((fault) => name.startsWith(fault));
}

function blocks(stretches, length) {
  return stretches.map(({ start, end, text, kind, title }) => {
    const block = h("span", { class: `block ${kind}`, title: title ?? text, "data-start": start, "data-end": end }, text);
    block.style.left = `${(100 * start) / length}%`;
    block.style.width = `${(100 * (end - start)) / length}%`;
    return block;
  });
}

/** Names of what is not valid, joined where the same stretch lacks several. */
function invalidStretches(invalid) {
  const joined = new Map();
  for (const { feature, part, start, end } of invalid) {
    const key = `${start} ${end}`;
    const names = joined.get(key)?.names ?? [];
    joined.set(key, { start, end, names: [...names, feature === "action" ? `action ${part}` : part] });
  }
  return [...joined.values()].map(({ start, end, names }) => ({ start, end, kind: "fault", text: "not valid", title: `not valid: ${names.join(", ")}` }));
}

/** Gaps between the valid runs of the raw data. */
function gaps(spans, length) {
  const runs = spans.filter((span) => span.kind === "valid_run").sort((a, b) => a.start - b.start);
  if (!runs.length) return [];
  const edges = [0, ...runs.flatMap((run) => [run.start, run.end]), length];
  const out = [];
  for (let k = 0; k < edges.length; k += 2) if (edges[k + 1] > edges[k]) out.push({ start: edges[k], end: edges[k + 1], kind: "fault", text: "gap in the raw data" });
  return out;
}

export function lanesOf(episode, invalid) {
  const { length } = episode.episode;
  const tiers = episode.segments.map((segment) => ({
    ...segment,
    kind: `tier-block tier-${segment.tier}`,
    text: [segment.tier, reasonGroups(segment.reasons)[0]?.text].filter(Boolean).join(": "),
    title: [segment.tier, reasonText(segment.reasons)].join("\n"),
  }));
  const subtasks = episode.spans.filter((span) => span.kind === "subtask" || (span.kind === "task" && !episode.spans.some((other) => other.kind === "subtask")));
  const measured = episode.measurements.filter((each) => each.start !== null && each.end !== null);
  const faults = [
    ...gaps(episode.spans, length),
    ...measured.filter((each) => isFault(each.name)).map((each) => ({ ...each, kind: "fault", text: `${each.name} ${number(each.value)} ${each.unit ?? ""}` })),
    ...invalidStretches(invalid),
  ];
  const lanes = {
    Tier: tiers,
    Task: subtasks.map((span) => ({ ...span, kind: "plain-block" })),
    Caption: episode.captions.filter((each) => each.outcome === "ok").map((each) => ({ ...each, kind: "plain-block" })),
    Events: measured.filter((each) => !isFault(each.name)).map((each) => ({ ...each, kind: "event", text: `${each.name} ${number(each.value)} ${each.unit ?? ""}` })),
    Faults: faults,
  };
  return Object.entries(lanes).filter(([, stretches]) => stretches.length);
}

/** Stretches of a lane that overlap are put below each other. */
function rowsOf(stretches) {
  const rows = [];
  for (const each of [...stretches].sort((a, b) => a.start - b.start || b.end - a.end)) {
    const row = rows.find((other) => other.at(-1).end <= each.start);
    if (row) row.push(each);
    else rows.push([each]);
  }
  return rows;
}

export function timeline(episode, invalid) {
  const { length } = episode.episode;
  return lanesOf(episode, invalid).map(([name, stretches]) =>
    h("div", { class: "lane" }, h("span", { class: "lane-name" }, name), h("div", { class: "lane-rows" }, rowsOf(stretches).slice(0, 6).map((row) => h("div", { class: "lane-row" }, blocks(row, length))))),
  );
}
