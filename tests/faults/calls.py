"""Hears of each changing system call of a storage before it is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from ingest.storage.file_system import FileSystem

CALLS = (
    "write",
    "truncate",
    "fsync",
    "syncfs",
    "make_dir",
    "remove_dir",
    "unlink",
    "link",
    "rename",
)


@contextmanager
def calling(before: Callable[[int], None]) -> Iterator[None]:
    """`before` gets the number of each call; what it raises is raised in its place."""
    count = 0

    def watched(name: str) -> Callable[..., Any]:
        real = getattr(FileSystem, name)

        def call(self: FileSystem, *given: Any, **how: Any) -> Any:
            nonlocal count
            number, count = count, count + 1
            before(number)
            return real(self, *given, **how)

        return call

    with patch.multiple(FileSystem, **{name: watched(name) for name in CALLS}):
        yield
