"""The report as one HTML file: no script, nothing from outside, every text of the data escaped, bounded in size."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingest.catalog import Catalog
from ingest.curation.policy.policy import Policy
from ingest.report import questions
from ingest.report.markup import Markup, listed, number, section, shown, table, tag
from ingest.report.pictures import Sheets
from ingest.report.questions import GROUPS, MAX_SAMPLE, Histogram, Row, rows
from ingest.report.svg import Line, bars, histogram
from ingest.report.thresholds import Threshold, bad_ends, thresholds

MAX_BARS = 25
MAX_HISTOGRAMS = 60
SHEETS = 8  # of the worst, and of the best
CAPTIONS = 12
LEFT: dict[str, tuple[str, ...]] = {  # what is left without which tiers
    "committed": (),
    "may teach anything": ("excluded",),
    "have actions": ("excluded", "actionless"),
    "may teach a policy": ("excluded", "actionless", "low"),
}
SEED = "0"  # of the caption sample
STYLE = """
:root{--ink:#1b1f24;--soft:#5d6772;--line:#d9dee4;--bar:#4a78a8;--mark:#b3402e;--paper:#fff}
@media (prefers-color-scheme:dark){:root{--ink:#e6e9ed;--soft:#9aa5b1;--line:#3a424b;--bar:#6f9fd0;--mark:#e8836f;--paper:#16191d}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:1100px;margin:2em auto;padding:0 1em}
h1{font-size:1.6em;margin-bottom:0}h2{font-size:1.2em;margin-top:2.4em;border-bottom:1px solid var(--line)}h3{font-size:1em;margin:1.4em 0 .3em}
table{border-collapse:collapse;margin:.6em 0}th,td{padding:.15em .8em .15em 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--line)}
th{color:var(--soft);font-weight:500}td.number,th.number{text-align:right;font-variant-numeric:tabular-nums}td{overflow-wrap:anywhere}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.1em 1.2em}dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
.note,.none{color:var(--soft);font-size:.9em}svg{max-width:100%;height:auto}svg text{font-size:11px;fill:var(--ink)}svg text.said{fill:var(--soft)}
.bar{fill:var(--bar)}.axis{stroke:var(--line)}line.threshold{stroke:var(--mark);stroke-width:1.5}svg text.threshold{fill:var(--mark)}
.many{display:grid;grid-template-columns:repeat(auto-fill,minmax(320px,1fr));gap:1.2em}figure{margin:0}figcaption{font-size:.85em}
img{max-width:100%;display:block;margin:.3em 0}article{margin:1.2em 0}
"""
# A second lock behind the escaping: even a tag that got through could load and run nothing.
_STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
GUARD = f"default-src 'none'; img-src data:; style-src 'sha256-{_STYLE_HASH}'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the page is made from. `made_at` is said, and not read from a clock here."""

    corpus: Path
    corpus_uid: str
    policy: Policy
    made_at: str


def report(catalog: Catalog, asked: Asked) -> str:
    """The whole page. An empty corpus gives a page that says so in every section.

    Raises:
        ConfigError: the catalog cannot be read.
    """
    sheets = Sheets(corpus=asked.corpus)
    lines = thresholds(asked.policy)
    every = questions.sampled_every(rows(catalog, "SELECT count(*) AS n FROM episodes")[0]["n"])
    found = questions.ranges(catalog, every)
    drawn = _chosen(found, lines)
    ends = bad_ends(lines)
    worst, best = questions.extremes(catalog, found, ends, SHEETS, every)
    parts = [
        _head(catalog, asked),
        _funnel(catalog),
        _hours(catalog),
        _tiers(catalog, asked.policy),
        _measurements(questions.histograms(catalog, drawn, every), lines, found, every),
        _segments("worst", "Worst segments, one for each reason", worst, sheets),
        _segments("best", "Best segments", best, sheets),
        _captions(catalog, sheets),
        _aside(catalog),
        _barred(catalog),
    ]
    if sheets.left_out:
        parts.append(tag("p", f"{sheets.left_out} pictures were left out: the page is full."))
    return _document(parts, asked)


def _document(parts: Sequence[Markup], asked: Asked) -> str:
    head = (
        '<meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{GUARD}">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>corpus {shown(asked.corpus_uid)}</title><style>{STYLE}</style>"
    )
    return (
        f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'
    )


def _head(catalog: Catalog, asked: Asked) -> Markup:
    total = rows(
        catalog,
        "SELECT count(*) AS episodes, sum(hours) AS hours, sum(length) AS timesteps, count(DISTINCT dataset_path) AS sets FROM episodes",
    )[0]
    forgotten = rows(catalog, "SELECT count(*) AS n FROM tombstones")[0]["n"]
    copies = rows(catalog, "SELECT count(*) AS n FROM redundant")[0]["n"]
    facts = {
        "corpus": asked.corpus_uid or "(no name)",
        "snapshot": catalog.snapshot,
        "made": asked.made_at,
        "policy": f"{asked.policy.title} ({asked.policy.digest})",
        "episodes": total["episodes"],
        "hours": total["hours"] or 0.0,
        "timesteps": int(total["timesteps"] or 0),
        "data sets": total["sets"],
        "copies that another episode makes redundant": copies,
        "forgotten": forgotten,
    }
    return Markup(tag("h1", "What is in this corpus") + listed(facts))


def _funnel(catalog: Catalog) -> Markup:
    ends = rows(catalog, questions.FUNNEL)[0]
    tiers = {row["name"]: row for row in rows(catalog, questions.TIERS)}
    counts = [
        (name, ends[name])
        for name in ("discovered", "committed", "filtered", "quarantined", "failed")
    ]
    drawn = bars([(n, float(c), f"{c:,}") for n, c in counts], "episodes by how they ended")
    hours = {name: row["hours"] or 0.0 for name, row in tiers.items()}
    steps = [
        (name, sum(h for tier, h in sorted(hours.items()) if tier not in without))
        for name, without in LEFT.items()
    ]
    is_tiered = any(name != "none" for name in tiers)
    funnel = bars([(n, h, f"{number(h)} h") for n, h in steps], "hours that are left")
    inside = [
        tag("h3", "Episodes"),
        drawn,
        table("funnel", ["end", "episodes"], counts),
        tag("h3", "Hours"),
        *([funnel, table("hours_left", ["what", "hours"], steps)] if is_tiered else [_untiered()]),
    ]
    return section("funnel", "From discovered to tiers", *inside)


def _untiered() -> Markup:
    return tag("p", "No tier policy was applied yet: eicorpus tier", class_="none")


def _hours(catalog: Catalog) -> Markup:
    inside: list[Markup] = []
    for title, key in GROUPS.items():
        inside += _group(title, rows(catalog, questions.HOURS.format(key=key)))
    order = {"high": 0, "low": 1, "actionless": 2, "excluded": 3}
    tiers = rows(catalog, questions.TIERS)
    inside += _group("tier", sorted(tiers, key=lambda row: order.get(row["name"], 9)))
    return section("hours", "Hours", *inside)


def _group(title: str, found: Sequence[Row]) -> list[Markup]:
    kept = list(found[:MAX_BARS])
    if rest := found[MAX_BARS:]:
        kept.append(
            {
                "name": f"{len(rest)} others",
                "episodes": sum(row["episodes"] for row in rest),
                "hours": sum(row["hours"] or 0.0 for row in rest),
            }
        )
    cells = [(row["name"], row["episodes"], float(row["hours"] or 0.0)) for row in kept]
    drawn = bars(
        [(str(name), h, f"{number(h)} h, {n:,}") for name, n, h in cells], f"hours by {title}"
    )
    return [
        tag("h3", f"by {title}"),
        *([drawn] if cells else []),
        table(f"hours_by_{title}", [title, "episodes", "hours"], cells),
    ]


def _tiers(catalog: Catalog, policy: Policy) -> Markup:
    found = rows(catalog, questions.REASONS)
    cells = [
        (r["tier"], r["code"], r["segments"], float(r["hours"] or 0.0), r["text"]) for r in found
    ]
    columns = ["tier", "reason", "segments", "hours", "for example"]
    note = f"The first reason of each segment, by the latest run of a policy. The thresholds drawn below are those of {policy.title}."
    return section(
        "reasons", "Why segments are where they are", table("reasons", columns, cells, note=note)
    )


def _chosen(found: Sequence[Row], lines: Sequence[Threshold]) -> list[Row]:
    """Those that the policy asks about, in its order; then the others by name."""
    asked = list(dict.fromkeys(line.measurement for line in lines))
    place = {name: index for index, name in enumerate(asked)}
    ordered = sorted(found, key=lambda row: (place.get(row["name"], len(place)), row["name"]))
    return ordered[:MAX_HISTOGRAMS]


def _measurements(
    drawn: Sequence[Histogram], lines: Sequence[Threshold], found: Sequence[Row], every: int
) -> Markup:
    notes = [
        "Values of whole episodes at their newest version; bins span the inner 99 %, what is outside is in the first and last."
    ]
    if every > 1:
        notes.append(
            f"A sample: one episode in {every}, by the hash of its uid (at most about {MAX_SAMPLE:,})."
        )
    if len(found) > len(drawn):
        notes.append(f"{len(found) - len(drawn)} more measurements are in the catalog.")
    figures = [_figure(each, lines) for each in drawn]
    cells = [(h.name, h.unit, h.looked_at, h.measured, h.low, h.high) for h in drawn]
    columns = ["measurement", "unit", "looked at", "with a value", "0.5 %", "99.5 %"]
    shown_ = (
        [tag("div", *figures, class_="many")]
        if figures
        else [tag("p", "Nothing was measured yet: eicorpus measure", class_="none")]
    )
    return section(
        "measurements",
        "Measurements and thresholds",
        tag("p", " ".join(notes), class_="note"),
        *shown_,
        tag("details", tag("summary", "The numbers"), table("measurements", columns, cells)),
    )


def _figure(each: Histogram, lines: Sequence[Threshold]) -> Markup:
    mine = [line for line in lines if line.measurement == each.name]
    marks = [Line(at=line.value, label=f"{line.rule} {line.word} {line.value:g}") for line in mine]
    drawn = histogram(each.counts, each.left, each.right, marks, f"histogram of {each.name}")
    caption = tag("figcaption", tag("b", each.name), f" {each.unit}, {each.measured:,} episodes")
    return tag(
        "figure",
        caption,
        drawn,
        data_histogram=each.name,
        data_counts=" ".join(map(str, each.counts)),
    )


def _segments(name: str, title: str, found: Sequence[Row], sheets: Sheets) -> Markup:
    note = (
        "Ordered by the mean place of the episode among all, over the measurements that rules of the policy compare "
        "(0 best, 1 worst). One camera, at most 8 pictures of a segment."
    )
    articles = [_article(row, sheets) for row in found] or [tag("p", "none", class_="none")]
    return section(name, title, tag("p", note, class_="note"), *articles)


def _article(row: Row, sheets: Sheets) -> Markup:
    reasons = [f"{each['code']}: {each['text']}{_measured(each)}" for each in row["reasons"] or ()]
    rate_hz = row["length"] / row["duration_s"]
    about = {
        "episode": f"{row['source']} {row['episode_id']}",
        "uid": row["uid"],
        "from, to": f"{row['start'] / rate_hz:.1f} s, {row['end'] / rate_hz:.1f} s",
        "tier": row["tier"],
        "why": "; ".join(reasons),
        "tasks": "; ".join(row["tasks"] or ()),
        "place": float(row["score"]),
    }
    return tag("article", sheets.sheet(row), listed(about))


def _measured(reason: Row) -> str:
    return "" if reason["value"] is None else f" (measured {number(reason['value'])})"


def _captions(catalog: Catalog, sheets: Sheets) -> Markup:
    counts = rows(catalog, questions.CAPTIONS)
    cells = [(r["backend"], r["outcome"], r["captions"], r["complained"]) for r in counts]
    sample = rows(catalog, questions.CAPTION_SAMPLE, seed=SEED, count=CAPTIONS)
    note = f"{len(sample)} captions that are ok, drawn by hash. Judge them with eicorpus caption --audit."
    columns = ["backend", "outcome", "captions", "with a failed check"]
    return section(
        "captions",
        "Captions",
        table("captions", columns, cells),
        tag("p", note, class_="note"),
        *(_caption(row, sheets) for row in sample),
    )


def _caption(row: Row, sheets: Sheets) -> Markup:
    about: dict[str, Any] = {
        "caption": tag("b", row["text"]),
        "source says": row["source_text"] or "(nothing)",
        "checks failed": ", ".join(row["checks_failed"] or ()) or "none",
        "by": f"{row['backend']} {row['model'] or ''}",
        "episode": f"{row['source']} {row['episode_id']} {row['start']}:{row['end']}",
    }
    return tag("article", sheets.sheet(row), listed(about))


def _aside(catalog: Catalog) -> Markup:
    found = rows(catalog, questions.ASIDE)
    cells = [(r["state"], r["code"], r["source"], r["episodes"], r["example"]) for r in found]
    columns = ["state", "code", "source", "episodes", "for example"]
    return section("aside", "Set aside", table("aside", columns, cells))


def _barred(catalog: Catalog) -> Markup:
    found = rows(catalog, questions.BARRED)
    cells = [(r["why"], r["source"], r["episodes"], float(r["hours"] or 0.0)) for r in found]
    note = "Facts about the actions that are only inferred, unverified or unknown keep an episode from teaching a policy."
    columns = ["why", "source", "episodes", "hours"]
    return section(
        "barred", "What bars the policy task", table("barred", columns, cells, note=note)
    )
