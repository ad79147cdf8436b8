// What the catalog knows of an episode, as tables.

import { h, table, tierMark } from "/static/dom.js";
import { columnName, number, whole } from "/static/format.js";
import { reasonList } from "/static/reasons.js";
import { markedTexts } from "/static/words.js";

function panel(title, ...content) {
  return h("section", { class: "panel" }, h("h2", {}, title), content);
}

export function spanText(row) {
  return row.start === null || row.start === undefined ? "whole episode" : `${whole(row.start)}–${whole(row.end)}`;
}

export function segmentTable({ segments }) {
  if (!segments.length) return panel("Tiers", h("p", { class: "muted" }, "No policy has assigned a tier. Run eicorpus tier."));
  return panel(
    "Tiers",
    table(
      "Segments with their tier and reasons",
      [
        { name: "Timesteps", cell: spanText },
        { name: "Tier", cell: (row) => tierMark(row.tier) },
        { name: "Reasons", cell: (row) => reasonList(row.reasons) },
      ],
      segments,
      { hidesCaption: true },
    ),
  );
}

export function captionTable({ captions }) {
  if (!captions.length) return panel("Captions", h("p", { class: "muted" }, "No captions. Run eicorpus caption."));
  const rows = captions.map((caption) => {
    const [source, text] = markedTexts(caption.source_text, caption.text);
    return { ...caption, marked: { source, text } };
  });
  return panel(
    "Captions",
    table(
      "Captions beside the text of the source",
      [
        { name: "Timesteps", cell: spanText },
        { name: "Caption", cell: (row) => row.marked.text || `(${row.outcome})` },
        { name: "Source text", cell: (row) => row.marked.source || "–" },
        { name: "Made by", cell: (row) => [row.backend, row.model].filter(Boolean).join(" ") },
      ],
      rows,
      { hidesCaption: true },
    ),
  );
}

/** What reviewers put in the place of captions, beside the caption that is there. */
export function correctionTable({ captions }, reviews) {
  const fixes = reviews.filter((each) => each.kind === "caption_fix" && each.is_in_force);
  if (!fixes.length) return null;
  const overlap = (a, b) => (a.start === null || b.start === null ? Infinity : Math.min(a.end, b.end) - Math.max(a.start, b.start));
  const rows = fixes.map((fix) => {
    const [caption] = captions.filter((each) => each.outcome === "ok" && overlap(each, fix) > 0).sort((a, b) => overlap(b, fix) - overlap(a, fix));
    const [before, after] = markedTexts(caption?.text ?? "", fix.value);
    return { ...fix, before, after };
  });
  return table(
    "Corrections by reviewers",
    [
      { name: "Timesteps", cell: spanText },
      { name: "Correction", cell: (row) => row.after },
      { name: "Caption", cell: (row) => row.before || "–" },
      { name: "By", cell: (row) => [row.author, row.is_pending ? ", pending" : ""] },
    ],
    rows,
  );
}

export function measurementTable({ measurements }) {
  const whole = measurements.filter((each) => each.start === null);
  if (!whole.length) return panel("Measurements", h("p", { class: "muted" }, "Nothing is measured. Run eicorpus measure."));
  const list = table(
    "Measurements of the whole episode",
    [
      { name: "Name", cell: (row) => columnName(row.name) },
      { name: "Value", number: true, cell: (row) => number(row.value) },
      { name: "Unit", cell: (row) => row.unit ?? "" },
    ],
    whole,
    { hidesCaption: true },
  );
  return h("details", { class: "panel" }, h("summary", {}, h("h2", {}, `Measurements (${whole.length})`)), list);
}

function facts(entries) {
  const shown = entries.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return h("dl", { class: "facts-list" }, shown.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, String(value))]));
}

export function provenance({ uid, provenance: own, artifacts, duplicate, copies, latents }) {
  const raw = table(
    "Raw files",
    [
      { name: "Raw file", cell: (row) => row.path },
      { name: "Bytes", number: true, cell: (row) => whole(row.num_bytes) },
      { name: "Digest", cell: (row) => h("code", {}, row.digest) },
    ],
    own.raw_files ?? [],
    { hidesCaption: true },
  );
  const stored = table(
    "Stored files",
    [
      { name: "Stored file", cell: (row) => row.path },
      { name: "Bytes", number: true, cell: (row) => whole(row.num_bytes) },
      { name: "sha256", cell: (row) => h("code", {}, row.sha256) },
    ],
    artifacts,
    { hidesCaption: true },
  );
  const stated = table(
    "Facts with their certainty",
    [
      { name: "Fact", cell: (row) => row.name },
      { name: "Value", cell: (row) => row.value },
      { name: "Certainty", cell: (row) => row.certainty },
      { name: "Evidence", cell: (row) => row.source },
    ],
    own.facts ?? [],
    { hidesCaption: true },
  );
  return h(
    "details",
    { class: "panel" },
    h("summary", {}, h("h2", {}, "Provenance")),
    facts([
      ["uid", uid],
      ["dataset", own.dataset],
      ["licence", own.licence],
      ["content sha256", own.content_sha256],
      ["adapter version", own.adapter_version],
      ["recipe", own.recipe_digest],
      ["run", own.run_id],
      ["command", own.run?.command],
      ["executor", own.run?.executor],
      ["encoders", [...new Set(latents.map((each) => each.encoder_id))].join(", ")],
      ["duplicate", duplicate ? `${duplicate.kind ?? "copy"} of ${duplicate.kept_uid}` : null],
      ["copies", copies.length || null],
    ]),
    raw,
    stored,
    stated,
  );
}
