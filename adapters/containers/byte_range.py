"""A part of a file as a file of its own: how a member of a tar shard is read without taking it out."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import cast

from schemas.errors import Code, SourceError, TransientError, system_error_text
from schemas.regular_file import open_regular


class RangeReader(io.RawIOBase):
    """Bytes [start, end) of a file, read-only and seekable; position 0 is `start`. Close it, or use `with`.

    Raises:
        SourceError: MISSING_FILE, UNREADABLE, or TRUNCATED when the file ends before `end`.
        TransientError: a read failed in the middle.
    """

    def __init__(self, path: Path, start: int, end: int) -> None:
        super().__init__()
        where = f"{path.name}:{start}-{end}"
        self._file = cast(io.RawIOBase, open_regular(path, where=where, buffering=0))
        size = os.fstat(self._file.fileno()).st_size
        if not 0 <= start <= end <= size:
            self._file.close()
            problem = f"the file has {size} bytes; download it again"
            raise SourceError(Code.TRUNCATED, problem, where=where)
        self._start, self._size, self._at, self._where = start, end - start, 0, where

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"{self._where}: seek to {base + offset}")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        """Fill `buffer` as far as the range goes; 0 at its end. Short reads are allowed, as in any raw file."""
        view = memoryview(buffer)[: max(0, self._size - self._at)]
        if not view:
            return 0
        try:
            self._file.seek(self._start + self._at)
            count = self._file.readinto(view)
        except OSError as error:
            raise TransientError(
                f"reading failed: {system_error_text(error, self._where)}", where=self._where
            ) from error
        self._at += count or 0
        return count or 0

    def close(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()
        super().close()


def read_range(path: Path, start: int, end: int, *, limit: int) -> bytes:
    """All bytes [start, end) of a file.

    Raises:
        SourceError: TOO_LARGE over `limit` bytes, else as `RangeReader`.
    """
    if end - start > limit:
        problem = f"{end - start} bytes; expected at most {limit}"
        raise SourceError(Code.TOO_LARGE, problem, where=f"{path.name}:{start}-{end}")
    with RangeReader(path, start, end) as reader:
        return io.BufferedReader(reader).read(end - start)
