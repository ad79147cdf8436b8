"""Join a path that came out of data to a root, and refuse one that leaves the root."""

from __future__ import annotations

from pathlib import Path

from schemas.errors import Code, SourceError
from schemas.paths import contained
from schemas.regular_file import path_exists


def inside(root: Path, *parts: str) -> Path:
    """The resolved `root / parts`, links followed; it need not exist.

    Raises:
        SourceError: UNSAFE_PATH when the result lies outside the resolved root (an absolute part, `..`, or a
            symbolic link that leads out), or a part cannot be a path at all.
    """
    try:
        return contained(root, *parts)
    except ValueError as error:
        where = "/".join(parts)[:200]
        raise SourceError(Code.UNSAFE_PATH, str(error), where=where) from error


def exists_inside(root: Path, *parts: str) -> bool:
    """Whether anything has that name below the root (`schemas.regular_file.path_exists`); raises as `inside`."""
    inside(root, *parts)
    return path_exists(root.joinpath(*parts))
