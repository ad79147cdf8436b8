"""How far a long command is: a bar in a terminal, a plain line every half minute in a log."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

EVERY_S = 30.0


class ProgressLine:
    """The state of one long piece of work, shown on a console while it is entered.

    In a log a thread writes the lines, so that they come when nothing moves, too: one long episode, a busy disk.
    """

    def __init__(
        self,
        console: Console,
        what: str,
        total: int | None = None,
        *,
        is_shown: bool = True,
        every_s: float = EVERY_S,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console, self._is_shown, self._every_s = console, is_shown, every_s
        self._what, self._done, self._total, self._note = what, 0, total, ""
        self._first = 0  # where this run began
        self._monotonic_s = monotonic_s
        self._began_s = self._phase_s = monotonic_s()
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._has_written = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write_lines, daemon=True)

    def update(
        self,
        done: int | None = None,
        *,
        total: int | None = None,
        note: str | None = None,
        what: str | None = None,
        first: int | None = None,
    ) -> None:
        """Change what is known of the work; what is not given stays.

        Args:
            done: parts that are done, those of earlier runs included.
            first: parts that earlier runs did; the time that is left is judged without them.
            what: another one than before begins anew to judge the time that is left.
        """
        if first is not None or (what or self._what) != self._what:
            self._phase_s = self._monotonic_s()
        self._done = self._done if done is None else done
        self._total = self._total if total is None else total
        self._note = self._note if note is None else note
        self._what = what or self._what
        self._first = self._first if first is None else first
        if self._bar is not None and self._task is not None:
            self._bar.update(
                self._task,
                description=self._what,
                completed=self._done,
                total=self._total,
                note=self._note,
            )

    def __enter__(self) -> ProgressLine:
        self._began_s = self._phase_s = self._monotonic_s()
        if self._is_shown and self._console.is_terminal:
            self._bar = _bar(self._console)
            self._task = self._bar.add_task(self._what, total=self._total, note=self._note)
            self._bar.start()
        elif self._is_shown:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._bar is not None:
            self._bar.stop()
        elif self._thread.is_alive():
            self._thread.join()
            if (
                self._has_written or self._total is not None
            ):  # a short command without parts says nothing
                self._write()

    def line(self) -> str:
        """`ingest 3/10 (30%) after 0:01:30, about 0:03:30 left · 0.1 episodes/s`"""
        now_s = self._monotonic_s()
        parts = [f"after {duration(now_s - self._began_s)}"]
        here = self._done - self._first
        if self._total is not None and here > 0 and self._done < self._total:
            left_s = (now_s - self._phase_s) / here * (self._total - self._done)
            parts.append(f"about {duration(left_s)} left")
        note = f" · {self._note}" if self._note else ""
        return f"{self._what}{self._counts()} {', '.join(parts)}{note}"

    def _counts(self) -> str:
        if self._total is None:
            return f" {self._done:,}" if self._done else ""
        share = f" ({self._done / self._total:.0%})" if self._total else ""
        return f" {self._done:,}/{self._total:,}{share}"

    def _write_lines(self) -> None:
        while not self._stop.wait(self._every_s):
            self._write()

    def _write(self) -> None:
        self._has_written = True
        self._console.print(Text(self.line()), highlight=False, soft_wrap=True)


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=console,
    )


def duration(seconds: float) -> str:
    """1:02:03"""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
