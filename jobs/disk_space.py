"""Refuse a plan that the disk has no space for: a run that fills a disk wastes hours and blocks other writers."""

from __future__ import annotations

import shutil
from pathlib import Path

from jobs.output import size_text
from schemas.errors import ConfigError


def free_bytes(corpus: Path) -> int:
    """Free space of the file system of a corpus."""
    return shutil.disk_usage(corpus).free


def refuse_without_room(corpus: Path, num_bytes: int, ways: str) -> None:
    """
    Args:
        num_bytes: what the plan writes. ways: options that reduce it.

    Raises:
        ConfigError: more than is free.
    """
    free = free_bytes(corpus)
    if num_bytes > free:
        problem = (
            f"the plan writes {size_text(num_bytes)}, the file system has {size_text(free)} free"
        )
        shortfall = size_text(num_bytes - free)
        raise ConfigError(f"{problem}: free another {shortfall}, or {ways}", where=str(corpus))
