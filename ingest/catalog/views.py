"""An in-memory DuckDB with one view per catalog table, locked down for SQL of the user, and the quoting of values and names in SQL."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from ingest.catalog.query_process import QueryLimits
from schemas.catalog import TABLES


def literal(text: str) -> str:
    """A text as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"


def literals(texts: Iterable[str]) -> str:
    """Texts as a list in SQL has them, without its brackets."""
    return ", ".join(map(literal, texts))


def identifier(text: str) -> str:
    """The name of a column or view, whatever characters are in it."""
    return '"' + text.replace('"', '""') + '"'


READABLE = ("catalog", "datasets", "manifests")  # what consumers may read, design.md §4
# Tables that keep every decision ever made, as `<name>_all`; the view `<name>` is what holds now.
HISTORIES = ("verdicts", "tiers", "duplicates")
DERIVED = {
    # A window, not max_by over whole rows: 2.4 s against 8.8 s for 5 million verdicts, and a filter on uid reaches it.
    "verdicts": """FROM verdicts_all QUALIFY
        row_number() OVER (PARTITION BY uid ORDER BY snapshot DESC, attempts DESC, run_id DESC) = 1""",
    # A run gives every episode of its snapshot a tier, so the latest run is all there is to say.
    "tiers": "FROM tiers_all WHERE snapshot = (SELECT max(snapshot) FROM tiers_all)",
    "duplicates": """SELECT * FROM (FROM duplicates_all QUALIFY
        row_number() OVER (PARTITION BY uid ORDER BY snapshot DESC, run_id DESC) = 1) WHERE "cluster" IS NOT NULL""",
    # Only while the copy to keep is there: without it nothing is redundant before `eicorpus dedup` has run again.
    "redundant": """SELECT uid, kept_uid, "cluster", kind, evidence, reason FROM duplicates
        WHERE uid <> kept_uid AND kept_uid IN (SELECT uid FROM episodes)""",
    "quarantine": """SELECT uid, source, dataset, episode_id, code, message, attempts, run_id, snapshot
        FROM verdicts WHERE state = 'quarantined'""",
    "tasks": """SELECT uid, source, dataset, embodiment, unnest(tasks) AS task, unnest(task_counts) AS num_timesteps
        FROM episodes""",
}


def tables_named(sql: str) -> frozenset[str]:
    """The catalog tables that a query can read: every table, and every table behind a view, whose name is a word of it."""
    out: set[str] = set()
    for word in set(re.findall(r"\w+", sql.lower())):
        name = word.removesuffix("_all")
        if name in TABLES:
            out.add(name)
        elif name in DERIVED:
            out |= tables_named(DERIVED[name])
    return frozenset(out)


def connect(limits: QueryLimits) -> duckdb.DuckDBPyConnection:
    config: dict[str, Any] = {
        "memory_limit": f"{limits.memory_mb}MiB",
        "temp_directory": "",  # never spill: a query must not fill the disk
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "allow_community_extensions": "false",
        "python_enable_replacements": "false",
        "threads": limits.threads or pa.cpu_count(),
    }
    connection = without_progress_bar(duckdb.connect(":memory:", config=config))
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def without_progress_bar(connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    """DuckDB writes a bar to standard output after two seconds of a query, which would become part of an answer in JSON. Cursors need it too."""
    connection.execute("SET enable_progress_bar = false")
    return connection


def create_views(connection: duckdb.DuckDBPyConnection, parts: Mapping[str, Sequence[str]]) -> None:
    for table, paths in parts.items():
        declared = connection.from_arrow(TABLES[table].empty_table())
        scan = f"read_parquet([{literals(paths)}], union_by_name = true, hive_partitioning = false)"
        have = set(connection.sql(f"FROM {scan} LIMIT 0").columns) if paths else set()
        columns = ", ".join(
            f"CAST({identifier(column) if column in have else 'NULL'} AS {kind}) AS {identifier(column)}"
            for column, kind in zip(declared.columns, declared.types, strict=True)
        )
        source = f"FROM {scan}" if paths else "LIMIT 0"
        view = f"{table}_all" if table in HISTORIES else table
        connection.execute(f"CREATE VIEW {identifier(view)} AS SELECT {columns} {source}")
    for view, query in DERIVED.items():
        connection.execute(f"CREATE VIEW {identifier(view)} AS {query}")


def lock_down(connection: duckdb.DuckDBPyConnection, corpus: Path) -> None:
    """No way out, and no way to undo it: the order matters, the last setting locks the others."""
    connection.execute("SET VARIABLE corpus = $1", [str(corpus)])
    folders = literals(str(corpus / name) for name in READABLE)
    connection.execute(f"SET allowed_directories = [{folders}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
