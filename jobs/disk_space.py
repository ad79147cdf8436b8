"""Whether what a plan writes has room: a run that stops for want of it has cost hours, and filled a disk that others write to."""

from __future__ import annotations

import shutil
from pathlib import Path

from jobs.output import size_text
from schemas.errors import ConfigError


def free_bytes(corpus: Path) -> int:
    """What may still be written to the file system of a corpus."""
    return shutil.disk_usage(corpus).free


def refuse_without_room(corpus: Path, num_bytes: int, ways: str) -> None:
    """
    Args:
        num_bytes: that a plan writes. ways: options with which it would write less.

    Raises:
        ConfigError: more than is free.
    """
    free = free_bytes(corpus)
    if num_bytes > free:
        found = (
            f"the plan writes {size_text(num_bytes)}, its file system has {size_text(free)} free"
        )
        lacking = size_text(num_bytes - free)
        raise ConfigError(f"{found}: make room for {lacking} more, or {ways}", where=str(corpus))
