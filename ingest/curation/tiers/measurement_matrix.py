"""Measurements of all episodes as columns: for every name one number an episode, the newest, NaN where there is none.

The table `measurements` is long: 200 million rows for 5 million episodes. Parts are read one after the other and scattered into the columns
as they come, so that no more than a few of them are in memory. Uids and names stay the numbers that Parquet stores for them, and each
text is looked up once; a version that all rows of a part have is not read. DuckDB's own GROUP BY of the same rows takes many times as
long (docs/how-to/quality-policy.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ingest.catalog.segmentation import Ints, Spans
from ingest.catalog.tables import rows_of
from ingest.catalog.uid_index import UidIndex
from ingest.corpus.snapshot import Snapshot
from ingest.curation.tiers.read_ahead import ahead
from schemas.catalog import TABLES
from schemas.geometry import Array
from schemas.parquet_file import collect, open_parquet

SLICE_ROWS = 1 << 16  # looked up and scattered at a time: what the caches of a core hold
Versions = npt.NDArray[np.signedinteger[Any]]
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

    cell: Ints  # place of the name * N + place of the episode
    version: Versions  # [k], or [1] where all rows have the same
    value: Array
    is_whole: Mask | None  # not of a stretch; None for all
    stretches: _VersionedIntervals | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _MeasuredPart:
    """The rows of one part, some at a time."""

    episodes: Ints  # their places
    has_one_version: bool
    rows: Sequence[_MeasuredRows]


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
    versions: Versions = np.zeros((len(columns), len(places)), dtype=np.int8)
    is_reached, stretches = np.zeros(len(places), dtype=bool), []
    for part in ahead(partial(_read, path, columns, places) for path in paths):
        is_first = part.has_one_version and not is_reached[part.episodes].any()
        is_reached[part.episodes] = True
        for rows in part.rows:
            if rows.version.max(initial=0) > np.iinfo(versions.dtype).max:  # hardly ever
                versions = versions.astype(np.int32)
            _scatter(rows, values, versions, is_first=is_first)
            stretches += [] if rows.stretches is None else [rows.stretches]
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


def _read(path: Path, names: Sequence[str], places: UidIndex) -> _MeasuredPart:
    texts, first_cell = ["uid", "name"], {n: at * len(places) for at, n in enumerate(names)}
    with open_parquet(path, read_dictionary=texts) as file:
        has_spans, one = _has_spans(file.metadata), _only_version(file.metadata)
        columns = ["value", *(["start", "end"] if has_spans else [])]
        columns += ["version"] if one is None else []
        table = file.read(columns=[*texts, *columns], use_threads=False)
        uid = _Coded.of(table["uid"], partial(_rows, places))
        name = _Coded.of(table["name"], partial(_cells, first_cell))
        rows = []
        for first in range(0, len(table), SLICE_ROWS):
            at = slice(first, first + SLICE_ROWS)
            number = {each: _numbers(table[each][at], each) for each in columns}
            rows.append(_measured(name.numbers(at) + uid.numbers(at), number, len(places), one))
    episodes = uid.number[uid.number >= 0]
    return _MeasuredPart(episodes=episodes, has_one_version=one is not None and one > 0, rows=rows)


def _measured(
    cell: Ints, number: Mapping[str, npt.NDArray[Any]], num_places: int, one: int | None
) -> _MeasuredRows:
    """`number`: the columns that are numbers. `one`: the version, where all rows of the part have the same."""
    kept = np.flatnonzero(cell >= 0)
    if one is None:  # a later row of an equal version stays the later one
        kept = kept[np.argsort(number["version"][kept], kind="stable")]
    cell, number = cell[kept], {name: values[kept] for name, values in number.items()}
    version = number["version"] if one is None else np.full(1, one, dtype=np.int32)
    is_whole = stretches = None
    if "start" in number:
        is_whole = number["start"] == _NO_NUMBER
        at = np.flatnonzero(~is_whole)
        column, row = np.divmod(cell[at], num_places)
        stretches = _VersionedIntervals(
            spans=Spans(row=row, start=number["start"][at], end=number["end"][at]),
            column=column,
            version=np.broadcast_to(version, len(cell))[at],
            value=number["value"][at],
        )
    return _MeasuredRows(
        cell=cell, version=version, value=number["value"], is_whole=is_whole, stretches=stretches
    )


# NULL: of `start` a row of the whole episode, of `version` a row that says nothing.
_NO_NUMBER = np.iinfo(np.int32).min
_NOWHERE = np.iinfo(np.int64).min // 2  # two of them together are still below 0


def _numbers(column: pa.ChunkedArray, name: str) -> npt.NDArray[Any]:
    """[rows] of the declared type; NULL is NaN, or `_NO_NUMBER`."""
    column = column.cast(TABLES["measurements"].field(name).type)
    if pa.types.is_integer(column.type):
        column = column.fill_null(_NO_NUMBER)
    numbers: npt.NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return numbers


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Coded:
    """[rows] texts as numbers of a list in which each text, or each of a row group, is once; what is looked up of those in the list."""

    code: npt.NDArray[np.int32]
    number: Ints  # of each text

    @classmethod
    def of(cls, texts: pa.ChunkedArray, look_up: Callable[[pa.Array], Ints]) -> _Coded:
        """NULL is `_NOWHERE`."""
        codes, numbers, count = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)], 0
        for chunk in texts.cast(_CODED_TEXT).chunks:  # row groups have codes of their own
            numbers += [look_up(chunk.dictionary), np.array([_NOWHERE])]
            code = chunk.indices
            code = code.fill_null(len(chunk.dictionary)) if code.null_count else code
            code = code.to_numpy()
            codes.append(code + np.int32(count) if count else code)
            count += len(chunk.dictionary) + 1
        code = codes[1] if len(codes) == 2 else np.concatenate(codes)
        return cls(code=code, number=np.concatenate(numbers))

    def numbers(self, rows: slice) -> Ints:
        return self.number.take(self.code[rows])


_CODED_TEXT = pa.dictionary(pa.int32(), pa.string())


def _cells(first_cell: Mapping[str, int], names: pa.Array) -> Ints:
    return np.array([first_cell.get(name, _NOWHERE) for name in names.to_pylist()], dtype=np.int64)


def _rows(places: UidIndex, uids: pa.Array) -> Ints:
    rows = places.of(pl.Series(uids, dtype=pl.String))
    return np.where(rows < 0, _NOWHERE, rows)


def _has_spans(metadata: pq.FileMetaData) -> bool:
    """Whether any row is of a stretch; from the statistics of the file, so that nothing is read for it."""
    return any(
        chunk.statistics is None or chunk.statistics.null_count != chunk.num_values
        for chunk in _chunks(metadata, "start")
    )


def _only_version(metadata: pq.FileMetaData) -> int | None:
    """The version that all rows have, as the statistics of the file say; None for several."""
    versions = set()
    for chunk in _chunks(metadata, "version"):
        known = chunk.statistics
        if known is None or not known.has_min_max or known.null_count != 0:
            return None
        versions |= {known.min, known.max}
    return versions.pop() if len(versions) == 1 else None


def _chunks(metadata: pq.FileMetaData, column: str) -> Iterator[pq.ColumnChunkMetaData]:
    """A column in each row group."""
    at = metadata.schema.names.index(column)
    return (metadata.row_group(group).column(at) for group in range(metadata.num_row_groups))


def _scatter(rows: _MeasuredRows, values: Array, versions: Versions, *, is_first: bool) -> None:
    """Put the rows where no higher version is. `values` [m', N] are of the first m' names of `versions` [m, N].

    `is_first`: the part has one version, and no earlier one has a row of these episodes, as it is with nearly every part.
    """
    cell, all_versions, all_values = rows.cell, versions.reshape(-1), values.reshape(-1)
    if is_first:
        all_versions[cell] = rows.version[0]
        is_in = cell < values.size
    else:
        before = all_versions.take(cell)
        version = np.broadcast_to(rows.version, len(cell))
        # rows come by version, so of one place the highest stays
        is_in = version >= before
        all_versions[cell[is_in]] = version[is_in]
        is_in &= cell < values.size
        is_in &= version == all_versions[cell]
        # a new version without a row of the whole episode takes the older number away
        all_values[cell[is_in & (version > before)]] = np.nan
    if rows.is_whole is not None:
        is_in &= rows.is_whole
    all_values[cell[is_in]] = rows.value[is_in]


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
    kind = pl.col("kind").cast(pl.Enum(kinds)).to_physical()
    rows = rows_of(corpus, current, "segments").filter(pl.col("kind").is_in(kinds))
    table = collect(rows.select("uid", kind, "start", "end"), "catalog/segments")
    row, number = places.of(table["uid"]), table["kind"].to_numpy()
    start, end = (table[name].to_numpy() for name in ("start", "end"))
    spans = Spans(row=row, start=start, end=end)
    return {name: spans.at((row >= 0) & (number == at)) for at, name in enumerate(kinds)}
