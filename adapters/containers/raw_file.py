"""Raw files: fingerprints, and a byte range as a file of its own.

A part of a file as a file of its own: how a member of a tar shard is read without taking it out.

Fingerprints of the raw files an episode was read from (see `schemas.episode.RawFile`).
"""

from __future__ import annotations

import hashlib
import io
import os
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, cast

from schemas.episode import RawFile
from schemas.errors import Code, SourceError, TransientError, system_error_text
from schemas.regular_file import open_regular

# -- byte range ----------------------------------------------------------------------------------------------------


class RangeReader(io.RawIOBase):
    """Bytes [start, end) of a file, read-only and seekable; position 0 is `start`. Close it, or use `with`.

    Raises:
        SourceError: MISSING_FILE, UNREADABLE, or TRUNCATED when the file ends before `end`.
        TransientError: a read failed in the middle.
    """

    def __init__(self, path: Path, start: int, end: int) -> None:
        super().__init__()
        where = f"{path.name}:{start}-{end}"
        self._file = cast(
            io.RawIOBase, open_regular(path, where=where, buffering=0, in_parts=True, end=end)
        )
        size = self._file.seek(0, os.SEEK_END)
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


# -- raw file ------------------------------------------------------------------------------------------------------

MIB = 1 << 20
WHOLE_LIMIT_BYTES = 64 * MIB


def raw_record(path: str, data: bytes | memoryview) -> RawFile:
    """The fingerprint of bytes already in memory, e.g. one record; `path` says where they came from."""
    size = memoryview(data).nbytes
    return RawFile(path=path, num_bytes=size, digest=f"sha256:{hashlib.sha256(data).hexdigest()}")


def raw_file_of(path: Path, root: Path, *, in_parts: bool = False) -> RawFile:
    """The fingerprint of a file, named relative to `root` with forward slashes.

    A file over 64 MiB is fingerprinted by its size in decimal ASCII, its first MiB and its last MiB, because reading
    a shared shard whole for every episode in it would dwarf the work.

    Args:
        in_parts: the file is one of which an episode reads a part.

    Raises:
        SourceError: MISSING_FILE or UNREADABLE.
    """
    name = _relative(path, root)
    try:
        with open_regular(path, where=name, in_parts=in_parts) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            return RawFile(path=name, num_bytes=size, digest=_digest(file, size))
    except OSError as error:
        raise SourceError(
            Code.UNREADABLE, f"cannot be read: {system_error_text(error, name)}", where=name
        ) from error


def raw_part_of(path: Path, root: Path, byte_range: tuple[int, int], name: str) -> RawFile:
    """The fingerprint of bytes [start, end) of a file, by the same rules; `name` says which part it is.

    Raises:
        SourceError: MISSING_FILE, UNREADABLE or TRUNCATED.
    """
    start, end = byte_range
    with BufferedReader(RangeReader(path, start, end)) as part:
        return RawFile(
            path=f"{_relative(path, root)}:{name}",
            num_bytes=end - start,
            digest=_digest(part, end - start),
        )


def _digest(file: BufferedReader[Any] | BinaryIO, size: int) -> str:
    if size <= WHOLE_LIMIT_BYTES:
        whole = hashlib.file_digest(file, "sha256")  # type: ignore[arg-type]  # typeshed asks for more
        return f"sha256:{whole.hexdigest()}"
    ends = hashlib.sha256(str(size).encode())
    ends.update(file.read(MIB))
    file.seek(-MIB, 2)
    ends.update(file.read(MIB))
    return f"sha256-ends:{ends.hexdigest()}"


def _relative(path: Path, root: Path) -> str:
    full, base = Path(os.path.realpath(path)), Path(os.path.realpath(root))  # a loop is no error
    return full.relative_to(base).as_posix() if full.is_relative_to(base) else full.as_posix()
