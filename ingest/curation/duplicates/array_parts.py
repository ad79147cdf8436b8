"""Work over large arrays in parts: in this process, in worker processes, or on Ray.

The bounds of the parts depend on the arrays alone, never on how many workers there are, so that the results are the same anywhere. A worker
maps the arrays from files, so that they are in memory once for each machine.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import numpy.typing as npt

from ingest.executors.inline import Executor
from ingest.storage.local import LocalStorage
from schemas.errors import TransientError
from schemas.outcome import WorkerFailure

Arrays = Mapping[str, npt.NDArray[Any]]
R = TypeVar("R")
# A function of a module, or a `partial` of one: it travels by name.
Body = Callable[[Arrays, int, int], R]
ATTEMPTS = 3  # of one part whose process ended


class PartRunner(Protocol):
    """Where parts are worked on."""

    def map(self, body: Body[R], arrays: Arrays, bounds: Sequence[int]) -> list[R]:
        """`body(arrays, first, end)` of each part, in order; `bounds` are the starts of the parts and the end of the last one."""
        ...


class InlineParts:
    """In this process, one part after the other."""

    def map(self, body: Body[R], arrays: Arrays, bounds: Sequence[int]) -> list[R]:
        return [body(arrays, first, end) for first, end in pairwise(bounds)]


INLINE = InlineParts()


def bounds_of(count: int, size: int) -> list[int]:
    """Bounds of parts of `size` elements; the last part may have fewer."""
    return [*range(0, count, size), count] if count else [0]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredArray:
    """An array in a file of raw bytes."""

    path: str
    dtype: str
    shape: tuple[int, ...]

    def open(self) -> npt.NDArray[Any]:
        if 0 in self.shape:
            return np.zeros(self.shape, self.dtype)
        return np.memmap(self.path, dtype=self.dtype, mode="r", shape=self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayPartWork:
    """One part. Small enough to travel."""

    number: int
    body: Body[Any]
    arrays: Mapping[str, StoredArray]
    first: int
    end: int
    attempt: int = 1


def work_on_part(work: ArrayPartWork, disk: LocalStorage) -> Any:
    """The worker body."""
    arrays = {name: stored.open() for name, stored in work.arrays.items()}
    return work.body(arrays, work.first, work.end)


class ExecutorParts:
    """On an executor, one run of it for all calls of `map`. Make it by `parts_on`."""

    def __init__(self, executor: Executor, disk: LocalStorage, folder: Path) -> None:
        self._disk, self._folder = disk, folder
        self._waiting: deque[ArrayPartWork] = deque()
        self._results = cast(
            Iterator[tuple[ArrayPartWork, Any]], executor.run(self._next, work_on_part)
        )
        self._stored: dict[int, tuple[npt.NDArray[Any], StoredArray]] = {}

    def map(self, body: Body[R], arrays: Arrays, bounds: Sequence[int]) -> list[R]:
        """
        Raises:
            TransientError: the process of a part ended again and again.
        """
        if len(bounds) <= 2:  # not worth a process
            return INLINE.map(body, arrays, bounds)
        stored = {name: self._file_of(array) for name, array in arrays.items()}
        for number, (first, end) in enumerate(pairwise(bounds)):
            self._waiting.append(
                ArrayPartWork(number=number, body=body, arrays=stored, first=first, end=end)
            )
        out: dict[int, R] = {}
        while len(out) < len(bounds) - 1:
            work, result = next(self._results)
            if isinstance(result, WorkerFailure):
                self._waiting.append(_again(work, result))
            else:
                out[work.number] = result
        return [out[number] for number in range(len(out))]

    def close(self) -> None:
        """End the workers and remove the files."""
        cast(Any, self._results).close()
        self._disk.remove_tree(self._folder)

    def _next(self) -> ArrayPartWork | None:
        return self._waiting.popleft() if self._waiting else None

    def _file_of(self, array: npt.NDArray[Any]) -> StoredArray:
        """An array is written once; it is kept, so that no other one has its id."""
        if id(array) not in self._stored:
            path = self._folder / f"{len(self._stored)}.bin"
            with self._disk.atomic_writer(path) as file:
                file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
            file_stored = StoredArray(path=str(path), dtype=array.dtype.str, shape=array.shape)
            self._stored[id(array)] = array, file_stored
        return self._stored[id(array)][1]


def _again(work: ArrayPartWork, failure: WorkerFailure) -> ArrayPartWork:
    if work.attempt >= ATTEMPTS:
        message = (
            f"a worker process ended {work.attempt} times: {failure.code.value}: {failure.how}"
        )
        raise TransientError(message, remedy="run the same command again with fewer --workers")
    return ArrayPartWork(
        number=work.number,
        body=work.body,
        arrays=work.arrays,
        first=work.first,
        end=work.end,
        attempt=work.attempt + 1,
    )


@contextmanager
def parts_on(executor: Executor, disk: LocalStorage, folder: Path) -> Iterator[ExecutorParts]:
    """Parts on an executor; `folder`, which every worker sees, is made here and removed at the end."""
    disk.make_dir(folder)
    parts = ExecutorParts(executor, disk, folder)
    try:
        yield parts
    finally:
        parts.close()
