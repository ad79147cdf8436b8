"""The raw files of a source as (path, size, modification time): what tells a build that there is new data, without reading any."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import ConfigError, system_error_text

MAX_DEPTH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class RawListing:
    """`sha256` is of every (path, size, modification time), in order of names."""

    sha256: str
    num_files: int
    num_bytes: int


def listing_of(roots: Iterable[Path], *, without: Path | None = None) -> RawListing:
    """Files and folders below the roots, or the roots themselves where they are files. Links are followed.

    Args:
        without: a file that is not listed.

    Raises:
        ConfigError: a folder cannot be read.
    """
    digest, num_files, num_bytes = hashlib.sha256(), 0, 0
    for number, root in enumerate(roots):
        left_out = ""
        if without is not None and without.resolve().is_relative_to(root.resolve()):
            left_out = without.resolve().relative_to(root.resolve()).as_posix()
        for path, size, mtime_ns in _files(root):
            if path and path == left_out:
                continue
            line = f"{number}\0{path}\0{size}\0{mtime_ns}\n"
            digest.update(line.encode(errors="surrogateescape"))
            num_files, num_bytes = num_files + 1, num_bytes + size
    return RawListing(sha256=digest.hexdigest(), num_files=num_files, num_bytes=num_bytes)


def _files(root: Path) -> Iterator[tuple[str, int, int]]:
    """(path below the root, bytes, nanoseconds) of every file; depth first, names in order."""
    try:
        status = root.stat()
        if not root.is_dir():
            yield "", status.st_size, status.st_mtime_ns
            return
        yield from _below(str(root), "", frozenset({(status.st_dev, status.st_ino)}), 0)
    except OSError as error:
        message = f"cannot be listed: {system_error_text(error, str(root))}"
        raise ConfigError(message, where=str(root)) from error


def _below(
    folder: str, above: str, above_it: frozenset[tuple[int, int]], depth: int
) -> Iterator[tuple[str, int, int]]:
    if depth > MAX_DEPTH:
        raise ConfigError(f"more than {MAX_DEPTH} folders inside each other", where=folder)
    with os.scandir(folder) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
        path = f"{above}{entry.name}"
        try:
            is_folder = entry.is_dir()
            status = entry.stat()
        except OSError:  # a link to nothing or to itself, or removed a moment ago
            yield path, -1, 0
            continue
        if not is_folder:
            yield path, status.st_size, status.st_mtime_ns
            continue
        identity = (status.st_dev, status.st_ino)
        if identity not in above_it:  # a link that leads in a circle
            yield from _below(entry.path, f"{path}/", above_it | {identity}, depth + 1)
