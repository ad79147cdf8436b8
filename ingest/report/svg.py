"""A histogram with the thresholds of a policy in it, drawn by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ingest.report.html import Markup, number, tag

_H_WIDTH, _H_HEIGHT, _H_FOOT = 340, 110, 20
_LABELS, _LABEL_ROW = 4, 12  # rows of labels above the bins, and their height


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdLine:
    """A threshold in a histogram."""

    at: float
    label: str


def histogram(
    counts: Sequence[int], low: float, high: float, lines: Sequence[ThresholdLine], label: str
) -> Markup:
    """Bins of equal width over [low, high]; a threshold outside is drawn at the edge with an arrow."""
    most = max(counts, default=0)
    step = _H_WIDTH / max(len(counts), 1)
    top = _LABEL_ROW * min(len(lines), _LABELS) + 4
    floor = top + _H_HEIGHT
    drawn: list[Any] = []
    for place, count in enumerate(counts):
        tall = 0.0 if not most else count / most * _H_HEIGHT
        title = tag("title", f"{count}")
        x, y = f"{place * step:.1f}", f"{floor - tall:.1f}"
        size = {"width": f"{step - 0.5:.1f}", "height": f"{tall:.1f}"}
        drawn.append(tag("rect", title, x=x, y=y, **size, class_="bar"))
    for place, line in enumerate(lines):
        drawn += _line(line, low, high, place, floor)
    foot = floor + 14
    drawn += [
        tag("line", x1=0, y1=floor, x2=_H_WIDTH, y2=floor, class_="axis"),
        tag("text", number(low), x=0, y=foot),
        tag("text", number(high), x=_H_WIDTH, y=foot, text_anchor="end"),
    ]
    return _drawing(drawn, _H_WIDTH, floor + _H_FOOT, label)


def _line(line: ThresholdLine, low: float, high: float, place: int, floor: int) -> list[Markup]:
    share = 0.5 if high <= low else (line.at - low) / (high - low)
    arrow = "◂ " if share < 0 else "▸ " if share > 1 else ""
    x = min(max(share, 0.0), 1.0) * _H_WIDTH
    anchor = "start" if x < _H_WIDTH / 2 else "end"
    at = x + 3 if anchor == "start" else x - 3
    y = 10 + _LABEL_ROW * (place % _LABELS)
    return [
        tag("line", x1=f"{x:.1f}", y1=y - 8, x2=f"{x:.1f}", y2=floor, class_="threshold"),
        tag(
            "text",
            f"{arrow}{line.label}",
            x=f"{at:.1f}",
            y=y,
            text_anchor=anchor,
            class_="threshold",
            data_threshold=repr(line.at),
        ),
    ]


def _drawing(inside: Sequence[Any], width: int, height: int, label: str) -> Markup:
    box = f"0 0 {width} {height}"
    return tag(
        "svg", *inside, viewBox=box, width=width, height=height, role="img", aria_label=label
    )
