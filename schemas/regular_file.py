"""Files of other people: a regular file is opened, anything else is refused with a code. Opening never waits.

A FIFO in a raw data folder blocks a plain `open()` endlessly, a device can have side effects, and a link of git-annex, DVC or a
hub cache can point to a file that was never fetched. A link is followed when a regular file is at its end; whether that file
may lie outside the root is decided by `adapters.containers.safe_path.inside`.

Raw data of a bucket is a tree of placeholders: sparse files of the true size. Opening one here fetches it (`ingest.raw_data`), and
where nothing fetches it is refused, so that no reader takes its zeros for data. With `in_parts` only what is read is fetched.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from schemas.errors import Code, SourceError, TransientError, system_error_text

LFS_HEAD = b"version https://git-lfs"
LFS_MAX_BYTES = 1024  # the specification of git-LFS: a pointer is shorter
# The same call may succeed in a moment: network storage, or a machine that is short of descriptors or memory.
HICCUPS = frozenset(
    {
        *(errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.ECONNRESET),
        *(errno.EMFILE, errno.ENFILE, errno.ENOMEM),
    }
)
# The modification time of a placeholder, which no other file has: to the nanosecond.
PLACEHOLDER_MTIME_NS = 1_618_033_988_749_894_848
_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFDIR: "a folder",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


class Fetcher(Protocol):
    """Where the content of placeholders comes from."""

    def fetch(self, path: Path) -> None:
        """Put the content in the place of a placeholder, and keep it there until the file is open."""
        ...

    def open_parts(self, path: Path, end: int | None) -> io.RawIOBase | None:
        """The content of a placeholder, fetched as it is read; None where the file is here, or is fetched whole.

        Args:
            end: nothing behind this byte is going to be read.
        """
        ...


_FETCHERS: list[Fetcher] = []  # the last one is used


@contextmanager
def fetching(fetcher: Fetcher) -> Iterator[None]:
    """While the block runs, `fetcher` is asked for every path before it is opened here, in all threads of this process."""
    _FETCHERS.append(fetcher)
    try:
        yield
    finally:
        _FETCHERS.remove(fetcher)


def is_placeholder(status: os.stat_result) -> bool:
    """Whether a file of this status stands for an object of a bucket that is not here."""
    return status.st_mtime_ns == PLACEHOLDER_MTIME_NS


def open_regular(
    path: Path,
    *,
    where: str = "",
    missing: Code = Code.MISSING_FILE,
    buffering: int = -1,
    in_parts: bool = False,
    end: int | None = None,
) -> BinaryIO:
    """Open a regular file for reading, in binary form.

    Args:
        where: names the file in errors. missing: the code for a file that is not there or was not fetched.
        in_parts: of an object in a bucket fetch what is read, and nothing behind `end`. The file may then have no descriptor.

    Raises:
        SourceError: `missing` (no file, a dangling link, a git-LFS pointer), UNREADABLE (a folder, FIFO, device or socket,
            a loop of links, no permission) or UNSAFE_PATH (no path at all).
        TransientError: the machine cannot open it now.
    """
    where = where or path.name
    for fetcher in _FETCHERS[-1:]:
        if in_parts and (parts := fetcher.open_parts(path, end)) is not None:
            return cast(BinaryIO, io.BufferedReader(parts) if buffering else parts)
        fetcher.fetch(path)
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise _refused(path, where, missing, error) from error
    try:
        _check(handle, where, missing)
        return os.fdopen(handle, "rb", buffering=buffering)
    except BaseException:
        os.close(handle)
        raise


def check_regular(
    path: Path, *, where: str = "", missing: Code = Code.MISSING_FILE, in_parts: bool = False
) -> int:
    """The size in bytes of a file that a library opens by its path right after this; raises as `open_regular`."""
    with open_regular(path, where=where, missing=missing, buffering=0, in_parts=in_parts) as file:
        return file.seek(0, os.SEEK_END)


def read_regular(
    path: Path, *, max_bytes: int, where: str = "", missing: Code = Code.MISSING_FILE
) -> bytes:
    """All bytes of a file.

    Raises:
        SourceError: TOO_LARGE over `max_bytes`, else as `open_regular`.
        TransientError: reading failed in the middle.
    """
    where = where or path.name
    with open_regular(path, where=where, missing=missing) as file:
        size = _bounded_size(file, max_bytes, where)
        try:
            return file.read(size)
        except MemoryError as error:
            error.add_note(f"reading {path}")
            raise
        except OSError as error:
            raise TransientError(
                f"reading failed: {system_error_text(error, where)}", where=where
            ) from error


def lines_of_regular(
    path: Path, *, max_bytes: int, max_line_bytes: int, where: str = ""
) -> Iterator[bytes]:
    """The lines of a file, one in memory at a time, each with its newline, which a last one that was cut lacks.

    Raises:
        SourceError: TOO_LARGE for a file over `max_bytes` or a line over `max_line_bytes`, else as `open_regular`.
        TransientError: reading failed in the middle.
    """
    where = where or path.name
    with open_regular(path, where=where) as file:
        _bounded_size(file, max_bytes, where)
        number = 0
        try:
            while line := file.readline(max_line_bytes + 1):
                number += 1
                if len(line) > max_line_bytes:
                    longer = f"line {number} is longer than {max_line_bytes} bytes"
                    raise SourceError(Code.TOO_LARGE, longer, where=where)
                yield line
        except OSError as error:
            raise TransientError(
                f"reading failed: {system_error_text(error, where)}", where=where
            ) from error


def blocks_of_regular(path: Path) -> Iterator[bytes]:
    """All bytes of a file in blocks of 1 MiB, for a digest.

    Raises:
        OSError, SourceError, TransientError: as `open_regular`, and where reading fails.
    """
    with open_regular(path) as file:
        while block := file.read(1 << 20):
            yield block


def _bounded_size(file: BinaryIO, max_bytes: int, where: str) -> int:
    size = os.fstat(file.fileno()).st_size
    if size > max_bytes:
        raise SourceError(
            Code.TOO_LARGE, f"{size} bytes; expected at most {max_bytes}", where=where
        )
    return size


def path_exists(path: Path) -> bool:
    """Whether anything has that name: a file, or what `open_regular` refuses with a code.

    `Path.is_file` says no to a FIFO and to a link whose target was never fetched, so that what is broken passes for absent.
    """
    try:
        return os.path.lexists(path)
    except ValueError:  # a NUL byte
        return False


def file_stamp(
    path: Path, *, where: str = "", missing: Code = Code.MISSING_FILE, in_parts: bool = False
) -> tuple[int, int, int]:
    """(inode, bytes, modification time in ns): another value means other content, so it keys what is kept of a file.

    Raises as `open_regular`.
    """
    with open_regular(path, where=where, missing=missing, buffering=0, in_parts=in_parts) as file:
        is_here = isinstance(file, io.FileIO)
        status = os.fstat(file.fileno()) if is_here else os.lstat(path)
        return status.st_ino, status.st_size, status.st_mtime_ns


def is_in_parts(path: Path) -> bool:
    """Whether the file stands for an object of a bucket of which `open_regular` can fetch parts now."""
    for fetcher in _FETCHERS[-1:]:
        parts = fetcher.open_parts(path, 0)
        if parts is not None:
            parts.close()
            return True
    return False


def bytes_hint(*paths: Path) -> int:
    """Bytes of the regular files among `paths`, for planning. Never raises: what is wrong with a file is said when it is opened."""
    total = 0
    for path in paths:
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            continue
        total += status.st_size if stat.S_ISREG(status.st_mode) else 0
    return total


def is_lfs_pointer(head: bytes) -> bool:
    """Whether a file that starts with these bytes is a git-LFS pointer."""
    return head.startswith(LFS_HEAD)


def _check(handle: int, where: str, missing: Code) -> None:
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "a special file")
        message = f"{kind}; expected a regular file"
        raise SourceError(Code.UNREADABLE, message, where=where)
    if is_placeholder(status):
        message = "a placeholder of an object in a bucket, which was not fetched"
        raise SourceError(Code.UNREADABLE, message, where=where)
    if status.st_size <= LFS_MAX_BYTES and is_lfs_pointer(os.pread(handle, len(LFS_HEAD), 0)):
        message = "the file is a git-LFS pointer, not the data; run `git lfs pull`"
        raise SourceError(missing, message, where=where)


def _refused(path: Path, where: str, missing: Code, error: OSError | ValueError) -> Exception:
    if not isinstance(error, OSError):
        return SourceError(Code.UNSAFE_PATH, f"not a valid path: {error}", where=where)
    if error.errno in HICCUPS:
        return TransientError(f"cannot be opened: {error.strerror}", where=where)
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        if not path.is_symlink():
            return SourceError(missing, "the file is missing", where=where)
        problem = f"a link to {os.readlink(path)}, which is missing; download the file"
        return SourceError(missing, problem, where=where)
    if error.errno == errno.ELOOP:
        problem = "a link that points to itself; expected a regular file"
        return SourceError(Code.UNREADABLE, problem, where=where)
    if error.errno == errno.ENAMETOOLONG:
        return SourceError(Code.UNSAFE_PATH, "the file name is too long", where=where)
    return SourceError(Code.UNREADABLE, f"cannot be opened: {error.strerror}", where=where)
