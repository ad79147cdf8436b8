"""What stretches say of the segments that they overlap. Segments tile their episodes, so all episodes lie on one line."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ingest.curation.tier.cut import Ints, Spans, merged
from schemas.geometry import Array


@dataclass(frozen=True, kw_only=True, eq=False)
class Line:
    """All episodes one after the other: S segments that tile them, in order of row and time."""

    lengths: Ints  # [N] timesteps of each episode
    segments: Spans

    @cached_property
    def offsets(self) -> Ints:
        """[N] where each episode begins."""
        return np.cumsum(self.lengths) - self.lengths

    @cached_property
    def starts(self) -> Ints:
        """[S] where each segment begins."""
        return np.asarray(self.offsets[self.segments.row] + self.segments.start)


def covered_steps(line: Line, spans: Spans) -> Ints:
    """[S] timesteps of each segment that any of the spans covers; overlapping spans count once."""
    disjoint = merged(spans, line.lengths)
    size = disjoint.end - disjoint.start
    is_whole = np.zeros(len(line.lengths), dtype=bool)
    is_whole[disjoint.row[size == line.lengths[disjoint.row]]] = True
    is_partly = np.zeros(len(line.lengths), dtype=bool)
    is_partly[disjoint.row] = True
    row = line.segments.row
    out = np.where(is_whole[row], line.segments.end - line.segments.start, 0)
    open_ = np.flatnonzero((is_partly & ~is_whole)[row])  # few: most episodes are all or nothing
    begin = line.offsets[disjoint.row] + disjoint.start
    before = np.concatenate([[0], np.cumsum(size)])

    def covered_until(at: Ints) -> Ints:
        last = np.searchsorted(begin, at, side="right") - 1
        inside = np.minimum(at - begin[last], size[last])
        return np.asarray(np.where(last >= 0, before[last] + inside, 0))

    if len(open_):
        starts = line.starts[open_]
        ends = starts + line.segments.end[open_] - line.segments.start[open_]
        out[open_] = covered_until(ends) - covered_until(starts)
    return out


def touched(line: Line, spans: Spans) -> tuple[Ints, Ints]:
    """Every pair of a span and a segment that overlap: number of the segment, number of the span."""
    length = line.lengths[spans.row]
    start, end = np.clip(spans.start, 0, length), np.clip(spans.end, 0, length)
    is_inside = end > start
    offset = line.offsets[spans.row]
    first = np.searchsorted(line.starts, offset + start, side="right") - 1
    last = np.searchsorted(line.starts, offset + end - 1, side="right") - 1
    count = np.where(is_inside, last - first + 1, 0)
    span = np.repeat(np.arange(len(spans)), count)
    step = np.arange(len(span)) - np.repeat(np.cumsum(count) - count, count)
    return first[span] + step, span


def aggregate(line: Line, spans: Spans, value: Array, of: str) -> Array:
    """[S] one number of the spans that overlap each segment; NaN where there is none to say.

    `of`: share of its timesteps that they cover, how many there are (count), or the max or min of their `value`.
    """
    if of == "share":
        size = line.segments.end - line.segments.start
        return np.asarray(covered_steps(line, spans) / size, dtype=np.float64)
    segment, span = touched(line, spans)
    if of == "count":
        return np.bincount(segment, minlength=len(line.segments)).astype(np.float64)
    known = ~np.isnan(value[span])
    least = of == "min"
    out = np.full(len(line.segments), np.inf if least else -np.inf)
    (np.minimum if least else np.maximum).at(out, segment[known], value[span][known])
    out[np.isinf(out)] = np.nan
    return out
