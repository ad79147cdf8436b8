"""A folder of one process on its machine. What a killed process left there, a later one removes."""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from functools import cache
from pathlib import Path

from ingest.storage.local import LocalStorage
from ingest.storage.lock_file import open_lock

PREFIX = ".process."  # of the folder
KEPT = "watch."  # of a file in it that says how the process ended: the driver asks for it
KEPT_S = 3600.0

_LOCK = ".lock"


def process_folder(parent: Path) -> Path:
    """The folder of this process below `parent`. Both are made when absent. Those of processes that have ended are removed.

    Raises:
        ConfigError: it cannot be made.
        TransientError: the disk is full.
    """
    return _folder_of(parent, os.getpid())


@cache
def _folder_of(parent: Path, pid: int) -> Path:
    parent.mkdir(parents=True, exist_ok=True)
    disk = LocalStorage(parent)
    for left in parent.glob(f"{PREFIX}*{_LOCK}"):
        _remove_if_dead(left, disk)
    while True:
        folder = parent / f"{PREFIX}{secrets.token_hex(8)}"
        handle = open_lock(Path(f"{folder}{_LOCK}"))  # held until the process ends
        fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(
            handle
        ).st_nlink:  # another process may have taken it for a left one before it was locked
            disk.make_dir(folder)
            return folder
        os.close(handle)


def _remove_if_dead(lock: Path, disk: LocalStorage) -> None:
    handle = open_lock(lock)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    else:
        folder = lock.with_name(lock.name.removesuffix(_LOCK))
        for path in folder.iterdir() if folder.is_dir() else ():
            # Written when the process ended: how long it ran says nothing.
            is_kept = path.name.startswith(KEPT) and time.time() - path.lstat().st_mtime < KEPT_S
            if not is_kept:
                (disk.remove_tree if path.is_dir() else disk.remove)(path)
        if not folder.is_dir() or not any(folder.iterdir()):
            disk.remove_tree(folder)
            disk.remove(lock)
    finally:
        os.close(handle)
