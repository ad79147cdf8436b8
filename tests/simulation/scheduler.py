"""Threads of which one runs at a time, on a virtual clock. Which one, a seed decides."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random


class Died(BaseException):
    """The process of a job is gone: nothing of it runs any more."""


@dataclass
class Process:
    """One process of a job. A dead one stays dead; its job may start another."""

    name: str
    is_dead: bool = False


@dataclass(order=True)
class _Waiting:
    at_s: float
    tie: float
    order: int
    baton: threading.Event = field(compare=False)


class Scheduler:
    """Runs threads until all have ended. `sleep` is where another may go on."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.now_s = 0.0
        self.steps = 0
        self.due: list[tuple[float, int, Callable[[], None]]] = []  # what happens by itself
        self._waiting: list[_Waiting] = []
        self._threads: list[threading.Thread] = []
        self._running = 0
        self._idle = threading.Event()
        self._count = 0
        self.problems: list[BaseException] = []

    def spawn(self, function: Callable[[], None]) -> None:
        baton = threading.Event()

        def body() -> None:
            baton.wait()
            try:
                function()
            except BaseException as error:  # noqa: BLE001 - told by the one who runs the schedule
                self.problems.append(error)
            finally:
                self._running -= 1
                self._idle.set()

        thread = threading.Thread(target=body, daemon=True)
        self._threads.append(thread)
        self._running += 1
        self._push(0.0, baton)
        thread.start()

    def later(self, delay_s: float, effect: Callable[[], None]) -> None:
        """Let something happen after a time, whoever is there to see it."""
        self._count += 1
        heapq.heappush(self.due, (self.now_s + delay_s, self._count, effect))

    def sleep(self, seconds: float) -> None:
        """Called by a running thread: others go on meanwhile."""
        baton = threading.Event()
        self._push(self.now_s + seconds, baton)
        self._idle.set()
        baton.wait()

    def run(self, *, until_s: float) -> None:
        """
        Raises:
            TimeoutError: threads are still there at `until_s` of the virtual clock.
        """
        while self._running:
            if not self._waiting:
                raise RuntimeError("a thread waits for something else than the scheduler")
            following = heapq.heappop(self._waiting)
            self._happen(following.at_s)
            self.now_s = max(self.now_s, following.at_s)
            if self.now_s > until_s:
                raise TimeoutError(f"not ended after {until_s} s of the virtual clock")
            self.steps += 1
            self._idle.clear()
            following.baton.set()
            self._idle.wait()
        self._happen(float("inf"))

    def _push(self, at_s: float, baton: threading.Event) -> None:
        self._count += 1
        heapq.heappush(self._waiting, _Waiting(at_s, self.random.random(), self._count, baton))

    def _happen(self, until_s: float) -> None:
        while self.due and self.due[0][0] <= until_s:
            at_s, _, effect = heapq.heappop(self.due)
            self.now_s = max(self.now_s, at_s)
            effect()
