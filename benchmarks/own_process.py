"""A measurement in a process of its own, so that its memory is not that of what comes next."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
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
    """Of this program alone: what getrusage says begins with the peak of the parent, through fork and exec."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
