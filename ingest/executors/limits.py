"""How much memory a worker process may use, and how its end is explained."""

from __future__ import annotations

import math
import re
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from schemas.errors import ConfigError

MIB = 1024 * 1024
EPISODE_MIB = 256  # the least that is left for an episode
STEP_MIB = 64  # advice is rounded up to a multiple of this


def data_mib() -> int:
    """Private writable memory of this process in MiB: what RLIMIT_DATA counts."""
    match = re.search(r"VmData:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(match[1]) // 1024 if match else 0


@cache
def idle_mib() -> int:
    """`data_mib` of this process before its first episode."""
    return data_mib()


def shortage(limit_mib: int) -> str:
    """Why no episode fits into `limit_mib` in this process; "" when one does."""
    needed = idle_mib() + EPISODE_MIB
    if limit_mib >= needed:
        return ""
    advice = math.ceil(needed / STEP_MIB) * STEP_MIB
    return (
        f"--memory-limit-mb {limit_mib} MiB is too low: a worker process uses {idle_mib()} MiB before its first episode "
        f"and needs {EPISODE_MIB} MiB for an episode; use --memory-limit-mb {advice} or more"
    )


@contextmanager
def memory_limit(mib: int) -> Iterator[None]:
    """Bound private memory while an episode is processed, and only then: what surrounds the episode never runs short.

    RLIMIT_DATA, not RLIMIT_AS: the latter counts Ray's shared object store too.

    Raises:
        ConfigError: the process needs more than `mib` for itself.
    """
    problem = shortage(mib)
    if problem:
        raise ConfigError(problem)
    before, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (mib * MIB, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (before, hard))


def exit_reason(exit_code: int) -> str:
    """How a process ended, by its exit code as `multiprocessing` gives it."""
    if exit_code >= 0:
        return f"worker process ended with exit code {exit_code}"
    name = signal.Signals(-exit_code).name
    hint = " (often the kernel, out of memory)" if -exit_code == signal.SIGKILL else ""
    return f"worker process was killed by {name}{hint}"
