"""Two ways to answer: rich text for people, one JSON object on standard output for programs. Progress goes to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from schemas.errors import ConfigError

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


def answer_json(value: Any) -> None:
    """The one JSON object of `--json`."""
    sys.stdout.write(json.dumps(value, allow_nan=False, default=str) + "\n")


def table(title: str, columns: list[str], rows: list[list[Any]]) -> Table:
    """A plain table; numbers to the right."""
    out = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
    for index, name in enumerate(columns):
        is_number = bool(rows) and all(isinstance(row[index], int | float) for row in rows)
        out.add_column(name, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        out.add_row(*(Text(_text(cell)) for cell in row))  # Text: data is never markup
    return out


def _text(cell: Any) -> str:
    if isinstance(cell, float):
        return f"{cell:,.3f}"
    return f"{cell:,}" if isinstance(cell, int) and not isinstance(cell, bool) else str(cell)


@contextmanager
def progress_of(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress line on stderr; call what it gives with how many are done."""
    bar = Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=stderr,
    )
    task = bar.add_task(what, total=total)
    with bar:
        yield lambda done: bar.update(task, completed=done)


def gigabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.3f} GB"


def duration(seconds: float) -> str:
    """1:02:03"""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
