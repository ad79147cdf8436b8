"""A .npy file of plain numbers. Objects in it are refused, and what its header claims is held against the file's size."""

from __future__ import annotations

from pathlib import Path
from tokenize import TokenError

import numpy as np
from numpy.lib import format as npy_format

from schemas.errors import Code, SourceError, system_error_text
from schemas.geometry import Array
from schemas.regular_file import check_regular

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
