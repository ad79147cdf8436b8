"""Fingerprints of the raw files an episode was read from (see `schemas.episode.RawFile`)."""

from __future__ import annotations

import hashlib
import os
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

from adapters.containers.byte_range import RangeReader
from schemas.episode import RawFile
from schemas.errors import Code, SourceError, system_error_text
from schemas.regular_file import open_regular

MIB = 1 << 20
WHOLE_LIMIT_BYTES = 64 * MIB


def raw_record(path: str, data: bytes | memoryview) -> RawFile:
    """The fingerprint of bytes already in memory, e.g. one record; `path` says where they came from."""
    size = memoryview(data).nbytes
    return RawFile(path=path, num_bytes=size, digest=f"sha256:{hashlib.sha256(data).hexdigest()}")


def raw_file_of(path: Path, root: Path) -> RawFile:
    """The fingerprint of a file, named relative to `root` with forward slashes.

    A file over 64 MiB is fingerprinted by its size in decimal ASCII, its first MiB and its last MiB, because reading
    a shared shard whole for every episode in it would dwarf the work.

    Raises:
        SourceError: MISSING_FILE or UNREADABLE.
    """
    name = _relative(path, root)
    try:
        with open_regular(path, where=name) as file:
            size = os.fstat(file.fileno()).st_size
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
