"""Folders of tables that are derived once and kept: one that is there is whole, and of all who ask for it one makes it."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from schemas.errors import ConfigError, system_error_text
from schemas.paths import within
from training.durable import make_durable

_SMALL = 4096  # bytes of a file
_LOCK = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def build_once(folder: Path, make: Callable[[Path], None]) -> None:
    """Have `make` fill an empty folder, which then gets its name. Of several ranks of a machine one makes it, the others wait and find it.

    Raises:
        ConfigError: the cache cannot be written.
        OutsideCorpus: a link lies where it is to be.
    """
    if within(folder.parent, folder.name).is_dir():
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock_file = folder.parent / f".{folder.name}.lock"
        with os.fdopen(os.open(lock_file, _LOCK, 0o666), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.is_dir():
                _make(folder, make)
    except OSError as error:
        problem = f"cannot be written ({system_error_text(error)})"
        raise ConfigError(
            problem, remedy="use another folder with --cache DIR", where=str(folder.parent)
        ) from error


def _make(folder: Path, make: Callable[[Path], None]) -> None:
    """Several machines may share the cache, and a lock need not reach from one to another: then each makes its own, and the first one stays."""
    aside = folder.with_name(f".{folder.name}.{os.uname().nodename}.half")
    shutil.rmtree(
        aside, ignore_errors=True
    )  # of a process of this machine that was killed: the lock is ours
    aside.mkdir()
    make(aside)
    for path in (*aside.iterdir(), aside):  # a name that outlives a power cut is of whole files
        make_durable(path)
    try:
        aside.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
        shutil.rmtree(aside)  # what another machine made meanwhile is the same


def mapped(folder: Path, name: str) -> npt.NDArray[Any]:
    """An array that is kept there, as the file's own pages. A small one is read: it may be empty, and nothing empty can be mapped.

    Raises:
        ConfigError: it is damaged.
        OutsideCorpus: it is a link.
    """
    path = within(folder, name)
    try:
        mode: Literal["r"] | None = "r" if path.stat().st_size > _SMALL else None
        return np.asarray(np.load(path, mmap_mode=mode, allow_pickle=False))
    except (OSError, ValueError, EOFError, MemoryError) as error:  # the last: of the size it says
        raise damaged(folder, name, error) from error


def damaged(folder: Path, name: str, error: Exception) -> ConfigError:
    """What is said of a table there that cannot be read."""
    problem = f"damaged ({error})"
    return ConfigError(
        problem, remedy=f"remove {folder}; the next run rebuilds it", where=str(folder / name)
    )
