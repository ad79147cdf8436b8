"""How much at a time: a request that finds no free place is refused at once, so that none waits in a thread of the pool."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from jobs.service.errors import busy


@contextmanager
def place(places: threading.BoundedSemaphore, message: str) -> Iterator[None]:
    """Hold one of some places.

    Raises:
        ApiError: 503 with the message; all are taken.
    """
    if not places.acquire(blocking=False):
        raise busy(message)
    try:
        yield
    finally:
        places.release()
