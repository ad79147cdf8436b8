"""What runs the worker body: the contract, and the executor that runs it inline. The same body, the same bytes everywhere.

An executor pulls work while it has room and yields results as they end, in any order. A worker that vanishes is a
`WorkerFailure`, and only the driver decides what two of them mean. Processes are in `ingest/executors/local.py`, Ray in `ingest/executors/ray.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

from ingest.storage.local import LocalStorage
from schemas.outcome import WorkerFailure

W = TypeVar("W")
R = TypeVar("R")


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


class InlineExecutor:
    """In this process, one after the other: for tests and debugging. A crash takes the driver with it."""

    name = "inline"

    def __init__(self, disk: LocalStorage | None = None) -> None:
        self.disk = disk or LocalStorage()

    def run(
        self, next_work: Callable[[], W | None], body: Callable[[W, LocalStorage], R]
    ) -> Iterator[tuple[W, R | WorkerFailure]]:
        while (work := next_work()) is not None:
            yield work, body(work, self.disk)
