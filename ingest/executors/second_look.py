"""What a node calls absent although the driver saw it is read once more, in a process beside the driver."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any

from ingest.executors.local import LocalPool
from ingest.executors.ray_worker import Body
from ingest.recipe import Limits


class SecondLook:
    """The worker body in a process beside the driver, which sees what the driver sees."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._pool: LocalPool | None = None
        self.looking: dict[Future[Any], tuple[Any, str, Any]] = {}

    def __enter__(self) -> SecondLook:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if self._pool is not None:
            self._pool.__exit__(kind, error, trace)

    def look(self, body: Body, work: Any, node_id: str, claimed: Any) -> None:
        self._pool = self._pool or LocalPool(1, self._limits)
        self.looking[self._pool.submit(body, work)] = (work, node_id, claimed)

    def done(self, wait_s: float) -> Iterator[tuple[Any, str, Any, Any]]:
        """(work, node, what it claimed, what is so)."""
        if not self.looking or self._pool is None:
            return
        for future in wait(self.looking, wait_s, return_when=FIRST_COMPLETED).done:
            yield *self.looking.pop(future), self._pool.result(future)
