"""The system calls that change a disk or make a change last. `ingest/storage/local.py` makes no others.

Tests replace this object: by a disk that counts, fails, has no hard links, or loses what was not synchronised at a power cut. Names are
single path components relative to an open folder, so that no call follows a link on the way.
"""

from __future__ import annotations

import ctypes
import errno
import os
from functools import cache

_RENAME_NOREPLACE = 1
_SYNCFS_REPORTS_SINCE = (5, 8)  # Linux; before, syncfs returned 0 whatever was lost


class FileSystem:
    """The calls of this machine. Stateless and picklable."""

    def open(self, name: str, flags: int, *, dir_fd: int | None = None, mode: int = 0o666) -> int:
        return os.open(name, flags | os.O_CLOEXEC, mode, dir_fd=dir_fd)

    def close(self, handle: int) -> None:
        os.close(handle)

    def write(self, handle: int, data: bytes | memoryview) -> int:
        """Bytes written, which may be fewer than given."""
        return os.write(handle, data)

    def truncate(self, handle: int, size: int) -> None:
        os.ftruncate(handle, size)

    def fsync(self, handle: int) -> None:
        """Make a file's bytes, or a folder's names, survive a power cut; raises when some were lost already."""
        os.fsync(handle)

    def syncfs(self, handle: int) -> None:
        """`fsync` of everything on the file system of `handle`.

        Raises:
            OSError: ENOSYS where it cannot report a failed write-back; something was lost since `handle` was opened.
        """
        if not _syncfs_reports():
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        if _libc().syncfs(handle):
            raise _last_error()

    def make_dir(self, name: str, *, dir_fd: int) -> None:
        os.mkdir(name, dir_fd=dir_fd)

    def remove_dir(self, name: str, *, dir_fd: int) -> None:
        os.rmdir(name, dir_fd=dir_fd)

    def unlink(self, name: str, *, dir_fd: int) -> None:
        os.unlink(name, dir_fd=dir_fd)

    def link(self, old: str, new: str, *, old_dir: int, new_dir: int) -> None:
        """A second name of a file; EEXIST when `new` is there. A link is not followed."""
        os.link(old, new, src_dir_fd=old_dir, dst_dir_fd=new_dir, follow_symlinks=False)

    def rename(self, old: str, new: str, *, old_dir: int, new_dir: int) -> None:
        """Atomic; replaces a file of the new name."""
        os.rename(old, new, src_dir_fd=old_dir, dst_dir_fd=new_dir)

    def rename_new(self, old: str, new: str, *, old_dir: int, new_dir: int) -> None:
        """Atomic; EEXIST when `new` is there, EINVAL or ENOSYS where the file system cannot do that."""
        call = getattr(_libc(), "renameat2", None)
        if call is None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        if call(old_dir, os.fsencode(old), new_dir, os.fsencode(new), _RENAME_NOREPLACE):
            raise _last_error()


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


@cache
def _syncfs_reports() -> bool:
    about = os.uname()
    numbers = tuple(
        int(part) for part in about.release.split("-")[0].split(".")[:2] if part.isdigit()
    )
    is_known = about.sysname == "Linux" and numbers >= _SYNCFS_REPORTS_SINCE
    return is_known and hasattr(_libc(), "syncfs")


def _last_error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
