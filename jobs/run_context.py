"""What only a command knows: the clock, the command line, a run id, the environment, and signals that request a stop."""

from __future__ import annotations

import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import FrameType
from typing import TYPE_CHECKING

from schemas.errors import system_error_text

if TYPE_CHECKING:
    from ingest.pipeline.run import Progress, RunContext


class StopRequest:
    """The first SIGINT or SIGTERM requests a stop after the current step and calls `on_stop`. The second stops at once."""

    def __init__(self, on_stop: Callable[[], None] = lambda: None) -> None:
        self.is_asked, self._on_stop = False, on_stop

    def __call__(self) -> bool:
        return self.is_asked

    @contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """In the main thread."""
        both = (signal.SIGINT, signal.SIGTERM)
        before = {each: signal.signal(each, self._ask) for each in both}
        try:
            yield self
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.is_asked:
            raise KeyboardInterrupt
        self.is_asked = True
        try:
            self._on_stop()
        except OSError as error:  # such as a full disk: raised in a handler it would end the command without a checkpoint
            sys.stderr.write(
                f"warning: the stop request could not be passed on: {system_error_text(error)}\n"
            )


def new_run(progress: Progress) -> RunContext:
    """A run of the pipeline, with an identity of its own."""
    from ingest.pipeline.run import RunContext  # most commands need the identity alone
    from jobs.ui.output import warn

    return RunContext(
        run_id=new_run_id(),
        command=" ".join(["eicorpus", *sys.argv[1:]]),
        now=lambda: datetime.now(UTC),
        monotonic_s=time.monotonic,
        progress=progress,
        warn=warn,
    )


def new_run_id() -> str:
    """The identity of a run: sorts by time, never clashes."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"


def new_corpus_uid() -> str:
    return str(uuid.uuid4())
