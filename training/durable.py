"""Files and folders of a run that survive a power cut: bytes before the name that vouches for them, names before anything reports them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def make_durable(path: Path) -> None:
    """The bytes of a file, or the names in a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, whose names last."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    make_durable(path.parent)


def write_durably(path: Path, content: str | bytes | Iterable[bytes]) -> None:
    """Write a file whole, or piece by piece: a reader, and the next start after a power cut, sees the old one or the new one."""
    part = path.with_name(f".{path.name}.part")
    content = content.encode() if isinstance(content, str) else content
    with part.open("wb") as file:
        file.writelines([content] if isinstance(content, bytes) else content)
    make_durable(part)
    part.replace(path)
    make_durable(path.parent)
