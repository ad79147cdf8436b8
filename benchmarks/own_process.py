"""A measurement in a process of its own, so that its memory is not that of what comes next."""

from __future__ import annotations

import multiprocessing
import resource
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any


def in_own_process(work: Callable[..., Any], *arguments: Any) -> Any:
    """What it returns, from a fresh process.

    Raises:
        SystemExit: it came to no end.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(work, *arguments).result()
        except BrokenProcessPool as error:
            raise SystemExit(f"{work.__name__} was killed: out of memory?") from error


def peak_rss_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
