"""Lock files of a corpus. The kernel lets go when a process dies, however it dies; what a file says is for people, so it need not last."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ingest.storage.write_refusal import refused_write
from schemas.errors import TransientError
from schemas.paths import OutsideCorpus

RETRY_S = 0.01


class LockHeld(TransientError):
    """Another process holds a lock for longer than this one waits."""


def open_lock(path: Path) -> int:
    """The file that is locked, open; made when absent.

    Raises:
        ConfigError: it cannot be opened, or is no plain file.
        TransientError: the disk is full, or fails.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        handle = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise OutsideCorpus(
                "is not a regular file", remedy="remove it", where=str(path)
            ) from error
        raise refused_write(error, path) from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OutsideCorpus("is not a regular file", remedy="remove it", where=str(path))
    return handle


@contextmanager
def held_with_others(path: Path, sweep: Callable[[], None]) -> Iterator[None]:
    """Hold a lock that any number of processes hold at a time; who finds no other holder removes what killed ones left.

    What a holder makes inside the block is never swept, because a sweep needs the lock for itself.
    """
    handle = open_lock(path)
    try:
        if _is_alone(handle):
            sweep()
        fcntl.flock(handle, fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)


@contextmanager
def held_alone(path: Path, wait_s: float = 30.0) -> Iterator[None]:
    """Hold a lock that others hold for a moment.

    Raises:
        LockHeld: one of them holds it for longer than `wait_s`; it may be suspended.
    """
    handle, until_s = open_lock(path), time.monotonic() + wait_s
    try:
        while not _is_alone(handle):
            if time.monotonic() >= until_s:
                problem = f"another process has held this lock for {wait_s:g} s"
                remedy = "end it if it is suspended, and run the same command again"
                raise LockHeld(problem, remedy=remedy, where=str(path))
            time.sleep(RETRY_S)
        yield
    finally:
        os.close(handle)


def _is_alone(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
