"""What the machine offers to a command: CPU cores within container quotas, their load, and free disk space."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from schemas.errors import ConfigError
from schemas.threads import threads_for


def free_bytes(corpus: Path) -> int:
    """Free space of the file system of a corpus."""
    return shutil.disk_usage(corpus).free


def refuse_without_room(corpus: Path, num_bytes: int, ways: str) -> None:
    """
    Args:
        num_bytes: what the plan writes. ways: options that reduce it.

    Raises:
        ConfigError: more than is free.
    """
    from jobs.ui.output import size_text  # rich, which `--help` does not need

    free = free_bytes(corpus)
    if num_bytes > free:
        problem = (
            f"the plan writes {size_text(num_bytes)}, the file system has {size_text(free)} free"
        )
        shortfall = size_text(num_bytes - free)
        raise ConfigError(problem, remedy=f"free another {shortfall}, or {ways}", where=str(corpus))


CGROUP = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
VARIABLE = "OMP_NUM_THREADS"  # whoever sets it decides


def usable_cores() -> int:
    """Cores this process may use, which in a container is fewer than the machine has; 1.5 cores keep two workers busy."""
    cores, quota = len(os.sched_getaffinity(0)), quota_cores()
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def bound_thread_pools() -> None:
    """Let Polars, Arrow and OpenMP start at most as many threads as there are usable cores. Arrow and OpenMP ignore quotas otherwise.

    They read these variables as they are imported; one that is set stays. DuckDB takes the size of Arrow's pool where a connection is opened.
    """
    count = str(usable_cores())
    os.environ.setdefault("POLARS_MAX_THREADS", count)
    if VARIABLE not in os.environ:
        os.environ.setdefault("OMP_THREAD_LIMIT", count)


def compute_threads() -> int:
    """Threads of torch: from the environment, or the cores that are idle now."""
    limit = os.environ.get(VARIABLE, "").partition(",")[0]
    if limit.isdigit() and int(limit) > 0:
        return int(limit)
    return threads_for(usable_cores(), os.getloadavg()[0], quota_cores=quota_cores())


def quota_cores(cgroup: Path = CGROUP, membership: Path = MEMBERSHIP) -> float | None:
    """The least of the quotas of this process's cgroup and those above it (`cpu.max`, or version 1); None without one."""
    quotas = [_quota(*pair) for pair in _pairs(cgroup, membership)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _pairs(cgroup: Path, membership: Path) -> Iterator[tuple[str, str]]:
    """(quota, period) in microseconds, as the kernel writes them."""
    for line in _text(membership).splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        own = cgroup / path.lstrip("/")
        if "cpu" in controllers.split(","):
            yield from map(_version_1, (cgroup / "cpu" / path.lstrip("/"),))
        elif not controllers:
            above = [each for each in (own, *own.parents) if each.is_relative_to(cgroup)]
            yield from (_version_2(each) for each in above if each != cgroup)
    yield _version_2(cgroup)
    yield _version_1(cgroup / "cpu")


def _version_2(folder: Path) -> tuple[str, str]:
    quota, _, period = _text(folder / "cpu.max").partition(" ")
    return quota, period


def _version_1(folder: Path) -> tuple[str, str]:
    return _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")


def _quota(quota: str, period: str) -> float | None:
    """Cores; None for "max", -1, and what is no number."""
    if not (quota.isdigit() and period.isdigit() and int(period) > 0):
        return None
    return int(quota) / int(period) or None


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
