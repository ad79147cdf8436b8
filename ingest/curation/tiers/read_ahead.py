"""Work that threads do ahead of the one who takes the results, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
WORKERS = 2  # Arrow and NumPy let go of the interpreter while they read and gather
AHEAD = 6  # results that wait for their turn


def ahead(tasks: Iterable[Callable[[], T]]) -> Iterator[T]:
    """The result of each task, the next ones under way."""
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(WORKERS) as pool:
        for task in tasks:
            waiting.append(pool.submit(task))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
