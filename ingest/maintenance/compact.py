"""`eicorpus compact`: small parts of each table become larger ones, under a new snapshot. Not a row changes, and no reader can tell.

Which rows of an episode were committed first is part of what its digest means (ingest/corpus/committed_episodes.py: the first part that mentions a uid),
so only parts that share no uid are merged, and what came later stays behind. Parts are merged in their order; those of other columns
stay apart. Old parts stay for older snapshots until `eicorpus gc`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from ingest.corpus import publishing, snapshot
from ingest.corpus.committed_episodes import uids_of
from ingest.corpus.layout import CorpusLayout
from ingest.corpus.snapshot import Part, Snapshot, content_of
from ingest.storage.local import LocalStorage
from schemas.catalog import TABLES
from schemas.parquet_file import read_batches, read_schema

SMALL_BYTES = 32 * 2**20  # a part of at least this is left alone
TARGET_BYTES = 128 * 2**20  # of a merged part, before it is compressed again
ROW_GROUP_ROWS = 131_072
ROW_GROUP_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Merge:
    """The parts of a table in their new order: a group of several becomes one part."""

    table: str
    groups: tuple[tuple[Part, ...], ...]

    @property
    def before(self) -> int:
        return sum(len(group) for group in self.groups)


def plan_merges(corpus: Path, current: Snapshot) -> list[Merge]:
    """What there is to merge; tables in which nothing is, are left out."""
    merges = [_merge(corpus, current, table) for table in TABLES]
    return [merge for merge in merges if len(merge.groups) < merge.before]


def _merge(corpus: Path, current: Snapshot, table: str) -> Merge:
    parts = current.parts(table)
    if len(parts) < 2:
        return Merge(table=table, groups=tuple((part,) for part in parts))
    levels = _levels(corpus, current, table)
    layers: dict[int, list[Part]] = {}
    for part, level in zip(parts, levels, strict=True):
        layers.setdefault(level, []).append(part)
    groups = [group for level in sorted(layers) for group in _packed(corpus, layers[level])]
    return Merge(table=table, groups=tuple(groups))


def _levels(corpus: Path, current: Snapshot, table: str) -> list[int]:
    """How many parts before each must stay before it: parts of one level share no uid. "" belongs to whole datasets."""
    parts = current.parts(table)
    if "uid" not in TABLES[table].names:
        return [0] * len(parts)
    frame = uids_of(corpus, current, table).filter(pl.col("uid") != "")
    frame = frame.with_columns(code=pl.col("uid").rank("dense").cast(pl.Int64) - 1)
    codes = frame.partition_by("part", as_dict=True)
    next_level = np.zeros(frame["uid"].n_unique(), dtype=np.int64)
    levels = []
    for number in range(len(parts)):
        own = codes[(number,)]["code"].to_numpy() if (number,) in codes else np.zeros(0, np.int64)
        level = int(next_level[own].max(initial=0))
        next_level[own] = level + 1
        levels.append(level)
    return levels


def _packed(corpus: Path, parts: Sequence[Part]) -> Iterator[tuple[Part, ...]]:
    """Neighbours that are small, have the same columns, and together are not too large."""
    group: list[Part] = []
    num_bytes = 0
    columns: pa.Schema | None = None
    for part in parts:
        schema = read_schema(part.file(corpus))
        fits = num_bytes + part.num_bytes <= TARGET_BYTES and schema == columns
        if group and not (fits and part.num_bytes < SMALL_BYTES):
            yield tuple(group)
            group, num_bytes = [], 0
        group.append(part)
        num_bytes += part.num_bytes
        # a large part stands alone
        columns = schema if part.num_bytes < SMALL_BYTES else None
    if group:
        yield tuple(group)


def compact(
    corpus: CorpusLayout,
    disk: LocalStorage,
    current: Snapshot,
    merges: Sequence[Merge],
    run_id: str,
) -> Snapshot:
    """Write the merged parts and commit them. The caller holds the writer lock.

    Raises:
        TransientError: another writer was first; nothing was changed.
    """
    if not merges:
        return current
    tables: dict[str, Sequence[Part]] = {name: current.parts(name) for name in TABLES}
    for merge in merges:
        tables[merge.table] = [_written(corpus.root, disk, merge.table, g) for g in merge.groups]
    return publishing.publish_tables(disk, corpus.root, current, tables, run_id)


def _written(corpus: Path, disk: LocalStorage, table: str, group: Sequence[Part]) -> Part:
    if len(group) == 1:
        return group[0]
    schema = read_schema(group[0].file(corpus))
    merged = snapshot.write_tables(disk, corpus, table, _rows(corpus, group), schema=schema)
    return replace(merged, content=content_of(group))


def _rows(corpus: Path, group: Sequence[Part]) -> Iterator[pa.Table]:
    """The rows in their order, in pieces that make good row groups whatever the parts were cut into."""
    waiting: list[pa.RecordBatch] = []
    rows = num_bytes = 0
    for part in group:
        for batch in read_batches(part.file(corpus), ROW_GROUP_ROWS):
            waiting.append(batch)
            rows, num_bytes = rows + batch.num_rows, num_bytes + batch.nbytes
            if rows >= ROW_GROUP_ROWS or num_bytes >= ROW_GROUP_BYTES:
                yield pa.Table.from_batches(waiting)
                waiting, rows, num_bytes = [], 0, 0
    if waiting:
        yield pa.Table.from_batches(waiting)


def count_parts(merges: Sequence[Merge], current: Snapshot) -> list[Mapping[str, str | int]]:
    """Parts of each table before and after."""
    after = {merge.table: len(merge.groups) for merge in merges}
    return [
        {
            "table": table,
            "rows": sum(part.rows for part in current.parts(table)),
            "parts": len(current.parts(table)),
            "parts_after": after.get(table, len(current.parts(table))),
        }
        for table in TABLES
        if current.parts(table)
    ]
