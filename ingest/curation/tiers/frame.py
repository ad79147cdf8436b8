"""The table that a policy's SQL reads: a row for each segment, a column for each thing the policy asks about."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from ingest.catalog.segmentation import Ints, Spans
from ingest.curation.tiers.measurement_matrix import IntervalRows, MeasurementMatrix
from ingest.curation.tiers.overlap import SegmentLine, aggregate, covered_steps
from ingest.curation.tiers.policy import QualityPolicy
from ingest.curation.tiers.policy_fields import EPISODE_FACTS
from ingest.curation.tiers.policy_sql import (
    FIRST_UNMEASURED,
    UNMEASURED,
    aggregates,
    measurement_column,
    used,
)
from schemas.geometry import Array

WORKERS = 2  # columns made at a time; NumPy lets go of the interpreter while it gathers
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


def frame_of(policy: QualityPolicy, gathered: Gathered) -> pa.Table:
    """[S] the columns of `policy.sql`."""
    segments = gathered.line.segments
    places = {"row": segments.row, "start": segments.start, "end": segments.end}
    makers = [*_facts(policy, gathered), *_numbers(policy, gathered)]
    with ThreadPoolExecutor(WORKERS) as pool:
        columns_made = pool.map(lambda maker: maker[1](), makers)
        columns = dict(zip((name for name, _ in makers), columns_made, strict=True))
    return pa.table({name: pa.array(array) for name, array in places.items()} | columns)


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
    return pa.array(value, from_pandas=True)
