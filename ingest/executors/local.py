"""Runs the worker body in processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from itertools import islice
from multiprocessing import resource_tracker
from types import TracebackType
from typing import Any, TypeVar

from pebble import ProcessExpired, ProcessPool

from ingest.executors.crash_report import is_more, oom_kills, plus_one
from ingest.executors.inline import Placement, exit_reason, memory_limit, timed
from ingest.recipe import Limits
from ingest.storage.local import LocalStorage
from schemas.errors import Code, TransientError
from schemas.outcome import WorkerFailure

# At most so long without a look at signals: the kernel may give one to another thread, and then nothing wakes this one.
LISTEN_S = 0.2

OOM_KILLED_HOW = "the kernel killed a process of the machine or container for memory while the episode was processed"

W = TypeVar("W")
R = TypeVar("R")


class LocalPool:
    """Worker processes that each have a time and a memory limit. They end with the pool, and with this process."""

    def __init__(self, num_workers: int, limits: Limits) -> None:
        self._limits = limits
        self._oom_kills = oom_kills()
        self._pool = ProcessPool(
            max_workers=num_workers,
            initializer=_enter_worker,
            initargs=[os.getpid()],
            context=multiprocessing.get_context("spawn"),  # never fork: threads of libav and Arrow
        )

    def __enter__(self) -> LocalPool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._pool.close()
        self._pool.stop()
        self._pool.join()

    def submit(self, body: Callable[[W, LocalStorage], R], work: W) -> Future[R]:
        args = [body, work, self._limits.memory_limit_mib]
        with _interrupts_blocked():
            future: Future[R] = self._pool.schedule(
                _limited, args=args, timeout=self._limits.time_limit_s
            )
        return future

    def result(self, future: Future[Any]) -> Any:
        """What the body returned, or how its process ended.

        Raises:
            ConfigError: the memory limit is below what a worker process needs for itself.
            TransientError: workers end before they begin.
        """
        try:
            return future.result()
        except TimeoutError:
            how = f"stopped after the time limit of {self._limits.time_limit_s:g} s"
            return WorkerFailure(code=Code.TIME_LIMIT, how=how)
        except ProcessExpired as error:
            return self._expired(int(error.exitcode))
        except BrokenProcessPool as error:
            reason = (
                "worker processes end during start-up; check that the machine has enough memory"
            )
            raise TransientError(reason, remedy="run the same command again to resume") from error

    def _expired(self, exit_code: int) -> WorkerFailure:
        """Of a process that ended without an answer. Each kill of the kernel for memory accounts for one of them."""
        kills = oom_kills()
        if exit_code == -signal.SIGKILL and is_more(kills, self._oom_kills):
            self._oom_kills = plus_one(self._oom_kills, kills)
            return WorkerFailure(code=Code.OOM_KILLED, how=OOM_KILLED_HOW)
        return WorkerFailure(code=Code.WORKER_DIED, how=exit_reason(exit_code))


class LocalExecutor:
    """`workers` processes on this machine, each with a time and a memory limit."""

    name = "local"

    def __init__(self, workers: int, limits: Limits) -> None:
        self.workers, self.limits = workers, limits
        self.latest = Placement()

    def run(
        self, next_work: Callable[[], W | None], body: Callable[[W, LocalStorage], R]
    ) -> Iterator[tuple[W, R | WorkerFailure]]:
        ready = list(islice(iter(next_work, None), 2 * self.workers))
        flying: dict[Future[Any], W] = {}
        # No process without work: one that is still starting when the pool ends says so on standard error.
        with LocalPool(max(1, min(self.workers, len(ready))), self.limits) as pool:
            while True:
                # Two in hand for each worker keep the pool busy while the driver commits.
                while len(flying) < 2 * self.workers:
                    work = ready.pop(0) if ready else next_work()
                    if work is None:
                        break
                    flying[pool.submit(partial(timed, body), work)] = work
                if not flying:
                    break
                for future in wait(flying, LISTEN_S, return_when=FIRST_COMPLETED).done:
                    yield flying.pop(future), self._placed(pool.result(future))

    def _placed(self, ended: Any) -> Any:
        """The result without its time, which goes to `latest`."""
        is_dead = isinstance(ended, WorkerFailure)
        seconds, result = (0.0, ended) if is_dead else ended
        self.latest = Placement(node=platform.node(), seconds=seconds)
        return result


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Block SIGINT in this thread, so that the threads and processes which it starts inherit the mask.

    Ctrl-C is sent to every process of the terminal, and a worker that is still importing prints a traceback of it.
    """
    resource_tracker.ensure_running()  # a start of it inside the block unblocks SIGINT
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _enter_worker(driver: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to handle
    threading.Thread(target=_end_with, args=[driver], daemon=True).start()


def _end_with(driver: int) -> None:
    """End this process when the driver is gone: an orphan would go on writing where the next run works."""
    while os.getppid() == driver:
        time.sleep(0.2)
    os._exit(1)


def _limited(body: Callable[[Any, LocalStorage], Any], work: Any, memory_limit_mib: int) -> Any:
    with memory_limit(memory_limit_mib):
        return body(work, LocalStorage())
