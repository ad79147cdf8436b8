"""Folders in folders, looked through without recursion and no deeper than any corpus has them: how deep they lie is not ours to say."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from schemas.paths import OutsideCorpus

MAX_DEPTH = 64  # folders in each other


def entries_below(
    root: Path,
    is_leaf: Callable[[str], bool] = lambda relative: False,
    on_error: Callable[[OSError], None] | None = None,
) -> Iterator[os.DirEntry[str]]:
    """Files and folders below a folder, by name; of a folder that is not there none. Links are not followed.

    Args:
        is_leaf: of a folder, by its path below `root`: its entries are left out.
        on_error: takes the error of a folder that cannot be listed, and the others follow; without it the error is raised.

    Raises:
        OutsideCorpus: folders lie deeper in each other than any corpus has them.
    """
    waiting = [(os.fspath(root), "")] if root.is_dir() else []
    while waiting:
        folder, relative = waiting.pop()
        if relative.count("/") >= MAX_DEPTH:
            raise too_deep(folder)
        try:
            with os.scandir(folder) as listed:
                entries = sorted(listed, key=lambda each: each.name)
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise too_deep(folder) from error
            if on_error is None:
                raise
            on_error(error)
            continue
        below = []
        for entry in entries:
            yield entry
            inner = f"{relative}/{entry.name}".lstrip("/")
            if entry.is_dir(follow_symlinks=False) and not is_leaf(inner):
                below.append((entry.path, inner))
        waiting += reversed(below)


def paths_below(root: Path, pattern: str = "*") -> Iterator[Path]:
    """What has a name of this pattern, at any depth; raises as `entries_below`."""
    for entry in entries_below(root):
        if fnmatchcase(entry.name, pattern):
            yield Path(entry.path)


def too_deep(folder: str) -> OutsideCorpus:
    """The error for a folder with more above it than any corpus has."""
    message = f"more than {MAX_DEPTH} nested folders"
    return OutsideCorpus(
        message, remedy="inspect the folder and remove it by hand", where=_shortened(folder)
    )


def _shortened(path: str) -> str:
    return path if len(path) <= 400 else f"{path[:200]}...{path[-200:]}"
