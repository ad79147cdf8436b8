"""Entries of one name below a folder, whatever they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def entries_named(root: Path, name: str) -> Iterator[Path]:
    """Every entry of that name below `root`; links to folders are not followed.

    `Path.rglob` of a plain name asks whether the file is there, and so passes over a link to a file that was never fetched.
    """
    return (path for path in root.rglob(f"*{name}") if path.name == name)
