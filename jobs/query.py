"""`eicorpus query "SQL" --corpus CORPUS`: read-only SQL over one snapshot of the catalog. Worked examples: docs/query.md."""

from __future__ import annotations

import base64
import csv
import json
import math
import sys
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ingest.catalog import Catalog
from ingest.catalog_views import Limits
from ingest.corpus import open_corpus
from jobs.output import answer_json, outside, stderr
from schemas.errors import ConfigError

PIPE_COLUMNS = 10_000  # a pipe has no width: the table is as wide as its cells


def query(
    sql: Annotated[str, typer.Argument(help='One SELECT, "SHOW TABLES" or "DESCRIBE episodes".')],
    corpus: Annotated[Path, typer.Option("--corpus", help="The corpus.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV on standard output.")] = False,
    parquet: Annotated[
        Path | None, typer.Option("--parquet", help="Write a Parquet file instead.")
    ] = None,
    snapshot: Annotated[
        int | None, typer.Option(min=1, help="Ask this snapshot. Default: the latest.")
    ] = None,
    limit_rows: Annotated[int, typer.Option(min=1, help="Rows that the table shows.")] = 200,
    timeout_s: Annotated[float, typer.Option("--timeout-s", help="Stop after so long.")] = 60.0,
    memory_mb: Annotated[
        int, typer.Option("--memory-mb", min=1, help="Of the work, and of the result.")
    ] = 4096,
    threads: Annotated[int | None, typer.Option(min=1, help="Default: all cores.")] = None,
) -> None:
    """Ask the catalog in SQL. It only reads."""
    if as_csv and (as_json or parquet):
        raise ConfigError("--csv does not go with --json or --parquet; choose one")
    if parquet:
        outside(corpus, parquet, "--parquet")
    open_corpus(corpus)
    limits = Limits(timeout_s=timeout_s, memory_mb=memory_mb, threads=threads)
    with Catalog.open(corpus, snapshot=snapshot, limits=limits) as catalog:
        table = catalog.arrow(sql)
        number = catalog.snapshot
    if number == 0:
        stderr.print("nothing was committed to this corpus yet: all tables are empty")
    if parquet:
        write_parquet(table, parquet)
        stderr.print(f"{table.num_rows} rows -> {parquet}", highlight=False, markup=False)
    if as_json:
        answer_json(as_object(table, number, parquet))
    elif as_csv:
        write_csv(table, sys.stdout)
    elif not parquet:
        show(table, limit_rows)


def as_object(table: pa.Table, snapshot: int, parquet: Path | None = None) -> dict[str, Any]:
    """The answer of `--json`; with `--parquet` the rows are in the file, not here."""
    rows = [] if parquet else [[json_value(cell) for cell in row] for row in _rows(table)]
    out = {"columns": table.column_names, "rows": rows, "num_rows": table.num_rows}
    file = {"parquet": str(parquet)} if parquet else {}
    return {**out, "snapshot": snapshot, **file}


def json_value(value: Any) -> Any:
    """A cell as valid JSON: lists and structs stay, NaN and infinities become null (JSON has none), times are ISO 8601,
    bytes base64, a whole DECIMAL (what SUM of integers returns) an integer, any other a float."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {str(key): json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):  # a MAP is a list of pairs
        return [json_value(item) for item in value]
    return str(value)


def write_csv(table: pa.Table, file: TextIO) -> None:
    """RFC 4180 with a header; lists and structs as JSON, NULL as nothing."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(table.column_names)
    writer.writerows([_plain(cell) for cell in row] for row in _rows(table))


def write_parquet(table: pa.Table, path: Path) -> None:
    """Raises ConfigError when the file cannot be made, or Parquet has no such type (a UNION)."""
    try:
        pq.write_table(table, path, compression="zstd")
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(str(error), where=f"--parquet {path}") from error


def show(table: pa.Table, limit_rows: int) -> None:
    """A table for people on stdout; what was left out is said on stderr."""
    console = Console() if sys.stdout.isatty() else Console(width=PIPE_COLUMNS)
    out = Table(show_edge=False, pad_edge=False)
    for field in table.schema:
        is_number = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
        is_number = is_number or pa.types.is_decimal(field.type)
        justify: Any = "right" if is_number else "left"
        out.add_column(Text(field.name), justify=justify, overflow="fold")
    for row in _rows(table.slice(0, limit_rows)):
        # Text, not str: a catalog holds strings of strangers, which may look like markup or terminal commands
        out.add_row(*(Text(_printable(_plain(cell))) for cell in row))
    console.print(out)
    if table.num_rows > limit_rows:
        stderr.print(
            f"{limit_rows} of {table.num_rows} rows shown; --limit-rows, --csv, --json and --parquet give more"
        )


def _rows(table: pa.Table) -> Any:
    """Rows as tuples: two columns may have the same name, so no dicts."""
    return zip(*(column.to_pylist() for column in table.columns), strict=True)


def _plain(cell: Any) -> str:
    if isinstance(cell, float):
        return repr(cell)
    value = json_value(cell)
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
