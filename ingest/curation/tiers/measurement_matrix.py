"""Measurements of all episodes as columns: for every name one number an episode, the newest, NaN where there is none.

The table `measurements` is long: 200 million rows for 5 million episodes. Parts are read one after the other and scattered into the columns
as they come, so that no more than a few of them are in memory: of each only the rows whose name is asked for, and of its uids only
the first of each run of equal ones, since an episode's rows lie together. DuckDB's own GROUP BY of the same rows takes many
times as long (docs/how-to/quality-policy.md).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ingest.catalog.segmentation import Ints, Spans
from ingest.catalog.tables import rows_of
from ingest.catalog.uid_index import UidIndex
from ingest.corpus.snapshot import Snapshot
from schemas.geometry import Array
from schemas.parquet_file import collect, open_parquet, read_frame

READERS = 2  # parts read at a time; Polars lets go of the interpreter while it decodes
AHEAD = 6  # parts that wait for their turn
Versions = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int16]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class IntervalRows:
    """Rows of one measurement that hold for a stretch of an episode, and where it was measured at all."""

    spans: Spans
    value: Array  # [M]
    is_measured: Mask  # [N]: False is unknown, True without rows is none found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MissingMeasurements:
    """Names without any row of an episode: not even one that says that nothing could be measured."""

    count: Counts  # [N]
    first: Counts  # [N] place of the first one among those that are required, from 1; 0 for none


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MeasurementMatrix:
    """N episodes, in the order of their places."""

    values: Mapping[str, Array]  # [N] each
    intervals: Mapping[str, IntervalRows]
    missing: MissingMeasurements


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _VersionedIntervals:
    """Rows of stretches, of any names and versions."""

    spans: Spans
    column: Ints
    version: Versions
    value: Array

    def at(self, chosen: Ints) -> _VersionedIntervals:
        return _VersionedIntervals(
            spans=self.spans.at(chosen),
            column=self.column[chosen],
            version=self.version[chosen],
            value=self.value[chosen],
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _MeasuredRows:
    """k rows of one part, lower versions first: only names that are asked for, only episodes that have a place."""

    row: Ints
    column: npt.NDArray[np.int16]  # the place of the name
    version: Versions
    value: Array
    is_whole: Mask | None  # not of a stretch; None for all
    stretches: _VersionedIntervals | None


def read_matrix(
    corpus: Path,
    current: Snapshot,
    places: UidIndex,
    *,
    names: Iterable[str],
    interval_names: Iterable[str],
    required: Sequence[str] = (),
) -> MeasurementMatrix:
    """The newest value of every name for the episodes of `places`; what is measured of other episodes is left out.

    The newest is the highest version there is of (uid, name); of several rows of it the last one, in the order of parts and rows. Its
    value may be NULL, and then the older ones are not asked. Of `required`, which are among the others, is counted what has no row.
    """
    of_episodes, of_stretches = sorted(set(names)), sorted(set(interval_names))
    columns = [*of_episodes, *sorted(set(of_stretches) - set(of_episodes))]
    paths = [part.file(corpus) for part in current.parts("measurements")] if columns else []
    values = np.full((len(of_episodes), len(places)), np.nan)
    versions = np.zeros((len(columns), len(places)), dtype=np.int32)
    stretches = []
    for rows in _parts(paths, columns, places):
        _scatter(rows, values, versions)
        if rows.stretches is not None:
            stretches.append(rows.stretches)
    newest = _newest(stretches, versions)
    return MeasurementMatrix(
        values=dict(zip(of_episodes, values, strict=True)),
        intervals={
            name: _intervals(newest, columns.index(name), versions) for name in of_stretches
        },
        missing=_missing([columns.index(name) for name in required], versions),
    )


def _missing(required: Sequence[int], versions: Versions) -> MissingMeasurements:
    """A name at a time, so that two numbers an episode are all there is in memory."""
    count, first = (np.zeros(versions.shape[1], dtype=np.int16) for _ in range(2))
    for place, column in reversed(list(enumerate(required, start=1))):
        is_lacking = versions[column] == 0
        count += is_lacking
        first[is_lacking] = place
    return MissingMeasurements(count=count, first=first)


def _parts(
    paths: Iterable[Path], names: Sequence[str], places: UidIndex
) -> Iterator[_MeasuredRows]:
    """Every part in order, the next ones read meanwhile."""
    waiting: deque[Future[_MeasuredRows]] = deque()
    with ThreadPoolExecutor(READERS) as pool:
        for path in paths:
            waiting.append(pool.submit(_read, path, names, places))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _read(path: Path, names: Sequence[str], places: UidIndex) -> _MeasuredRows:
    with open_parquet(path, read_dictionary=["name"]) as file:
        has_spans = _has_spans(file.metadata)
        column = _columns(file.read(columns=["name"], use_threads=False)["name"], names)
    columns = ["uid", "version", "value", *(["start", "end"] if has_spans else [])]
    table = read_frame(path, columns)
    kept = np.flatnonzero(column >= 0)
    if len(kept) < len(column):
        table, column = table[kept], column[kept]
    row, version = _rows(table["uid"], places), table["version"].to_numpy()
    chosen = _chosen(row, version)
    if chosen is not None:
        table, row, column, version = table[chosen], row[chosen], column[chosen], version[chosen]
    value = table["value"].to_numpy()
    is_whole = stretches = None
    if has_spans:
        is_whole = table["start"].is_null().to_numpy()
        at = np.flatnonzero(~is_whole)
        start, end = (table[name].gather(at).to_numpy() for name in ("start", "end"))
        stretches = _VersionedIntervals(
            spans=Spans(row=row[at], start=start, end=end),
            column=column[at].astype(np.int64),
            version=version[at],
            value=value[at],
        )
    return _MeasuredRows(
        row=row,
        column=column,
        version=version,
        value=value,
        is_whole=is_whole,
        stretches=stretches,
    )


def _chosen(row: Ints, version: Versions) -> Ints | None:
    """The rows of episodes that have a place, lower versions first; None for all as they are."""
    is_one = not len(version) or version.min() == version.max()
    if is_one and row.min(initial=0) >= 0:
        return None
    order = np.arange(len(row)) if is_one else np.argsort(version, kind="stable")
    return np.asarray(order[row[order] >= 0])


def _columns(coded: pa.ChunkedArray, names: Sequence[str]) -> npt.NDArray[np.int16]:
    """[rows] the place of each row's name in `names`; -1 for any other."""
    place = {name: index for index, name in enumerate(names)}
    out = [np.zeros(0, np.int16)]
    for chunk in coded.chunks:  # row groups have codes of their own
        known = [place.get(text, -1) for text in chunk.dictionary.to_pylist()]
        out.append(np.array(known, dtype=np.int16)[chunk.indices.to_numpy()])
    return np.concatenate(out)


def _has_spans(metadata: pq.FileMetaData) -> bool:
    """Whether any row is of a stretch; from the statistics of the file, so that nothing is read for it."""
    at = metadata.schema.names.index("start")
    for group in range(metadata.num_row_groups):
        chunk = metadata.row_group(group).column(at)
        if chunk.statistics is None or chunk.statistics.null_count != chunk.num_values:
            return True
    return False


def _rows(uids: pl.Series, places: UidIndex) -> Ints:
    """[rows] the place of each uid, of which only the first of each run is looked up."""
    if not len(uids):
        return np.zeros(0, dtype=np.int64)
    is_first = (uids != uids.shift(1)).fill_null(value=True).to_numpy()
    rows = places.of(uids.filter(pl.Series(is_first)))
    return np.asarray(rows[np.cumsum(is_first) - 1])


def _scatter(rows: _MeasuredRows, values: Array, versions: Versions) -> None:
    """Put the rows where no higher version is. `values` [m', N] are of the first m' names of `versions` [m, N]."""
    flat = rows.column * np.int64(versions.shape[1]) + rows.row
    all_versions, all_values = versions.reshape(-1), values.reshape(-1)
    before = all_versions[flat]
    # rows come by version, so of one place the highest stays
    is_in = rows.version >= before
    all_versions[flat[is_in]] = rows.version[is_in]
    is_in &= rows.column < len(values)
    is_in &= rows.version == all_versions[flat]
    if rows.is_whole is not None:
        # a new version without a row of the whole episode takes the older number away
        is_new = is_in & (rows.version > before)
        all_values[flat[is_new]] = np.nan
        is_in &= rows.is_whole
    all_values[flat[is_in]] = rows.value[is_in]


def _newest(stretches: Sequence[_VersionedIntervals], versions: Versions) -> _VersionedIntervals:
    """Those of the newest version of their (episode, name), in the order of their parts."""
    none = _VersionedIntervals(
        spans=Spans(
            row=np.zeros(0, np.int64), start=np.zeros(0, np.int64), end=np.zeros(0, np.int64)
        ),
        column=np.zeros(0, np.int64),
        version=np.zeros(0, np.int32),
        value=np.zeros(0),
    )
    parts = [none, *stretches]
    all_rows = _VersionedIntervals(
        spans=Spans(
            row=np.concatenate([p.spans.row for p in parts]),
            start=np.concatenate([p.spans.start for p in parts]),
            end=np.concatenate([p.spans.end for p in parts]),
        ),
        column=np.concatenate([p.column for p in parts]),
        version=np.concatenate([p.version for p in parts]),
        value=np.concatenate([p.value for p in parts]),
    )
    return all_rows.at(
        np.flatnonzero(all_rows.version == versions[all_rows.column, all_rows.spans.row])
    )


def _intervals(rows: _VersionedIntervals, column: int, versions: Versions) -> IntervalRows:
    of_column = rows.at(np.flatnonzero(rows.column == column))
    return IntervalRows(
        spans=of_column.spans, value=of_column.value, is_measured=versions[column] > 0
    )


def read_spans(
    corpus: Path, current: Snapshot, places: UidIndex, kinds: Sequence[str]
) -> dict[str, Spans]:
    """The rows of `segments`, by kind; of other episodes than those of `places` none."""
    rows = rows_of(corpus, current, "segments").filter(pl.col("kind").is_in(kinds))
    table = collect(rows.select("uid", "kind", "start", "end"), "catalog/segments")
    row = places.of(table["uid"])
    start, end = (table[name].to_numpy() for name in ("start", "end"))
    spans = Spans(row=row, start=start, end=end)
    return {kind: spans.at((row >= 0) & (table["kind"] == kind).to_numpy()) for kind in kinds}
