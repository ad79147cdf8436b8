"""Histograms of measurements, the thresholds of the policy drawn in them."""

from __future__ import annotations

from collections.abc import Sequence

from ingest.report.markup import Markup, section, table, tag
from ingest.report.questions import MAX_SAMPLE, Histogram, Row
from ingest.report.svg import Line, histogram
from ingest.report.thresholds import Threshold

MAX_HISTOGRAMS = 60


def chosen(found: Sequence[Row], lines: Sequence[Threshold]) -> list[Row]:
    """Those that the policy asks about, in its order; then the others by name."""
    asked = list(dict.fromkeys(line.measurement for line in lines))
    place = {name: index for index, name in enumerate(asked)}
    ordered = sorted(found, key=lambda row: (place.get(row["name"], len(place)), row["name"]))
    return ordered[:MAX_HISTOGRAMS]


def measurements(
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
