"""`*_sync.txt` of HoloAssist: numbers between tabs, one row a video frame; only the rows of one segment are read.

    column 0     k / 30 s, the nominal time of frame k; not used, it drifts from the true one
    column 1     ticks of 100 ns since the year 1, when the row was measured; beyond 2^53, so never a float
    the rest     float64
Checked on a real Pose_sync.txt: ticks increase by 33.33 ms and stand still over the last rows, which repeat the row before
(padding up to the length of the video). Files of hands reach 500 MB, so the rows are found by bisection on the ticks.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import csv

from schemas.errors import Code, SourceError, system_error_text
from schemas.geometry import Array
from schemas.regular_file import open_regular

NS_PER_TICK = 100
TICKS_PER_S = 10_000_000
TICK_COLUMN = 1
MAX_LINE_BYTES = 64 << 10  # 471 numbers of 24 characters are 11 KiB
MAX_SLICE_BYTES = 256 << 20  # a segment of 300 s are 85 MB


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SyncRows:
    """Rows of [start, end): `ticks` [N >= 0] strictly increasing, `values` [N, C - 2]; `num_repeated` were left out."""

    ticks: npt.NDArray[np.int64]
    values: Array
    num_repeated: int


def rows_between(path: Path, start: int, end: int, num_columns: tuple[int, ...]) -> SyncRows:
    """The rows measured in [start, end) ticks. Of rows with one tick the first counts: the others are padding.

    Raises:
        SourceError: MISSING_FILE; UNKNOWN_LAYOUT, another number of columns; CORRUPT_RECORD, not numbers; TRUNCATED, a row
            that breaks off; CLOCK_NOT_INCREASING; TOO_LARGE.
    """
    try:
        with open_regular(path) as file:
            columns = len(_line(file, path.name).split())
            if columns not in num_columns:
                problem = f"{columns} columns; expected one of {list(num_columns)}"
                raise SourceError(Code.UNKNOWN_LAYOUT, problem, where=path.name)
            size = os.fstat(file.fileno()).st_size
            first = _offset_of(file, start, size, path.name)
            last = _offset_of(file, end, size, path.name)
            if last - first > MAX_SLICE_BYTES:
                problem = (
                    f"{last - first} bytes for one segment; expected at most {MAX_SLICE_BYTES}"
                )
                raise SourceError(Code.TOO_LARGE, problem, where=path.name)
            file.seek(first)
            data = file.read(last - first)
    except OSError as error:
        raise SourceError(
            Code.UNREADABLE,
            f"cannot be read: {system_error_text(error, path.name)}",
            where=path.name,
        ) from error
    if not data.strip():
        nothing = np.zeros(0, dtype=np.int64)
        return SyncRows(ticks=nothing, values=np.zeros((0, columns - 2)), num_repeated=0)
    return _distinct(*_parsed(data, columns, path.name), where=path.name)


def _line(file: BinaryIO, where: str) -> bytes:
    line = file.readline(MAX_LINE_BYTES)
    if len(line) == MAX_LINE_BYTES:
        raise SourceError(
            Code.UNKNOWN_LAYOUT, "a line without end; expected a text table", where=where
        )
    return line


def _offset_of(file: BinaryIO, tick: int, size: int, where: str) -> int:
    """Where the first line at or after `tick` begins; `size` when there is none."""
    low, high = 0, size
    while low < high:
        middle = (low + high) // 2
        begin, tick_after = _tick_after(file, middle, where)
        low, high = (low, middle) if tick_after >= tick else (begin + 1, high)
    return _tick_after(file, low, where)[0]


def _tick_after(file: BinaryIO, offset: int, where: str) -> tuple[int, int]:
    """Begin and tick of the first line that begins at or after `offset`; the end counts as later than all."""
    file.seek(max(offset - 1, 0))
    if offset:
        _line(file, where)  # the rest of the line before, or just its end
    begin = file.tell()
    fields = _line(file, where).split(maxsplit=TICK_COLUMN + 1)
    if not fields:
        return begin, np.iinfo(np.int64).max
    try:
        return begin, int(fields[TICK_COLUMN])
    except (IndexError, ValueError) as error:
        problem = f"the line at byte {begin} has no ticks"
        raise SourceError(Code.CORRUPT_RECORD, problem, where=where) from error


def _parsed(data: bytes, columns: int, where: str) -> tuple[npt.NDArray[np.int64], Array]:
    """ticks [N], values [N, C - 2] of whole lines."""
    types = {f"f{k}": pa.int64() if k == TICK_COLUMN else pa.float64() for k in range(columns)}
    try:
        table = csv.read_csv(
            pa.BufferReader(data),
            read_options=csv.ReadOptions(autogenerate_column_names=True, use_threads=False),
            parse_options=csv.ParseOptions(delimiter="\t"),
            convert_options=csv.ConvertOptions(column_types=types),
        )
    except pa.ArrowInvalid as error:
        is_cut = not data.endswith(b"\n") and "columns" in str(error)
        code = Code.TRUNCATED if is_cut else Code.CORRUPT_RECORD
        raise SourceError(code, f"not a table of numbers: {error}", where=where) from error
    if table.num_columns != columns or table.column(TICK_COLUMN).null_count:
        raise SourceError(
            Code.CORRUPT_RECORD, "a row has a different width or no tick", where=where
        )
    ticks, *rest = [table.column(k).to_numpy() for k in range(TICK_COLUMN, columns)]
    return ticks.astype(np.int64), np.column_stack(rest)


def _distinct(ticks: npt.NDArray[np.int64], values: Array, *, where: str) -> SyncRows:
    steps = np.diff(ticks)
    if (steps < 0).any():
        at = int(np.flatnonzero(steps < 0)[0])
        problem = f"ticks must increase, but {ticks[at + 1]} follows {ticks[at]}"
        raise SourceError(Code.CLOCK_NOT_INCREASING, problem, where=where)
    is_new = np.concatenate([[True], steps > 0])
    return SyncRows(ticks=ticks[is_new], values=values[is_new], num_repeated=int((~is_new).sum()))
