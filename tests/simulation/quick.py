"""What a schedule need not compute twice: how a text becomes a path. Half of what is played is that, on Python 3.11."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any
from unittest import mock


@contextmanager
def quick_paths() -> Iterator[None]:
    """`Path` remembers what it has parsed. Nothing on a Python whose `Path` parses when it is asked."""
    flavour: Any = getattr(PurePosixPath, "_flavour", None)
    if not hasattr(flavour, "parse_parts"):
        yield
        return
    parse = flavour.parse_parts

    @lru_cache(maxsize=1 << 16)
    def parsed(parts: tuple[str, ...]) -> tuple[str, str, tuple[str, ...]]:
        drive, root, names = parse(list(parts))
        return drive, root, tuple(names)

    def parse_parts(parts: Sequence[str]) -> tuple[str, str, list[str]]:
        drive, root, names = parsed(tuple(parts))
        return drive, root, list(names)

    with mock.patch.object(flavour, "parse_parts", parse_parts):
        yield
