"""Threads of which one runs at a time, on a virtual clock. Which one, a seed decides."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable
from dataclasses import dataclass
from random import Random


class Died(BaseException):
    """The process of a job is gone: nothing of it runs any more."""


@dataclass
class Process:
    """One process of a job. A dead one stays dead; its job may start another."""

    name: str
    is_dead: bool = False


class _Baton:
    """What a thread waits for. A lock that is taken: an Event costs several times as much."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def wait(self) -> None:
        self._lock.acquire()

    def give(self) -> None:
        self._lock.release()


class Scheduler:
    """Runs threads until all have ended. `sleep` is where another may go on: the one that sleeps wakes it, or itself goes on."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.now_s = 0.0
        self.steps = 0
        self.due: list[tuple[float, int, Callable[[], None]]] = []  # what happens by itself
        self._waiting: list[tuple[float, float, int, _Baton]] = []
        self._running = 0
        self._until_s = 0.0
        self._main = _Baton()
        self._stopped: BaseException | None = None
        self._threads: list[threading.Thread] = []
        self._count = 0

    def spawn(self, function: Callable[[], None]) -> None:
        baton = _Baton()

        def body() -> None:
            baton.wait()
            try:
                function()
            except BaseException as error:  # noqa: BLE001 - raised by `run`
                self._stop(error)
                return
            self._running -= 1
            self._go_on()

        self._running += 1
        self._push(0.0, baton)
        self._threads.append(threading.Thread(target=body, daemon=True))
        self._threads[-1].start()

    def later(self, delay_s: float, effect: Callable[[], None]) -> None:
        """Let something happen after a time, whoever is there to see it."""
        self._count += 1
        heapq.heappush(self.due, (self.now_s + delay_s, self._count, effect))

    def sleep(self, seconds: float) -> None:
        """Called by a running thread: others go on meanwhile."""
        baton = _Baton()
        self._push(self.now_s + seconds, baton)
        self._go_on()
        baton.wait()

    def run(self, *, until_s: float) -> None:
        """
        Raises:
            TimeoutError: threads are still there at `until_s` of the virtual clock.
            BaseException: what a thread has raised.
        """
        self._until_s = until_s
        self._go_on()
        self._main.wait()
        if self._stopped is not None:
            raise self._stopped
        for thread in self._threads:
            thread.join()
        self._happen(float("inf"))

    def _go_on(self) -> None:
        """Give the baton to the next thread; at the end, or when nothing can go on, to the one that called `run`."""
        if not self._running:
            self._main.give()
            return
        try:
            self._next().give()
        except BaseException as error:  # noqa: BLE001 - raised by `run`
            self._stop(error)

    def _stop(self, error: BaseException) -> None:
        """No thread goes on."""
        self._stopped = error
        self._main.give()

    def _next(self) -> _Baton:
        if not self._waiting:
            raise RuntimeError("a thread waits for something else than the scheduler")
        at_s, _, _, baton = heapq.heappop(self._waiting)
        self._happen(at_s)
        self.now_s = max(self.now_s, at_s)
        if self.now_s > self._until_s:
            raise TimeoutError(f"not ended after {self._until_s} s of the virtual clock")
        self.steps += 1
        return baton

    def _push(self, at_s: float, baton: _Baton) -> None:
        self._count += 1
        heapq.heappush(self._waiting, (at_s, self.random.random(), self._count, baton))

    def _happen(self, until_s: float) -> None:
        while self.due and self.due[0][0] <= until_s:
            at_s, _, effect = heapq.heappop(self.due)
            self.now_s = max(self.now_s, at_s)
            effect()
