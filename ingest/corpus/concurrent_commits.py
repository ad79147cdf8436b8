"""A commit to a bucket after another machine's took its number: whether both can stand, and its rows under the later number."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from ingest.corpus import snapshot
from ingest.corpus.commit_log import Change, Conflict, LogEntry
from ingest.corpus.snapshot import Part
from ingest.corpus.working_copy import WorkingCopy
from schemas.catalog import TABLES
from schemas.errors import Code, SourceError
from schemas.parquet_file import read_table

# Rows say under which number they were committed. A commit that moves to a later number writes them again.
NUMBERED = ("verdicts", "tiers", "policies", "duplicates", "dedups")


def check_disjoint(copy: WorkingCopy, change: Change, other: LogEntry) -> None:
    """
    Raises:
        Conflict: both add rows of one episode to one table.
    """
    try:
        copy.get_parts(part for _, part in other.change.parts)
    except SourceError as error:
        if error.code is not Code.MISSING_FILE:
            raise
        raise Conflict(
            "what another writer committed was erased since",
            remedy="run the same command again; no data is lost",
            where=copy.link.uri,
        ) from error
    _check_none_erased(copy, change, other)
    for table in sorted({*change.added} & {*other.change.added}):
        if "uid" not in TABLES[table].names:
            continue
        ours, theirs = (_uids(copy, each.added[table]) for each in (change, other.change))
        if len(both := ours & theirs):
            raise Conflict(
                f"another writer has committed {len(both)} of these episodes first ({table})",
                remedy="run the same command again; no data is lost",
                where=copy.link.uri,
            )


def _check_none_erased(copy: WorkingCopy, change: Change, other: LogEntry) -> None:
    """
    Raises:
        Conflict: rows of the change are of episodes that the other entry erases.
    """
    erased = _uids(copy, other.change.added.get("tombstones", ()))
    for table in sorted(change.added) if erased else ():
        if "uid" not in TABLES[table].names or table == "tombstones":
            continue
        if len(both := erased & _uids(copy, change.added[table])):
            for _, part in change.parts:  # ours alone, and another entry has its number
                copy.store.delete(part.path)
            raise Conflict(
                f"{len(both)} of these episodes were erased meanwhile ({table})",
                remedy="run the same command again",
                where=copy.link.uri,
            )


def _uids(copy: WorkingCopy, parts: Iterable[Part]) -> set[str]:
    tables = [read_table(part.file(copy.root), ["uid"])["uid"] for part in parts]
    return {uid for each in tables for uid in pc.unique(each).to_pylist()} - {"", None}


def renumbered(copy: WorkingCopy, change: Change, before: int, number: int) -> Change:
    """The same rows, committed under another number."""
    if not {*change.added} & {*NUMBERED}:
        return change
    added = dict(change.added)
    for table in NUMBERED:
        if table in added:
            added[table] = tuple(
                _part_renumbered(copy, table, part, before, number) for part in added[table]
            )
    return replace(change, added=added)


def _part_renumbered(copy: WorkingCopy, table: str, part: Part, before: int, number: int) -> Part:
    rows = read_table(part.file(copy.root), TABLES[table].names)
    column = rows["snapshot"]
    moved = pc.if_else(pc.equal(column, before), pa.scalar(number, pa.int64()), column)
    index = rows.schema.get_field_index("snapshot")
    rows = rows.set_column(index, rows.schema.field(index), moved).cast(TABLES[table])
    return snapshot.write_tables(copy.disk, copy.root, table, [rows])
