"""Measurements of all episodes as columns: for every name one number an episode, the newest, NaN where there is none.

The table `measurements` is long: 200 million rows for 5 million episodes. Its rows come by episode, so a part is read with its texts as
codes and scattered into a block, and only the block's uids are looked up, once for all blocks. DuckDB's own GROUP BY of the same
rows takes several times as long (docs/curation/tiers.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ingest.curation.tier.cut import Ints, Spans
from ingest.snapshot import Snapshot
from schemas.geometry import Array

# A DuckDB that works in memory and leaves nothing behind: it would spill into the current folder.
SCRATCH: dict[str, Any] = {"temp_directory": "", "python_enable_replacements": "false"}
READERS = 2  # parts read at a time; Arrow lets go of the interpreter while it decodes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Intervals:
    """Rows of one measurement that hold for a stretch of an episode, and where it was measured at all."""

    spans: Spans
    value: Array  # [M]
    is_measured: npt.NDArray[np.bool_]  # [N]: False is unknown, True without rows is none found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Wide:
    """N episodes, in the order that was asked for."""

    values: Mapping[str, Array]  # [N] each
    intervals: Mapping[str, Intervals]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Block:
    """One part: n episodes, m names."""

    uids: pa.Array  # [n]
    values: Array  # [m, n]
    versions: npt.NDArray[np.int32]  # [m, n]; 0 where there is no row
    episode: Ints  # of the interval rows: 0..n
    column: Ints  # 0..m
    version: npt.NDArray[np.int32]
    start: Ints
    end: Ints
    value: Array


def find(uids: pa.Array, wanted: Sequence[pa.Array]) -> Ints:
    """The place in `uids` of each of the wanted ones, all arrays together; -1 where it is not there."""
    asked = pa.concat_arrays([pa.array([], pa.string()), *(w.cast(pa.string()) for w in wanted)])
    if asked.equals(uids):  # in the same order, as after compaction
        return np.arange(len(uids), dtype=np.int64)
    have = pa.table({"uid": uids, "place": np.arange(len(uids), dtype=np.int64)})
    want = pa.table({"uid": asked, "position": np.arange(len(asked), dtype=np.int64)})
    with duckdb.connect(":memory:", config=SCRATCH) as connection:
        left, right = connection.from_arrow(want), connection.from_arrow(have)
        found = left.join(right, "uid").select("position, place").to_arrow_table()
    out = np.full(len(asked), -1, dtype=np.int64)
    out[found["position"].to_numpy()] = found["place"].to_numpy()
    return out


def read_wide(
    corpus: Path,
    current: Snapshot,
    uids: pa.Array,
    *,
    names: Iterable[str],
    interval_names: Iterable[str],
    only: pc.Expression | None = None,
) -> Wide:
    """The newest value of every name for the episodes `uids`; what is measured of other episodes is left out."""
    of_episodes, of_stretches = sorted(set(names)), sorted(set(interval_names))
    columns = [*of_episodes, *of_stretches]
    paths = [corpus / part.path for part in current.parts("measurements")] if columns else []
    with ThreadPoolExecutor(READERS) as pool:
        blocks = list(pool.map(lambda path: _block(path, columns, only), paths))
    places = find(uids, [block.uids for block in blocks])
    bounds = np.cumsum([0, *(len(block.uids) for block in blocks)])
    rows = [places[a:b] for a, b in pairwise(bounds)]
    stretches = _stretches(blocks, rows)
    values, versions = _merged(blocks, rows, len(uids), len(columns))
    found = stretches.newest(versions)
    first = len(of_episodes)
    return Wide(
        values={name: values[i] for i, name in enumerate(of_episodes)},
        intervals={
            name: Intervals(
                spans=found.spans.at(found.column == first + i),
                value=found.value[found.column == first + i],
                is_measured=versions[first + i] > 0,
            )
            for i, name in enumerate(of_stretches)
        },
    )


def read_spans(
    corpus: Path,
    current: Snapshot,
    uids: pa.Array,
    kind: str,
    *,
    only: pc.Expression | None = None,
) -> Spans:
    """The rows of `segments` of one kind."""
    parts = []
    for part in current.parts("segments"):
        wanted = pc.field("kind") == kind
        table = pq.read_table(
            corpus / part.path,
            columns=["uid", "start", "end"],
            read_dictionary=["uid"],
            filters=wanted if only is None else wanted & only,
        ).unify_dictionaries()
        parts.append((*_codes(table["uid"]), table))
    places = find(uids, [texts for texts, _, _ in parts])
    firsts = np.cumsum([0, *(len(texts) for texts, _, _ in parts)])
    none = [np.zeros(0, np.int64)]
    row = np.concatenate(
        [places[f + c] for f, (_, c, _) in zip(firsts, parts, strict=False)] or none
    )
    spans = Spans(
        row=row,
        start=np.concatenate([table["start"].to_numpy() for _, _, table in parts] or none),
        end=np.concatenate([table["end"].to_numpy() for _, _, table in parts] or none),
    )
    return spans.at(row >= 0)


def _block(path: Path, names: Sequence[str], only: pc.Expression | None) -> _Block:
    """Read one part. Rows of lower versions come first, so that higher ones overwrite them."""
    columns = ["uid", "name", "version", "value"] + (["start", "end"] if _has_spans(path) else [])
    table = pq.read_table(
        path, columns=columns, read_dictionary=["uid", "name"], filters=only, use_threads=False
    )
    if table["uid"].num_chunks > 1:  # row groups have codes of their own
        table = table.unify_dictionaries()
    uids, episode = _codes(table["uid"])
    known, name = _codes(table["name"])
    place = {text: index for index, text in enumerate(names)}
    # One more column than names takes what the policy does not ask for.
    width = len(names) + 1
    column = np.array([place.get(text, len(names)) for text in known.to_pylist()], np.int64)[name]
    flat = episode * width + column
    version, value = table["version"].to_numpy(), table["value"].to_numpy()
    order: Ints | slice = slice(None)
    if len(table) and version.min() != version.max():
        order = np.argsort(version, kind="stable")
    versions = np.zeros(len(uids) * width, dtype=np.int32)
    versions[flat[order]] = version[order]
    kept, is_whole = np.zeros(0, np.int64), None
    if "start" in table.column_names and table["start"].null_count < len(table):
        is_whole = table["start"].is_null().to_numpy()
        kept = np.flatnonzero(~is_whole & (column < len(names)))
    values = np.full(len(uids) * width, np.nan)
    if is_whole is None:
        values[flat[order]] = value[order]
    else:
        rows = np.arange(len(table))[order]
        rows = rows[is_whole[rows]]
        values[flat[rows]] = value[rows]
    bounds = table.select(["start", "end"]).take(kept) if len(kept) else None
    return _Block(
        uids=uids,
        values=np.ascontiguousarray(values.reshape(-1, width).T[:-1]),
        versions=np.ascontiguousarray(versions.reshape(-1, width).T[:-1]),
        episode=episode[kept],
        column=column[kept],
        version=version[kept],
        start=kept if bounds is None else bounds["start"].to_numpy(),
        end=kept if bounds is None else bounds["end"].to_numpy(),
        value=value[kept],
    )


def _has_spans(path: Path) -> bool:
    """Whether any row is of a stretch; from the statistics of the file, so that nothing is read for it."""
    metadata = pq.read_metadata(path)
    at = metadata.schema.names.index("start")
    for group in range(metadata.num_row_groups):
        chunk = metadata.row_group(group).column(at)
        if chunk.statistics is None or chunk.statistics.null_count != chunk.num_values:
            return True
    return False


def _codes(column: pa.ChunkedArray) -> tuple[pa.Array, Ints]:
    """The different texts of a column of codes, and which of them each row has."""
    array = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0) if array.num_chunks else pa.array([], column.type)
    return array.dictionary, array.indices.to_numpy().astype(np.int64)


def _merged(
    blocks: list[_Block], rows: Sequence[Ints], length: int, width: int
) -> tuple[Array, npt.NDArray[np.int32]]:
    """[m, N] values and versions: of several parts the highest version, and of equal ones the later part.

    `blocks` is empty afterwards: both do not fit at once into what a laptop has.
    """
    values = np.full((width, length), np.nan)
    versions = np.zeros((width, length), dtype=np.int32)
    for all_rows in rows:
        block = blocks.pop(0)
        for column in np.flatnonzero(block.versions.any(axis=1)):
            offered = block.versions[column]
            at = np.flatnonzero((all_rows >= 0) & (offered > 0))
            at = at[offered[at] >= versions[column, all_rows[at]]]
            versions[column, all_rows[at]] = offered[at]
            values[column, all_rows[at]] = block.values[column, at]
    return values, versions


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Stretches:
    """Interval rows of all names and versions."""

    spans: Spans
    column: Ints
    version: npt.NDArray[np.int32]
    value: Array

    def at(self, chosen: Ints) -> _Stretches:
        return _Stretches(
            spans=self.spans.at(chosen),
            column=self.column[chosen],
            version=self.version[chosen],
            value=self.value[chosen],
        )

    def newest(self, versions: npt.NDArray[np.int32]) -> _Stretches:
        """Those of the newest version of their (episode, name)."""
        return self.at(np.flatnonzero(self.version == versions[self.column, self.spans.row]))


def _stretches(blocks: Sequence[_Block], rows: Sequence[Ints]) -> _Stretches:
    """The interval rows of all blocks, without those of strangers."""
    none = [np.zeros(0, np.int64)]
    row = np.concatenate([r[b.episode] for b, r in zip(blocks, rows, strict=True)] or none)
    found = _Stretches(
        spans=Spans(
            row=row,
            start=np.concatenate([b.start for b in blocks] or none),
            end=np.concatenate([b.end for b in blocks] or none),
        ),
        column=np.concatenate([b.column for b in blocks] or none),
        version=np.concatenate([b.version for b in blocks] or [np.zeros(0, np.int32)]),
        value=np.concatenate([b.value for b in blocks] or [np.zeros(0)]),
    )
    return found.at(np.flatnonzero(row >= 0))
