"""Files of plain numbers: .npy arrays and columns of a CSV file.

A .npy file of plain numbers. Objects in it are refused, and what its header claims is held against the file's size.

Named columns of a numeric CSV file as arrays. A minute of a 1 kHz trajectory has 60,000 rows: this is no place for loops.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from numpy.lib import format as npy_format

from adapters.containers.raw_file import raw_record
from schemas.episode import RawFile
from schemas.errors import Code, SourceError, system_error_text
from schemas.geometry import Array
from schemas.regular_file import check_regular, read_regular

# -- npy array -----------------------------------------------------------------------------------------------------

MAX_BYTES = 512 << 20
# numpy reads the header as a Python literal: each parser has its own way to fail.
_BROKEN = (EOFError, KeyError, ValueError, TypeError, SyntaxError, TokenError, RecursionError)


def npy_array(path: Path, where: str, *, max_bytes: int = MAX_BYTES) -> Array:
    """The array of a .npy file as float64, of any shape; NaN is let through.

    Raises:
        SourceError: MISSING_FILE, UNREADABLE, TOO_LARGE, CORRUPT_RECORD (no .npy, cut off, or no numbers in it).
    """
    try:
        size = check_regular(path, where=where)
        if size > max_bytes:
            problem = f"{size} bytes; expected at most {max_bytes}"
            raise SourceError(Code.TOO_LARGE, problem, where=where)
        # Mapped, not read: a header that claims more than the file holds fails before anything is allocated.
        mapped = npy_format.open_memmap(path, mode="r")
        if mapped.dtype.kind not in "fiu":
            problem = f"the file contains {mapped.dtype}; expected numbers"
            raise SourceError(Code.CORRUPT_RECORD, problem, where=where)
        return np.array(mapped, dtype=np.float64)
    except OSError as error:
        raise SourceError(
            Code.UNREADABLE, f"cannot be read: {system_error_text(error, where)}", where=where
        ) from error
    except _BROKEN as error:
        problem = f"not a .npy file of numbers: {str(error)[:200]}; download it again"
        raise SourceError(Code.CORRUPT_RECORD, problem, where=where) from error


# -- csv columns ---------------------------------------------------------------------------------------------------

LIMIT_BYTES = 4 << 30  # an hour of Aria's closed loop trajectory is about 1 GB
INT, FLOAT, TEXT = pl.Int64, pl.Float64, pl.String


def csv_columns(
    path: Path, where: str, columns: Mapping[str, Any], *, optional: Mapping[str, Any] | None = None
) -> tuple[dict[str, npt.NDArray[Any]], RawFile]:
    """The `columns` (name -> INT, FLOAT or TEXT), those of `optional` that are there, and the file's fingerprint.

    Times are read as int64: ns since boot do not fit a float. Other columns are not parsed.

    Raises:
        SourceError: MISSING_FILE, TOO_LARGE, MISSING_CHANNEL (a column is not there), TRUNCATED (a row breaks off),
            EMPTY_EPISODE (no row), CORRUPT_RECORD (no such number).
    """
    data = read_regular(path, max_bytes=LIMIT_BYTES, where=where)
    header = data.partition(b"\n")[0].decode("utf-8", "replace").strip().split(",")
    if missing := [name for name in columns if name not in header]:
        raise SourceError(Code.MISSING_CHANNEL, f"the header has no column {missing}", where=where)
    types = {k: v for k, v in {**(optional or {}), **columns}.items() if k in header}
    try:
        table = pl.read_csv(data, columns=list(types), schema_overrides=types)
    except (pl.exceptions.PolarsError, ValueError) as error:
        problem = f"a row does not match the header: {str(error).splitlines()[0][:200]}"
        raise SourceError(Code.CORRUPT_RECORD, problem, where=where) from error
    if table.height == 0:
        raise SourceError(Code.EMPTY_EPISODE, "no rows", where=where)
    if any(table[name].null_count() for name in types):
        raise SourceError(Code.TRUNCATED, "an empty field: the file is truncated", where=where)
    return {name: np.asarray(table[name].to_numpy()) for name in types}, raw_record(where, data)
