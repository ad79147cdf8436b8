"""Rows of a query as JSON values and as CSV, for `eicorpus query` and the service."""

from __future__ import annotations

import base64
import csv
import json
import math
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any, TextIO
from unicodedata import category

import pyarrow as pa

from jobs.ui.tables import escaped

FORMULA_STARTS = (
    "=",
    "+",
    "-",
    "@",
    "\t",
)  # of a cell that spreadsheets run; a carriage return is escaped


def as_object(table: pa.Table, snapshot: int, parquet: Path | None = None) -> dict[str, Any]:
    """The answer of `--json`; with `--parquet` the rows are in the file, not here."""
    rows = [] if parquet else [[json_value(cell) for cell in row] for row in rows_of(table)]
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


def write_csv(
    table: pa.Table, file: TextIO, *, is_raw: bool = False, has_header: bool = True
) -> None:
    """RFC 4180 with a header; lists and structs as JSON, NULL as nothing. `is_raw`: text as it is stored, else harmless."""
    write = plain if is_raw else _harmless
    # Python 3.11 leaves a lone carriage return unquoted, and readers take it for the end of a line.
    writer = csv.writer(
        file, lineterminator="\n", quoting=csv.QUOTE_ALL if is_raw else csv.QUOTE_MINIMAL
    )
    if has_header:
        writer.writerow([write(name) for name in table.column_names])
    writer.writerows([write(cell) for cell in row] for row in rows_of(table))


def _harmless(cell: Any) -> str:
    """Text that commands no terminal (control characters are escaped) and that no spreadsheet runs as a formula (a `'` before it)."""
    text = plain(cell)
    if isinstance(cell, bool | int | float | Decimal) or cell is None:
        return text
    text = "".join(c if c in "\n\t" or category(c) != "Cc" else escaped(c) for c in text)
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def rows_of(table: pa.Table | pa.RecordBatch) -> Any:
    """Rows as tuples: two columns may have the same name, so no dicts."""
    return zip(*(column.to_pylist() for column in table.columns), strict=True)


def plain(cell: Any) -> str:
    if isinstance(cell, float):
        return repr(cell)
    value = json_value(cell)
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
