"""`eicorpus export --to iceberg`: the tables of the latest snapshot as Iceberg tables, each step one Iceberg snapshot that names ours.

A table holds every fact ever written, so what `eicorpus query` calls `verdicts_all`, `tiers_all` and `duplicates_all` has that name here.
What an export did is kept as properties of the table, in the same Iceberg commit as its rows: a second export of one snapshot adds nothing,
and a stopped one resumes with the first table that was not done. Tables are committed one after the other; the property
`eicorpus.snapshot` says of each which snapshot it holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from ingest.catalog.views import HISTORIES
from ingest.corpus.snapshot import Snapshot
from ingest.export.data_file import pieces, written
from ingest.export.warehouse import ExportStep, Mark, Warehouse, step_to, warehouse_errors
from schemas.catalog import TABLES

if TYPE_CHECKING:
    from pyiceberg.manifest import DataFile
    from pyiceberg.table import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """One table: what was done, how many rows were written for it, and how many it holds."""

    table: str
    step: ExportStep
    written: int
    rows: int


def exported_name(table: str) -> str:
    """The name of a table in Iceberg."""
    return f"{table}_all" if table in HISTORIES else table


def export(
    corpus: Path,
    corpus_uid: str,
    current: Snapshot,
    to: Warehouse,
    progress: Callable[[int], None] = lambda tables: None,
) -> list[Exported]:
    """Bring every table to the snapshot. The caller holds the writer lock, so that no part goes meanwhile.

    Raises:
        ConfigError: a table of that name is not ours or of another corpus, a part is damaged, or the catalog refuses.
        TransientError: another process wrote to a table; run again.
    """
    done = []
    for number, table in enumerate(TABLES, start=1):
        name = exported_name(table)
        with warehouse_errors(f"{to.namespace}.{name}"):
            done.append(_export(corpus, table, Mark.of(corpus_uid, current, table), current, to))
        progress(number)
    return done


def _export(corpus: Path, table: str, now: Mark, current: Snapshot, to: Warehouse) -> Exported:
    parts, name = current.parts(table), exported_name(table)
    was = _mark(to, name)
    step = ExportStep.ANEW if was is None else step_to(now, table, parts, was)
    num_written = 0
    if step is ExportStep.ANEW:
        _empty(table, now, to)
    if was != now:
        iceberg_table = to.catalog.load_table((to.namespace, name))
        with iceberg_table.update_schema() as update:
            update.union_by_name(TABLES[table])
        known = {
            ExportStep.NOTHING: len(parts),
            ExportStep.APPEND: was.num_parts if was else 0,
        }.get(step, 0)
        num_written = _write(iceberg_table, pieces(corpus, table, parts[known:]), now, step)
    rows = sum(part.rows for part in parts)
    return Exported(table=name, step=step, written=num_written, rows=rows)


def _mark(to: Warehouse, name: str) -> Mark | None:
    """What a table holds; None where there is none."""
    where = (to.namespace, name)
    if not to.catalog.table_exists(where):
        return None
    return Mark.read(to.catalog.load_table(where).properties, ".".join(where))


def _empty(table: str, now: Mark, to: Warehouse) -> None:
    """A table without rows or history: not even the files of one that was there stay."""
    where = (to.namespace, exported_name(table))
    if to.catalog.table_exists(where):
        to.catalog.purge_table(where)
    to.clear(where[1])
    to.catalog.create_table(where, schema=TABLES[table], properties=now.nothing.properties)


def _write(table: Table, rows: Iterator[pa.Table], now: Mark, step: ExportStep) -> int:
    """Rows and properties in one commit; with rows, one Iceberg snapshot."""
    num_rows = 0
    first = next(rows, None)
    with table.transaction() as transaction:
        old = _files(table) if step is ExportStep.REPLACE else []
        if first is not None or old:
            update = transaction.update_snapshot(snapshot_properties=now.summary)
            with update.overwrite() if old else update.fast_append() as producer:
                for file in old:
                    producer.delete_data_file(file)
                for number, piece in enumerate(_chained(first, rows)):
                    name = f"{producer.commit_uuid}-{number:05d}"
                    producer.append_data_file(written(table, piece, name))
                    num_rows += piece.num_rows
        transaction.set_properties(now.properties)
    return num_rows


def _chained(first: pa.Table | None, rest: Iterable[pa.Table]) -> Iterator[pa.Table]:
    if first is not None:
        yield first
        yield from rest


def _files(table: Table) -> list[DataFile]:
    return [task.file for task in table.scan().plan_files()]
