"""Runs the worker body: inline, in local processes, or on Ray. The same body, the same bytes.

An executor pulls work while it has room and yields results as they end, in any order. A worker that vanishes is a
`Death`, and only the driver decides what two of them mean. This is the only file that catches everything: an unknown exception becomes a
`failed` outcome with its address, never a lost episode. Ray is imported here and in `ingest/executor_actors.py` only.
"""

from __future__ import annotations

import errno
import faulthandler
import multiprocessing
import os
import resource
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, TypeVar

from pebble import ProcessExpired, ProcessPool
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from ingest.disk import Disk
from ingest.process import Work, process
from ingest.recipe import Limits
from schemas.errors import Code, ConfigError, PipelineError, TransientError
from schemas.outcome import Outcome, State

DISK_FULL, IO_ERROR, INTERNAL_ERROR = "disk_full", "io_error", "internal_error"
CONNECT_S = 10.0  # to reach a cluster
TRIES = 3  # of one attempt at an episode, when storage hiccups


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """A worker process that ended without an answer.

    `took_machine`: the whole node went with it (a spot instance, say), which says nothing about the episode.
    """

    code: Code
    how: str
    took_machine: bool = False


Result = Outcome | Death
NextWork = Callable[[], Work | None]
W = TypeVar("W")
R = TypeVar("R")


class Executor(Protocol):
    """Where work runs."""

    name: str

    def run(
        self, next_work: Callable[[], W | None], body: Callable[[W, Disk], R]
    ) -> Iterator[tuple[W, R | Death]]:
        """Run `body` on work until `next_work` returns None with nothing left in flight; it may have more work later.

        `body` is a plain function of a module that turns every ending into a value: what it raises is a bug.
        """
        ...


def guarded(work: Work, disk: Disk) -> Outcome:
    """The worker body with every ending turned into an outcome."""
    retrying = Retrying(
        retry=retry_if_exception_type(TransientError),
        stop=stop_after_attempt(TRIES),
        wait=wait_random_exponential(multiplier=0.2, max=5),
        reraise=True,
    )
    uid = work.ref.uid
    try:
        return retrying(process, work, disk)
    except MemoryError as error:
        found = f"out of memory: {error}; raise --memory-limit or cut the recording"
        return Outcome(
            uid=uid, state=State.QUARANTINED, code=Code.OUT_OF_MEMORY.value, message=found
        )
    except OSError as error:
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        code = DISK_FULL if is_full else IO_ERROR
        return Outcome(uid=uid, state=State.FAILED, code=code, message=str(error))
    except PipelineError as error:
        return Outcome(uid=uid, state=State.FAILED, code=type(error).__name__, message=str(error))
    except Exception as error:  # noqa: BLE001  an unknown crash is counted with its address, not lost
        at = traceback.extract_tb(error.__traceback__)[-1]
        found = f"{error!r} at {os.path.basename(at.filename)}:{at.lineno} in {at.name}"
        return Outcome(uid=uid, state=State.FAILED, code=INTERNAL_ERROR, message=found)


class InlineExecutor:
    """In this process, one after the other: for tests and debugging. A crash takes the driver with it."""

    name = "inline"

    def __init__(self, disk: Disk | None = None) -> None:
        self.disk = disk or Disk()

    def run(
        self, next_work: Callable[[], W | None], body: Callable[[W, Disk], R]
    ) -> Iterator[tuple[W, R | Death]]:
        while (work := next_work()) is not None:
            yield work, body(work, self.disk)


class LocalExecutor:
    """`workers` processes on this machine, each with a time and a memory limit."""

    name = "local"

    def __init__(self, workers: int, limits: Limits) -> None:
        self.workers, self.limits = workers, limits

    def run(
        self, next_work: Callable[[], W | None], body: Callable[[W, Disk], R]
    ) -> Iterator[tuple[W, R | Death]]:
        ready = list(islice(iter(next_work, None), 2 * self.workers))
        pool = ProcessPool(
            # No process without work: one that is still starting when the pool ends says so on standard error.
            max_workers=max(1, min(self.workers, len(ready))),
            initializer=_enter_worker,
            initargs=[self.limits.memory_limit_mib, os.getpid()],
            context=multiprocessing.get_context("spawn"),  # never fork: threads of libav and Arrow
        )
        flying: dict[Future[R], W] = {}
        try:
            while True:
                # Two in hand for each worker keep the pool busy while the driver commits.
                while len(flying) < 2 * self.workers:
                    work = ready.pop(0) if ready else next_work()
                    if work is None:
                        break
                    limit = self.limits.time_limit_s
                    flying[pool.schedule(body, args=[work, Disk()], timeout=limit)] = work
                if not flying:
                    break
                for future in wait(flying, return_when=FIRST_COMPLETED).done:
                    yield flying.pop(future), self._result(future)
            pool.close()
        finally:
            pool.stop()
            pool.join()

    def _result(self, future: Future[Any]) -> Any:
        try:
            return future.result()
        except TimeoutError:
            found = f"still working after {self.limits.time_limit_s:g} s; stopped"
            return Death(code=Code.TIME_LIMIT, how=found)
        except ProcessExpired as error:
            return Death(code=Code.WORKER_DIED, how=_how(int(error.exitcode)))


def _how(exit_code: int) -> str:
    if exit_code >= 0:
        return f"worker process ended with exit code {exit_code}"
    name = signal.Signals(-exit_code).name
    hint = " (often the kernel, out of memory)" if -exit_code == signal.SIGKILL else ""
    return f"worker process was killed by {name}{hint}"


def _enter_worker(memory_limit_mib: int, driver: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to handle
    _limit_memory(memory_limit_mib)
    threading.Thread(target=_end_with, args=[driver], daemon=True).start()


def _end_with(driver: int) -> None:
    """End this process when the driver is gone: an orphan would go on writing where the next run works."""
    while os.getppid() == driver:
        time.sleep(0.2)
    os._exit(1)


def _limit_memory(mib: int) -> None:
    """Bound private memory. RLIMIT_DATA, not RLIMIT_AS: the latter counts Ray's shared object store too."""
    limit = mib * 1024 * 1024
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def _on_ray(work: W, limits: Limits, body: Callable[[W, Disk], R]) -> R:
    """The body of a Ray task. The watchdog is faulthandler's: a C thread, which a stuck decoder cannot hold up."""
    _limit_memory(limits.memory_limit_mib)
    with open(os.devnull, "w") as sink:
        faulthandler.dump_traceback_later(limits.time_limit_s, exit=True, file=sink)
        try:
            return body(work, Disk())
        finally:
            faulthandler.cancel_dump_traceback_later()


class RayExecutor:
    """Ray Core tasks with a bounded window; no retries of Ray's own, the ledger counts attempts."""

    name = "ray"

    def __init__(self, limits: Limits, *, address: str | None, workers: int | None) -> None:
        self.limits, self.address, self.workers = limits, address, workers
        self.is_ours = False

    def run(
        self, next_work: Callable[[], W | None], body: Callable[[W, Disk], R]
    ) -> Iterator[tuple[W, R | Death]]:
        import ray

        self.connect()
        try:
            yield from self._run(next_work, body)
        finally:
            if self.is_ours:
                ray.shutdown()

    def connect(self) -> None:
        """Reach the cluster, or start one on this machine.

        Raises:
            ConfigError: nobody answers at the address.
        """
        import ray

        if ray.is_initialized():
            return
        self.is_ours = True
        host, _, port = (self.address or "").rpartition(":")
        try:
            if host and port.isdigit() and "//" not in host:
                # Ray itself would try for minutes.
                socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
            self._init()
        except (OSError, ValueError) as error:
            found = f"no Ray cluster answers: {error}"
            raise ConfigError(found, where=f"--address {self.address}") from error

    def _init(self) -> None:
        import ray

        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
        if self.address is not None:
            ray.init(address=self.address, **quiet)
        else:
            ray.init(address="local", num_cpus=self.workers, include_dashboard=False, **quiet)

    def _run(
        self, next_work: Callable[[], W | None], body: Callable[[W, Disk], R]
    ) -> Iterator[tuple[W, R | Death]]:
        import ray

        task = self.task()
        flying: dict[Any, tuple[W, float]] = {}
        while True:
            while len(flying) < 2 * self.slots() and (work := next_work()) is not None:
                flying[task.remote(work, self.limits, body)] = (work, time.monotonic())
            if not flying:
                break
            done, _ = ray.wait(list(flying), num_returns=1, timeout=5.0)
            for reference in done:
                work, since = flying.pop(reference)
                yield work, self._result(reference, time.monotonic() - since)

    def task(self) -> Any:
        """`_on_ray` as a remote function with what an episode needs reserved for it."""
        import ray

        threads = self.limits.threads_per_episode
        return ray.remote(num_cpus=threads, max_retries=0, memory=self._memory(threads))(_on_ray)

    def slots(self) -> int:
        """How many episodes the cluster works on at once; it may grow."""
        import ray

        cpus = int(ray.cluster_resources().get("CPU", 1))
        return max(cpus // self.limits.threads_per_episode, 1)

    def _memory(self, threads: int) -> int:
        """Bytes to reserve for an episode: its limit, or its cores' share of the cluster where that is less."""
        import ray

        limit = self.limits.memory_limit_mib * 1024 * 1024
        have = ray.cluster_resources()
        if not have.get("CPU") or not have.get("memory"):
            return limit
        return min(limit, int(have["memory"] / have["CPU"] * threads * 0.9))

    def _result(self, reference: Any, waited_s: float) -> Any:
        import ray

        try:
            outcome = ray.get(reference)
        except ray.exceptions.OutOfMemoryError as error:
            return Death(code=Code.OUT_OF_MEMORY, how=str(error).splitlines()[0])
        except ray.exceptions.NodeDiedError as error:
            how = str(error).splitlines()[0]
            return Death(code=Code.WORKER_DIED, how=how, took_machine=True)
        except ray.exceptions.WorkerCrashedError as error:
            if waited_s >= self.limits.time_limit_s:
                found = f"still working after {self.limits.time_limit_s:g} s; stopped"
                return Death(code=Code.TIME_LIMIT, how=found)
            return Death(code=Code.WORKER_DIED, how=str(error).splitlines()[0])
        except ray.exceptions.RayTaskError as error:
            found = (
                "the worker body cannot run there; is the same eicorpus installed on every node?"
            )
            raise ConfigError(f"{found} ({str(error).splitlines()[-1]})", where="ray") from error
        except (
            ray.exceptions.RayError
        ) as error:  # a lost object, raylet or owner: the cluster's trouble
            how = str(error).splitlines()[0]
            return Death(code=Code.WORKER_DIED, how=how, took_machine=True)
        return outcome
