"""`eicorpus snapshot diff A B`: which rows came and went, whatever parts hold them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import duckdb

from ingest.catalog.query_process import QueryLimits
from ingest.catalog.views import HISTORIES, connect, create_views
from ingest.corpus.snapshot import Part, Snapshot
from schemas.catalog import TABLES
from schemas.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class TableChange:
    """Rows of a table in both snapshots, and how many only one of them has."""

    table: str
    rows_a: int
    rows_b: int
    added: int
    removed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotDiff:
    """`added` and `removed` are (uid, source, episode_id) of episodes that only one of the two has, sorted by uid."""

    tables: tuple[TableChange, ...]
    added: tuple[tuple[str, str, str], ...]
    removed: tuple[tuple[str, str, str], ...]


def snapshot_diff(
    corpus: Path, a: Snapshot, b: Snapshot, limits: QueryLimits | None = None
) -> SnapshotDiff:
    """Compare two snapshots. Only parts that are not in both are read.

    Raises:
        ConfigError: a part is missing or damaged, or the memory limit was reached.
    """
    with connect(limits or QueryLimits()) as connection:
        try:
            for name, side, other in (("a", a, b), ("b", b, a)):
                connection.execute(f"CREATE SCHEMA {name}; SET schema = '{name}'")
                only = {t: _paths(corpus, _less(side.parts(t), other.parts(t))) for t in TABLES}
                create_views(connection, only)
            tables = tuple(_change(connection, table, a, b) for table in TABLES)
            return SnapshotDiff(
                tables=tables,
                added=_episodes(connection, "b", "a"),
                removed=_episodes(connection, "a", "b"),
            )
        except duckdb.Error as error:
            raise ConfigError(
                f"the snapshots cannot be compared: {error}",
                remedy="run `eicorpus verify CORPUS` to list the damage",
                where=str(corpus),
            ) from error


def _less(parts: Iterable[Part], others: Iterable[Part]) -> list[Part]:
    shared = {part.path for part in others}
    return [part for part in parts if part.path not in shared]


def _paths(corpus: Path, parts: Iterable[Part]) -> list[str]:
    return [str(part.file(corpus)) for part in parts]


def _change(
    connection: duckdb.DuckDBPyConnection, table: str, a: Snapshot, b: Snapshot
) -> TableChange:
    view = f"{table}_all" if table in HISTORIES else table
    return TableChange(
        table=table,
        rows_a=sum(part.rows for part in a.parts(table)),
        rows_b=sum(part.rows for part in b.parts(table)),
        added=_only_in(connection, view, "b", "a"),
        removed=_only_in(connection, view, "a", "b"),
    )


def _only_in(connection: duckdb.DuckDBPyConnection, view: str, one: str, other: str) -> int:
    sql = f'SELECT count(*) FROM (FROM {one}."{view}" EXCEPT ALL FROM {other}."{view}")'
    return int(connection.sql(sql).fetchall()[0][0])


def _episodes(
    connection: duckdb.DuckDBPyConnection, one: str, other: str
) -> tuple[tuple[str, str, str], ...]:
    sql = f"""SELECT uid, source, episode_id FROM {one}.episodes
        WHERE uid NOT IN (SELECT uid FROM {other}.episodes) ORDER BY uid"""
    return tuple((str(a), str(b), str(c)) for a, b, c in connection.sql(sql).fetchall())
