"""Signals that ask a job to stop when it can, rather than at once."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from schemas.system_error import system_error_text


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
