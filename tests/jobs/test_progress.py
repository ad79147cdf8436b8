"""A long command speaks in a log too: a plain line every half minute, also while nothing moves."""

from __future__ import annotations

import io
import threading
from itertools import count

import pytest
from rich.console import Console

from jobs.ui.progress import ProgressLine, duration


class Log(io.StringIO):
    """A log that says when its n-th line has come."""

    def __init__(self, wanted: int) -> None:
        super().__init__()
        self.wanted, self.has_come = wanted, threading.Event()

    def write(self, text: str) -> int:
        written = super().write(text)
        if self.getvalue().count("\n") >= self.wanted:
            self.has_come.set()
        return written


def line_of(log: io.StringIO, total: int | None, **options: object) -> ProgressLine:
    console = Console(file=log, width=80, force_terminal=False)
    return ProgressLine(console, "ingest", total, **options)  # type: ignore[arg-type]


def test_lines_come_while_nothing_moves() -> None:
    log = Log(wanted=3)
    with line_of(log, 10, every_s=0.01) as line:
        line.update(4, note="worker_died=1 [bold]")
        assert log.has_come.wait(60)
    text = log.getvalue()
    assert "ingest 4/10 (40%) after 0:00:0" in text
    assert "· worker_died=1 [bold]" in text
    assert not set(text) & {"\x1b", "━"}


def test_the_end_is_said_once_and_nothing_comes_after_it() -> None:
    log = Log(wanted=1)
    with line_of(log, 3, every_s=3600.0) as line:
        line.update(3)
    assert log.getvalue().count("\n") == 1
    assert log.getvalue().startswith("ingest 3/3 (100%) after 0:00:0")


def test_a_short_command_without_parts_says_nothing() -> None:
    log = Log(wanted=1)
    with line_of(log, None, every_s=3600.0):
        pass
    assert log.getvalue() == ""


def test_a_line_that_is_not_to_be_shown_is_silent() -> None:
    log = Log(wanted=1)
    with line_of(log, 3, every_s=0.001, is_shown=False) as line:
        line.update(3)
    assert log.getvalue() == ""


def test_the_time_left_is_judged_by_what_this_run_did() -> None:
    clock = count(0, 60)
    line = line_of(Log(wanted=1), 100, monotonic_s=lambda: float(next(clock)))
    line.update(50, first=40)  # at 0:01:00
    assert line.line() == "ingest 50/100 (50%) after 0:02:00, about 0:05:00 left"
    line.update(100, what="train", note="loss 0.5")
    assert line.line() == "train 100/100 (100%) after 0:04:00 · loss 0.5"


def test_the_time_left_of_a_phase_is_judged_by_that_phase() -> None:
    """Deriving actions took an hour; that says nothing of the steps of training."""
    now_s = [0.0]
    line = line_of(Log(wanted=1), 10, monotonic_s=lambda: now_s[0])
    now_s[0] = 3600
    line.update(0, total=100, what="train")
    now_s[0] += 60
    line.update(10, what="train")
    assert line.line() == "train 10/100 (10%) after 1:01:00, about 0:09:00 left"


def test_a_command_without_parts_says_how_long_it_works() -> None:
    clock = count(0, 45)
    line = line_of(Log(wanted=1), None, monotonic_s=lambda: float(next(clock)))
    assert line.line() == "ingest after 0:00:45"
    line.update(12)
    assert line.line() == "ingest 12 after 0:01:30"


def test_a_terminal_gets_a_bar() -> None:
    log = io.StringIO()
    console = Console(file=log, width=80, force_terminal=True)
    with ProgressLine(console, "ingest", 2) as line:
        line.update(2, note="done")
    assert "2/2" in log.getvalue()
    assert "━" in log.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00:00"), (59.6, "0:01:00"), (3723, "1:02:03")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
