"""RH20T's npy files: most hold one pickled dict, a few a plain array. Rows of all cameras become one clock."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from adapters.containers.restricted_pickle import load_npy_object
from schemas.errors import Code, SourceError
from schemas.geometry import Array
from schemas.regular_file import is_there

NS_PER_MS = 1_000_000
EARLIEST_MS, LATEST_MS = 10**12, 10**13  # 2001 to 2286: seconds and nanoseconds fall outside
MAX_ROWS = 1_000_000  # a day of ten cameras


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StampedSamples:
    """`ms` [N] int64 epoch milliseconds, strictly increasing; `values` [N, width] float64, NaN allowed."""

    ms: npt.NDArray[np.int64]
    values: Array

    def until(self, finish_ms: int | None, where: str) -> StampedSamples:
        """What was recorded up to and with `finish_ms`; all of it if none is stated.

        Raises:
            SourceError: EMPTY_EPISODE.
        """
        if finish_ms is None:
            return self
        kept = self.ms <= finish_ms
        if not kept.any():
            problem = f"its first row, at {self.ms[0]} ms, is after the end of the scene at {finish_ms} ms"
            raise SourceError(Code.EMPTY_EPISODE, problem, where=where)
        return StampedSamples(ms=self.ms[kept], values=self.values[kept])


def load_dict(path: Path, where: str) -> dict[Any, Any]:
    """The dict in an npy file; its pickle can build plain containers and arrays only.

    Raises:
        SourceError: MISSING_FILE, UNKNOWN_LAYOUT (something else than a dict), or as `load_npy_object`.
    """
    if not is_there(path):
        raise SourceError(Code.MISSING_FILE, "it is missing; download it", where=where)
    value = load_npy_object(path)
    if not isinstance(value, dict):
        problem = f"the file contains a {type(value).__name__}; expected a dict"
        raise SourceError(Code.UNKNOWN_LAYOUT, problem, where=where)
    return value


def stamps_ms(stamps: Any, where: str) -> npt.NDArray[np.int64]:
    """[N] int64 epoch milliseconds out of a list or array of them.

    Raises:
        SourceError: CORRUPT_RECORD (no whole numbers), UNKNOWN_LAYOUT (not in milliseconds), TOO_LARGE.
    """
    if not isinstance(stamps, (list, tuple, np.ndarray)) or len(stamps) > MAX_ROWS:
        problem = f"timestamps are a {type(stamps).__name__}; expected a list of at most {MAX_ROWS}"
        raise SourceError(Code.CORRUPT_RECORD, problem, where=where)
    try:
        ms = np.asarray(stamps if len(stamps) else np.zeros(0, dtype=np.int64))
    except ValueError as error:
        raise SourceError(Code.CORRUPT_RECORD, f"stamps: {error}", where=where) from error
    if ms.ndim != 1 or ms.dtype.kind not in "iuf" or not np.array_equal(ms, np.round(ms)):
        problem = f"timestamps are {ms.dtype} {list(ms.shape)}; expected integer milliseconds"
        raise SourceError(Code.CORRUPT_RECORD, problem, where=where)
    if ms.size and not EARLIEST_MS <= ms.min() <= ms.max() < LATEST_MS:
        problem = f"timestamps from {ms.min()} to {ms.max()}; expected milliseconds since 1970"
        raise SourceError(Code.UNKNOWN_LAYOUT, problem, where=where)
    return ms.astype(np.int64)


def samples_of(rows: Iterable[tuple[Any, Any]], width: int, where: str) -> StampedSamples:
    """(stamp, values) of all cameras on one clock; of rows with one stamp the first is kept, as the robot has one state.

    `values` may have more than `width` elements: those beyond are not read.

    Raises:
        SourceError: EMPTY_EPISODE, CORRUPT_RECORD, SHAPE_MISMATCH, or as `stamps_ms`.
    """
    pairs = list(rows)
    if not pairs:
        raise SourceError(Code.EMPTY_EPISODE, "no rows", where=where)
    ms = stamps_ms([stamp for stamp, _ in pairs], where)
    try:
        values = np.array([np.asarray(v, dtype=np.float64)[:width] for _, v in pairs])
    except (ValueError, TypeError, IndexError) as error:
        raise SourceError(Code.CORRUPT_RECORD, f"rows: {error}", where=where) from error
    if values.shape != (len(ms), width):
        problem = f"rows have shape {list(values.shape)}; expected [{len(ms)}, at least {width}]"
        raise SourceError(Code.SHAPE_MISMATCH, problem, where=where)
    unique, first = np.unique(ms, return_index=True)
    return StampedSamples(ms=unique, values=values[first])
