"""How many threads a process computes with beside others: arithmetic; who reads the machine is `jobs/machine.py`."""

from __future__ import annotations

from math import floor


def threads_for(cores: int, load: float, *, quota_cores: float | None = None) -> int:
    """Threads for matrix products, at least 1.

    One fewer for each core that others keep busy: a parallel section ends with its slowest thread, so one that waits for a core holds up all. (A
    small network with two threads on two cores took 15 to 25 times as long for a step as with one, where others wanted the cores too.)

    Args:
        cores: that this process may use. load: how many are busy, in the mean of the last minute. quota_cores: of a container, where it has one.
    """
    usable = cores if quota_cores is None else min(cores, quota_cores)
    return max(1, floor(usable - load + 0.5))
