"""Two ways to answer: rich text for people, one JSON object on standard output for programs. Progress goes to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from jobs.progress import ProgressLine, duration
from jobs.tables import table
from schemas.errors import ConfigError

__all__ = [
    "answer_json",
    "duration",
    "gigabytes",
    "outside",
    "progress_of",
    "stderr",
    "stdout",
    "table",
]

PIPE_WIDTH = 160  # columns when nobody's terminal says otherwise

stdout = Console(soft_wrap=True, width=None if sys.stdout.isatty() else PIPE_WIDTH)
stderr = Console(stderr=True, soft_wrap=True, width=None if sys.stderr.isatty() else PIPE_WIDTH)


def outside(corpus: Path, chosen: Path, option: str) -> None:
    """What a command writes for people does not belong into a corpus: `verify` would call it a stranger.

    Raises:
        ConfigError: `chosen` is inside.
    """
    if chosen.resolve().is_relative_to(corpus.resolve()):
        raise ConfigError("inside the corpus; name a place elsewhere", where=f"{option} {chosen}")


def warn(message: str) -> None:
    """One line on standard error while a command goes on."""
    from rich.text import Text

    stderr.print(
        Text.assemble(("warning ", "bold yellow"), message), highlight=False, soft_wrap=True
    )


def answer_json(value: Any) -> None:
    """The one JSON object of `--json`."""
    sys.stdout.write(json.dumps(value, allow_nan=False, default=str) + "\n")


@contextmanager
def progress_of(what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Progress on stderr; call what it gives with how many are done. Without `total` it says that the command is at work."""
    with ProgressLine(stderr, what, total) as line:
        yield line.update


def gigabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.3f} GB"
