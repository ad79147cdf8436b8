"""The executor contract, the executor that runs the worker body in this process, and the memory limit of worker processes."""

from __future__ import annotations

import math
import platform
import re
import resource
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

from ingest.storage.local import LocalStorage
from schemas.errors import ConfigError
from schemas.outcome import WorkerFailure

MIB = 1024 * 1024
EPISODE_MIB = 256  # the least that is left for an episode
STEP_MIB = 64  # advice is rounded up to a multiple of this
DRIVER = "the driver"  # the node of a result that the driver itself looked for


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
    hint = " (often by the kernel, because memory is full)" if -exit_code == signal.SIGKILL else ""
    return f"worker process was killed by {name}{hint}"


W = TypeVar("W")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a result was made and how long that took, the wait for a worker not included."""

    node: str = ""
    seconds: float = 0.0


@runtime_checkable
class Located(Protocol):
    """An executor that knows where a result was made."""

    latest: Placement  # of the result that was yielded last


@runtime_checkable
class Monitored(Protocol):
    """An executor that has series for a monitoring system."""

    def observe(self, tags: Mapping[str, str], seconds: float, waiting: int) -> None:
        """One episode has ended.

        Args:
            tags: state, code, source and node.
            waiting: results that wait for an earlier one.
        """
        ...


class Executor(Protocol):
    """Where work runs."""

    name: str

    def run(
        self, next_work: Callable[[], W | None], body: Callable[[W, LocalStorage], R]
    ) -> Iterator[tuple[W, R | WorkerFailure]]:
        """Run `body` on work until `next_work` returns None with nothing left in flight; it may have more work later.

        `body` is a plain function of a module that turns every ending into a value: what it raises is a bug.
        """
        ...


def timed(body: Callable[[W, LocalStorage], R], work: W, disk: LocalStorage) -> tuple[float, R]:
    """(seconds, what the body makes of the work)."""
    began_s = time.monotonic()
    result = body(work, disk)
    return time.monotonic() - began_s, result


class InlineExecutor:
    """In this process, one after the other: for tests and debugging. A crash takes the driver with it."""

    name = "inline"

    def __init__(self, disk: LocalStorage | None = None) -> None:
        self.disk = disk or LocalStorage()
        self.latest = Placement()

    def run(
        self, next_work: Callable[[], W | None], body: Callable[[W, LocalStorage], R]
    ) -> Iterator[tuple[W, R | WorkerFailure]]:
        while (work := next_work()) is not None:
            seconds, result = timed(body, work, self.disk)
            self.latest = Placement(node=platform.node(), seconds=seconds)
            yield work, result
