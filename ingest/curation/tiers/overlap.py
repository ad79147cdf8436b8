"""What stretches say of the segments that they overlap. Segments tile their episodes, so all episodes lie on one line."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ingest.catalog.segmentation import Ints, Spans, is_covered, merged
from schemas.geometry import Array


@dataclass(frozen=True, kw_only=True, eq=False)
class SegmentLine:
    """All episodes one after the other: S segments that tile them, in order of row and time."""

    lengths: Ints  # [N] timesteps of each episode
    segments: Spans

    @cached_property
    def offsets(self) -> Ints:
        """[N] where each episode begins."""
        return np.cumsum(self.lengths) - self.lengths

    @cached_property
    def bounds(self) -> Ints:
        """[N + 1] number of the first segment of each episode, and how many there are."""
        counts = np.bincount(self.segments.row, minlength=len(self.lengths))
        return np.concatenate([[0], np.cumsum(counts)])

    def segments_of(self, rows: Ints) -> Ints:
        """Numbers of all segments of the episodes `rows` (in order, any number of times each), each once."""
        once = rows[np.append(True, rows[1:] != rows[:-1])] if len(rows) else rows
        first, counts = self.bounds[once], self.bounds[once + 1] - self.bounds[once]
        step = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return np.asarray(np.repeat(first, counts) + step)

    @cached_property
    def starts(self) -> Ints:
        """[S] where each segment begins."""
        return np.asarray(self.offsets[self.segments.row] + self.segments.start)


def covered_steps(line: SegmentLine, spans: Spans) -> Ints:
    """[S] timesteps of each segment that any of the spans covers; overlapping spans count once."""
    is_whole = is_covered(spans, line.lengths)
    out = np.zeros(len(line.segments), dtype=np.int64)
    if is_whole.any():
        row = line.segments.row
        out = np.where(is_whole[row], line.segments.end - line.segments.start, 0)
    disjoint = merged(spans.at(~is_whole[spans.row]), line.lengths)
    size = disjoint.end - disjoint.start
    begin = line.offsets[disjoint.row] + disjoint.start
    before = np.concatenate([[0], np.cumsum(size)])

    def covered_until(at: Ints) -> Ints:
        last = np.searchsorted(begin, at, side="right") - 1
        inside = np.minimum(at - begin[last], size[last])
        return np.asarray(np.where(last >= 0, before[last] + inside, 0))

    if len(disjoint):
        open_ = line.segments_of(disjoint.row)  # few: most episodes are all or nothing
        starts = line.offsets[line.segments.row[open_]] + line.segments.start[open_]
        ends = starts + line.segments.end[open_] - line.segments.start[open_]
        out[open_] = covered_until(ends) - covered_until(starts)
    return out


def touched(line: SegmentLine, spans: Spans) -> tuple[Ints, Ints]:
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


def aggregate(line: SegmentLine, spans: Spans, value: Array, of: str) -> Array:
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
