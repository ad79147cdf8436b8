"""`eicorpus query CORPUS "SQL"`: read-only SQL over one snapshot of the catalog. Worked examples: docs/how-to/query.md."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
import typer

from ingest.catalog.query_process import QueryLimits, answer
from ingest.corpus.layout import open_corpus
from jobs.ui.options import AsJson, CorpusArgument, Snapshot
from jobs.ui.output import answer_json, outside, stderr, stdout
from jobs.ui.query_result import as_object, json_value, plain, rows_of, write_csv
from jobs.ui.tables import FittedTable, nested_text, printable, rounded, vertical
from schemas.errors import ConfigError, system_error_text

HINT = "use --json, --csv or --parquet for everything"


def query(
    corpus: CorpusArgument,
    sql: Annotated[
        str,
        typer.Argument(metavar="SQL", help='A SELECT, "SHOW TABLES" or "DESCRIBE episodes".'),
    ],
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    raw: Annotated[
        bool,
        typer.Option(
            "--raw", help="With --csv: do not escape control characters and spreadsheet formulas."
        ),
    ] = False,
    parquet: Annotated[
        Path | None, typer.Option("--parquet", metavar="FILE", help="Write a Parquet file.")
    ] = None,
    snapshot: Snapshot = None,
    limit_rows: Annotated[
        int, typer.Option(min=1, help="Rows printed as a table. Files get all.")
    ] = 200,
    time_limit_s: Annotated[float, typer.Option("--time-limit-s", help="Time limit.")] = 60.0,
    memory_limit_mb: Annotated[
        int,
        typer.Option(
            "--memory-limit-mb",
            min=1,
            help="Memory limit in MiB. It holds for the running query and for its result, each.",
        ),
    ] = 4096,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of DuckDB. Default: one per core.")
    ] = None,
) -> None:
    """Run a read-only SQL query on the catalog."""
    if as_csv and (as_json or parquet):
        raise ConfigError("--csv cannot be combined with --json or --parquet")
    if raw and not as_csv:
        raise ConfigError("--raw needs --csv; --json and --parquet never escape text")
    if parquet:
        outside(corpus, parquet, "--parquet")
    root = open_corpus(corpus).root
    limits = QueryLimits(timeout_s=time_limit_s, memory_mb=memory_limit_mb, threads=threads)
    result = answer(root, sql, snapshot=snapshot, limits=limits)
    table, number = result.table, result.snapshot
    if number == 0:
        stderr.print("this corpus has no snapshot yet: all tables are empty")
    if parquet:
        write_parquet(table, parquet)
        stderr.print(f"{table.num_rows} rows -> {parquet}", highlight=False, markup=False)
    if as_json:
        answer_json(as_object(table, number, parquet))
    elif as_csv:
        write_csv(table, sys.stdout, is_raw=raw)
    elif not parquet:
        show(table, limit_rows)


def write_parquet(table: pa.Table, path: Path) -> None:
    """Raises ConfigError when the file cannot be made, or Parquet has no such type (a UNION)."""
    try:
        pq.write_table(table, path, compression="zstd")
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(system_error_text(error, str(path)), where=f"--parquet {path}") from error


def show(table: pa.Table, limit_rows: int) -> None:
    """A table on stdout, with a note on what was left out."""
    rows = [[_shown(cell) for cell in row] for row in rows_of(table.slice(0, limit_rows))]
    columns = [printable(name) for name in table.column_names]
    fitted = FittedTable(
        title="",
        columns=columns,
        cells=rows,
        is_number=[_is_number(field.type) for field in table.schema],
        cuts_cells=True,
        hint=HINT,
    )
    is_one_row = table.num_rows == 1 and not fitted.is_fitting(stdout.width)
    stdout.print(vertical(columns, rows[0]) if is_one_row else fitted, soft_wrap=False)
    if any(pa.types.is_nested(field.type) for field in table.schema):
        stderr.print(f"lists and structs may be shortened; {HINT}", highlight=False)
    if table.num_rows > limit_rows:
        stderr.print(
            f"{limit_rows} of {table.num_rows} rows shown; raise --limit-rows, or use --json, --csv or --parquet"
        )


def _is_number(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    )


def _shown(cell: Any) -> str:
    # a catalog holds strings of strangers, which may look like commands to a terminal
    if isinstance(cell, float):
        return rounded(cell)
    return printable(nested_text(json_value(cell)) if _is_nested(cell) else plain(cell))


def _is_nested(cell: Any) -> bool:
    return isinstance(cell, dict | list | tuple)
