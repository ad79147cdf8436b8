"""Transfers between this machine and a bucket, several at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

T = TypeVar("T")
AT_ONCE = 16


def each_at_once(transfer: Callable[[T], None], items: Sequence[T]) -> None:
    """Several at a time. The first error is raised when those under way have ended; the others do not begin."""
    if AT_ONCE == 1 or len(items) == 1:
        for item in items:
            transfer(item)
        return
    pool = ThreadPoolExecutor(AT_ONCE)
    try:
        for done in as_completed([pool.submit(transfer, item) for item in items]):
            done.result()
    finally:
        pool.shutdown(cancel_futures=True)
