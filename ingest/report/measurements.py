"""Histograms of measurements, the thresholds of the policy drawn in them."""

from __future__ import annotations

from collections.abc import Sequence

from ingest.report.html import Markup, section, table, tag
from ingest.report.queries import MAX_SAMPLE, Histogram, Row
from ingest.report.svg import ThresholdLine, histogram
from ingest.report.thresholds import Threshold

MAX_HISTOGRAMS = 60


def chosen(measured: Sequence[Row], lines: Sequence[Threshold]) -> list[Row]:
    """Those that the policy asks about, in its order; then the others by name."""
    asked = list(dict.fromkeys(line.measurement for line in lines))
    place = {name: index for index, name in enumerate(asked)}
    ordered = sorted(measured, key=lambda row: (place.get(row["name"], len(place)), row["name"]))
    return ordered[:MAX_HISTOGRAMS]


def measurements(
    drawn: Sequence[Histogram], lines: Sequence[Threshold], measured: Sequence[Row], every: int
) -> Markup:
    notes = [
        "Values of whole episodes, newest version of each measurement. Bins cover the inner 99 %; the first and last bin include the rest."
    ]
    if every > 1:
        notes.append(
            f"A sample: one episode in {every}, by the hash of its uid (at most about {MAX_SAMPLE:,})."
        )
    if len(measured) > len(drawn):
        notes.append(f"{len(measured) - len(drawn)} more measurements are in the catalog.")
    figures = [_figure(each, lines) for each in drawn if not each.is_constant]
    same = [each for each in drawn if each.is_constant]
    cells = [(h.name, h.low, h.unit, h.measured, h.looked_at, _limits(h, lines)) for h in same]
    columns = ["measurement", "value", "unit", "episodes", "of", "thresholds"]
    shown_ = (
        [tag("div", *figures, class_="many")]
        if figures or same
        else [tag("p", "No measurements yet. Run `eicorpus measure`.", class_="none")]
    )
    return section(
        "measurements",
        "Measurements and thresholds",
        tag("p", " ".join(notes), class_="note"),
        *shown_,
        *(
            [tag("h3", "Constant over all episodes"), table("constants", columns, cells)]
            if same
            else []
        ),
    )


def _limits(each: Histogram, lines: Sequence[Threshold]) -> str:
    return ", ".join(mark.label for mark in _marks(each, lines))


def _marks(each: Histogram, lines: Sequence[Threshold]) -> list[ThresholdLine]:
    own = [line for line in lines if line.measurement == each.name]
    return [
        ThresholdLine(at=line.value, label=f"{line.rule} {line.word} {line.value:g}")
        for line in own
    ]


def _figure(each: Histogram, lines: Sequence[Threshold]) -> Markup:
    marks = _marks(each, lines)
    drawn = histogram(each.counts, each.left, each.right, marks, f"histogram of {each.name}")
    note = f" {each.unit}, {each.measured:,} of {each.looked_at:,} episodes"
    caption = tag("figcaption", tag("b", each.name), note)
    return tag(
        "figure",
        caption,
        drawn,
        data_histogram=each.name,
        data_counts=" ".join(map(str, each.counts)),
        data_looked_at=each.looked_at,
        data_low=repr(each.low),
        data_high=repr(each.high),
    )
