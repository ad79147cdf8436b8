"""Numbers from a pickle of a source: type and count are checked."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from schemas.errors import Code, SourceError
from schemas.geometry import Array


def numbers(value: Any, shape: tuple[int, ...], where: str) -> Array:
    """A pickled array or tensor as float64 of `shape`; extra axes of length 1 are taken off, NaN is let through.

    Raises:
        SourceError: CORRUPT_RECORD for what is no array of numbers, SHAPE_MISMATCH.
    """
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu":
        problem = f"the file contains {_kind(value)}; expected a numeric array"
        raise SourceError(Code.CORRUPT_RECORD, problem, where=where)
    if [n for n in value.shape if n != 1] != [n for n in shape if n != 1]:
        problem = f"the array has shape {list(value.shape)}; expected {list(shape)}"
        raise SourceError(Code.SHAPE_MISMATCH, problem, where=where)
    assert value.size == math.prod(shape)
    return np.asarray(value, dtype=np.float64).reshape(shape)


def mapping(value: Any, where: str) -> dict[Any, Any]:
    """A pickled dict.

    Raises:
        SourceError: UNKNOWN_LAYOUT.
    """
    if not isinstance(value, dict):
        raise SourceError(
            Code.UNKNOWN_LAYOUT, f"the file contains {_kind(value)}; expected a dict", where=where
        )
    return value


def _kind(value: Any) -> str:
    return (
        f"an array of {value.dtype}"
        if isinstance(value, np.ndarray)
        else f"a {type(value).__name__}"
    )
