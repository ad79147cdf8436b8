"""A thread that takes what this one makes, one item behind it: neither waits for the other but for who is slower."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from schemas.errors import InvariantError

T = TypeVar("T")  # an item
R = TypeVar("R")  # what is made of all


class BackgroundWriter(Generic[T, R]):
    """Sends items to a generator whose steps run in `thread`, an executor of one thread.

    `taker` is sent each item, then None, and returns. There is no queue to wait at: each step ends by itself, so that nobody is left
    waiting for one who is gone.
    """

    def __init__(self, taker: Generator[None, T | None, R], thread: ThreadPoolExecutor) -> None:
        self._taker, self._thread = taker, thread
        self._step: Future[None] = thread.submit(next, taker)

    def send(self, item: T) -> None:
        """Waits until the item before is taken, and raises what `taker` raised."""
        self._step.result()
        self._step = self._thread.submit(self._taker.send, item)

    def end(self) -> Future[R]:
        """That was all. What `taker` returns or raises, later."""
        return self._thread.submit(self._returned, self._step)

    def throw(self, error: Exception) -> Future[R]:
        """There will be no more: `taker` is left by the error, which the future raises, or what it raised itself before."""
        return self._thread.submit(self._left, self._step, error)

    def _returned(self, step: Future[None]) -> R:
        step.result()  # it has ended: there is one thread
        try:
            self._taker.send(None)
        except StopIteration as end:
            returned: R = end.value
            return returned
        raise InvariantError("who takes items goes on after the last one")

    def _left(self, step: Future[None], error: Exception) -> R:
        step.result()
        self._taker.throw(error)
        raise InvariantError("who takes items goes on after an error")
