"""Two kinds of output: text for people, one JSON object on standard output for programs. Progress goes to stderr.

A console without a terminal is COLUMNS wide, or PIPE_WIDTH.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TextIO

import typer
from rich.console import Console

from jobs.ui.envelope import Failure, envelope
from jobs.ui.progress import ProgressLine, duration
from jobs.ui.tables import table
from schemas.errors import ConfigError

__all__ = [
    "answer_json",
    "duration",
    "exit_1",
    "outside",
    "print_json",
    "progress_of",
    "size_text",
    "stderr",
    "stdout",
    "table",
]

PIPE_WIDTH = (
    160  # characters of a line where there is neither a terminal nor COLUMNS: docs/how-to/query.md
)
SIZES = (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


def width_of(stream: TextIO) -> int | None:
    """Characters of a line; None: rich measures the terminal."""
    columns = os.environ.get("COLUMNS", "")
    if stream.isatty():
        return None
    return int(columns) if columns.isdecimal() and int(columns) > 0 else PIPE_WIDTH


class _Messages(Console):
    """Standard error. Where its reader ends, as the process that keeps the log of a job may, the work goes on without it."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


stdout = Console(soft_wrap=True, width=width_of(sys.stdout))
stderr = _Messages(stderr=True, soft_wrap=True, width=width_of(sys.stderr))


def outside(corpus: Path, chosen: Path, option: str) -> None:
    """Refuse to write other files into a corpus: `verify` would report them.

    Raises:
        ConfigError: `chosen` is inside.
    """
    if chosen.resolve().is_relative_to(corpus.resolve()):
        raise ConfigError(
            "is inside the corpus; expected a path outside of it", where=f"{option} {chosen}"
        )


def warn(message: str) -> None:
    """One line on standard error while a command runs."""
    from rich.text import Text

    stderr.print(
        Text.assemble(("warning ", "bold yellow"), message), highlight=False, soft_wrap=True
    )


def answer_json(result: Any, failure: str = "") -> None:
    """The one JSON object of `--json`. `failure`: why the command ends with `exit_1`."""
    failed = Failure(code="check_failed", message=failure, exit_code=1) if failure else None
    print_json(envelope(result, failed))


def print_json(value: Any) -> None:
    """An envelope, as one line on standard output."""
    sys.stdout.write(json.dumps(value, allow_nan=False, default=str) + "\n")


@contextmanager
def progress_of(what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Progress on stderr; yields a function that takes the number done. Without `total` it only shows that the command works."""
    with ProgressLine(stderr, what, total) as line:
        yield line.update


def exit_1(reason: str) -> NoReturn:
    """End a command that has printed its report, with the reason as the last line on standard error.

    Raises:
        typer.Exit: 1.
    """
    from rich.text import Text

    sys.stdout.flush()  # the report comes first where both streams go to one file
    stderr.print(Text.assemble(("exit 1: ", "bold red"), reason), highlight=False, soft_wrap=True)
    raise typer.Exit(1)


def size_text(num_bytes: float) -> str:
    """`41.5 MB`: three digits at least, in the largest unit that gives a number of 1 or more."""
    for unit, size in SIZES:
        if num_bytes >= size:
            number = num_bytes / size
            return f"{number:,.{2 if number < 10 else 1 if number < 100 else 0}f} {unit}"
    return "1 byte" if num_bytes == 1 else f"{num_bytes:.0f} bytes"
