"""The table that a policy's SQL reads: one row per segment, one column per fact or measurement. Interval measurements are joined by overlap.

It is made some episodes at a time, each time it is read: of five million episodes the whole of it has 1.9 GB, and to write and read those
takes longer than to make them again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import chain

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from ingest.catalog.segmentation import Ints, Spans, is_covered, merged
from ingest.curation.tiers.measurement_matrix import (
    IntervalRows,
    MeasurementMatrix,
    MissingMeasurements,
)
from ingest.curation.tiers.policy import QualityPolicy
from ingest.curation.tiers.policy_fields import EPISODE_FACTS
from ingest.curation.tiers.policy_sql import (
    FIRST_UNMEASURED,
    UNMEASURED,
    aggregates,
    measurement_column,
    used,
)
from ingest.curation.tiers.read_ahead import ahead
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
    if not len(spans):  # so it is with most names of most episodes
        return np.full(len(line.segments), 0.0 if of in ("share", "count") else np.nan)
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


BLOCK_EPISODES = 1 << 15  # made at a time: what the caches of a core hold
Column = tuple[str, Callable[[], pa.Array]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Gathered:
    """N episodes, cut into S segments, and what is known of them."""

    episodes: pl.DataFrame  # facts in their rows
    rate_hz: Array  # [N] timesteps a second
    line: SegmentLine
    wide: MeasurementMatrix
    runs: Spans  # in which everything observed is valid
    among: Mapping[str, Array]  # group facts, [N] each
    first: int = 0  # number of the first of the episodes among all

    def blocks(self) -> Iterator[Gathered]:
        """The same, `BLOCK_EPISODES` at a time; one block without episodes where there are none."""
        runs = _by_row(self.runs)[0]
        intervals = {name: _rows_by_row(rows) for name, rows in self.wide.intervals.items()}
        for first in range(0, max(len(self.rate_hz), 1), BLOCK_EPISODES):
            at = slice(first, min(first + BLOCK_EPISODES, len(self.rate_hz)))
            lacks = self.wide.missing
            yield Gathered(
                episodes=self.episodes[at],
                rate_hz=self.rate_hz[at],
                line=SegmentLine(
                    lengths=self.line.lengths[at], segments=_block(self.line.segments, at)[0]
                ),
                wide=MeasurementMatrix(
                    values={name: values[at] for name, values in self.wide.values.items()},
                    intervals={name: _block_rows(rows, at) for name, rows in intervals.items()},
                    missing=MissingMeasurements(count=lacks.count[at], first=lacks.first[at]),
                ),
                runs=_block(runs, at)[0],
                among={name: values[at] for name, values in self.among.items()},
                first=first,
            )


def _by_row(spans: Spans) -> tuple[Spans, Ints | None]:
    """In the order of their episodes, and how they were put into it; None where they were."""
    if np.all(spans.row[1:] >= spans.row[:-1]):
        return spans, None
    order = np.argsort(spans.row, kind="stable")
    return spans.at(order), order


def _rows_by_row(rows: IntervalRows) -> IntervalRows:
    spans, order = _by_row(rows.spans)
    return replace(rows, spans=spans, value=rows.value if order is None else rows.value[order])


def _block(spans: Spans, at: slice) -> tuple[Spans, slice]:
    """Those of some episodes, which count from 0 again, and which ones they are. `spans` are in the order of episodes."""
    chosen = slice(*np.searchsorted(spans.row, [at.start, at.stop]).tolist())
    row, start, end = spans.row[chosen], spans.start[chosen], spans.end[chosen]
    return Spans(row=row - at.start, start=start, end=end), chosen


def _block_rows(rows: IntervalRows, at: slice) -> IntervalRows:
    spans, chosen = _block(rows.spans, at)
    return IntervalRows(spans=spans, value=rows.value[chosen], is_measured=rows.is_measured[at])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frame:
    """[S] the columns of `policy.sql`, and `added` [S] others."""

    policy: QualityPolicy
    gathered: Gathered
    added: Mapping[str, pa.Array] = field(default_factory=dict)

    def batches(self) -> Iterator[pa.RecordBatch]:
        return ahead(self._makers())

    def _makers(self) -> Iterator[Callable[[], pa.RecordBatch]]:
        done = 0
        for block in self.gathered.blocks():
            count = len(block.line.segments)
            added = {name: each.slice(done, count) for name, each in self.added.items()}
            yield partial(_batch, self.policy, block, added)
            done += count

    def reader(self) -> pa.RecordBatchReader:
        """To be read once, by another thread too."""
        batches = self.batches()
        first = next(batches)
        return pa.RecordBatchReader.from_batches(first.schema, chain([first], batches))

    def to_table(self) -> pa.Table:
        return pa.Table.from_batches(self.batches())

    @property
    def first_unmeasured(self) -> Ints:
        """[S] the column `FIRST_UNMEASURED`."""
        first = self.gathered.wide.missing.first[self.gathered.line.segments.row]
        return np.asarray(first, dtype=np.int64)


def _batch(
    policy: QualityPolicy, gathered: Gathered, added: Mapping[str, pa.Array]
) -> pa.RecordBatch:
    segments = gathered.line.segments
    places = {"row": gathered.first + segments.row, "start": segments.start, "end": segments.end}
    makers = [*_facts(policy, gathered), *_numbers(policy, gathered)]
    columns = {name: pa.array(array) for name, array in places.items()}
    columns |= {name: make() for name, make in makers} | dict(added)
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def _facts(policy: QualityPolicy, gathered: Gathered) -> Iterator[Column]:
    segments, row = gathered.line.segments, gathered.line.segments.row
    size = segments.end - segments.start
    facts, _, _ = used(policy)
    yield "supervises", partial(_taken, gathered.episodes["supervises"], row)
    for name in sorted(facts & set(EPISODE_FACTS) - {"supervises"}):
        yield f"fact {name}", partial(_taken, gathered.episodes[name], row)
    if "segment_s" in facts:
        yield "fact segment_s", lambda: pa.array(size / gathered.rate_hz[row])
    if "valid_share" in facts:
        yield (
            "fact valid_share",
            lambda: pa.array(covered_steps(gathered.line, gathered.runs) / size),
        )
    if UNMEASURED in facts:
        missing = gathered.wide.missing
        yield f"fact {UNMEASURED}", lambda: pa.array(missing.count[row])
        yield FIRST_UNMEASURED, lambda: pa.array(missing.first[row])
    for name, value in sorted(gathered.among.items()):
        yield f"fact {name}", partial(_number, value, row)


def _numbers(policy: QualityPolicy, gathered: Gathered) -> Iterator[Column]:
    _, whole, _ = used(policy)
    for name in sorted(whole):
        values = gathered.wide.values[name]
        yield measurement_column(name), partial(_number, values, gathered.line.segments.row)
    for name, of in sorted(aggregates(policy)):
        interval_rows = gathered.wide.intervals[name]
        yield measurement_column(name, of), partial(_of_intervals, gathered, interval_rows, of)


def _taken(values: pl.Series, row: Ints) -> pa.Array:
    # of many small chunks a gather takes ten times as long
    return values.rechunk().gather(row).to_arrow()


def _number(values: Array, row: Ints) -> pa.Array:
    return _nullable(values[row])


def _of_intervals(gathered: Gathered, interval_rows: IntervalRows, of: str) -> pa.Array:
    """[S] NULL where it was not measured."""
    segments = gathered.line.segments
    is_seconds = of == "seconds"
    value = aggregate(
        gathered.line, interval_rows.spans, interval_rows.value, "share" if is_seconds else of
    )
    if is_seconds:
        value = value * (segments.end - segments.start) / gathered.rate_hz[segments.row]
    if not interval_rows.is_measured.all():
        value = np.where(interval_rows.is_measured[segments.row], value, np.nan)
    return _nullable(value)


def _nullable(value: npt.NDArray[np.float64]) -> pa.Array:
    """NaN is how NumPy says unknown; in SQL it would be larger than every number."""
    # the sum of numbers is one, and found sooner
    return pa.array(value, from_pandas=bool(np.isnan(value.sum())))
