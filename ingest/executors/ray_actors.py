"""Ray actors that hold something heavy, an encoder on a part of a GPU say, fed by tasks that need only a CPU."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from math import ceil
from typing import Any, Generic, TypeVar

from ingest.executors.node_proof import SharedView
from ingest.executors.ray import RayExecutor, memory_text
from ingest.executors.ray_worker import Submit
from ingest.recipe import Limits
from ingest.storage.local import LocalStorage
from schemas.errors import Code, ConfigError
from schemas.outcome import WorkerFailure

H = TypeVar("H")  # what an actor holds
W = TypeVar("W")  # a work
P = TypeVar("P")  # a part of a work
Q = TypeVar("Q")  # what a task makes of a part
R = TypeVar("R")  # what an actor makes of a work


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TaskParts(Generic[P, Q]):
    """What tasks make of the parts of a work, in order, or how they ended.

    Those that have begun wait while the actor is at another work. Each that is asked for begins one of the `later`, so that a long work
    has no more of them under way or waiting than a short one.
    """

    begun: Sequence[Any]  # references to the first
    later: Sequence[P]
    begin: Callable[[P], Any]
    result: Callable[[Any], Q | WorkerFailure]

    def __iter__(self) -> Iterator[Q | WorkerFailure]:
        under_way, later = deque(self.begun), iter(self.later)
        while under_way:
            first = under_way.popleft()
            under_way.extend(map(self.begin, islice(later, 1)))
            yield self.result(first)


class _Holder:
    """A Ray actor: holds something heavy for as long as it lives."""

    def __init__(self, hold: Callable[[], Any]) -> None:
        self.held = hold()

    def is_ready(self) -> bool:
        return True

    def finish(self, body: Callable[..., Any], work: Any, parts: TaskParts[Any, Any]) -> Any:
        return body(self.held, work, iter(parts))


class RayActors:
    """A pool of actors.

    What a task returns goes to its actor through Ray's object store, one part after the other; the driver sees what the actor makes of
    the whole. Actors count as no CPU: on a small cluster they would take those that the tasks need, and nothing would ever move.
    """

    RESTARTS = 10  # of an actor: a work that kills one fails, the others go on
    START_S = 300.0  # for what an actor holds to be there; a network of weights takes a minute
    SAY_S = 40.0  # until it is said that some have not begun
    AHEAD = 4  # parts of a work that are under way or wait, besides the one in hand: at least, more where each actor has more CPUs

    def __init__(
        self,
        limits: Limits,
        *,
        address: str | None,
        workers: int | None,
        gpus_each: float,
        notify: Callable[[str], None] = lambda message: None,
    ) -> None:
        self._tasks = RayExecutor(limits, address=address, workers=workers, notify=notify)
        self.limits, self.gpus_each = limits, gpus_each
        self.count = 1

    def connect(self) -> None:
        """As `RayExecutor.connect`."""
        self._tasks.connect()

    def share(self, view: SharedView, is_doubtful: Callable[[Any, Any], bool]) -> None:
        """As `node_proof.Distributed`; what is doubtful stays as it is, the next run makes it."""
        self._tasks.share(view, is_doubtful)

    def expect(self, num_work: int) -> None:
        """As `node_proof.Distributed`; the GPUs of the cluster decide how much is done at a time."""

    def close(self) -> None:
        """As `node_proof.Distributed`."""
        self._tasks.close()

    @property
    def excluded(self) -> dict[str, str]:
        """Node id -> its name and why it gets no work."""
        return self._tasks.excluded

    def num_tasks(self) -> int:
        """How many run at once in the cluster as it is now."""
        return self._tasks.slots()

    def planned(self) -> tuple[int, float]:
        """(actors, share of a GPU for each) in the cluster as it is now; one on a CPU where there are no GPUs or none are wanted."""
        gpus = sum(node.gpus for node in self._tasks.nodes())
        share = self.gpus_each if gpus else 0.0
        # by whole GPUs: an actor cannot have a part of two
        return (max(1, int(gpus) * int(1.0 / share + 1e-6)) if share else 1), share

    def run(
        self,
        next_work: Callable[[], W | None],
        split: Callable[[W], Sequence[P]],
        prepare: Callable[[P, LocalStorage], Q],
        hold: Callable[[], H],
        finish: Callable[[H, W, Iterator[Q | WorkerFailure]], R],
    ) -> Iterator[tuple[W, R | WorkerFailure]]:
        """`finish(held, work, (prepare(part) for part in split(work)))` for all work, in any order.

        Raises:
            ConfigError: an actor cannot be made; or what `finish` raised of that kind, or as an OSError.
        """
        self.connect()
        try:
            actors = self._actors(hold)
            yield from self._run(next_work, split, prepare, finish, actors)
        finally:
            self._tasks.close()

    def _actors(self, hold: Callable[[], Any]) -> list[Any]:
        import ray

        self.count, share = self.planned()
        actor_class: Any = ray.remote(
            num_cpus=0,
            num_gpus=share,
            max_restarts=self.RESTARTS,
            label_selector=self._tasks.selector(),
        )(_Holder)
        actors = [actor_class.remote(hold) for _ in range(self.count)]
        waiting = {actor.is_ready.remote(): actor for actor in actors}
        ready, late = ray.wait(list(waiting), num_returns=len(actors), timeout=self.SAY_S)
        if late:
            begun = f"{len(ready)} of {len(actors)} encoders have started within {self.SAY_S:g} s"
            self._tasks.notify(f"{begun}; each needs {share:g} of a GPU; waiting for the others")
            rest_s = self.START_S - self.SAY_S
            ready, _ = ray.wait(list(waiting), num_returns=len(actors), timeout=rest_s)
        try:
            ray.get(ready)
        except ray.exceptions.RayError as error:
            problem = f"an actor cannot be created on this node: {str(error).splitlines()[-1]}"
            raise ConfigError(problem, where="ray") from error
        if not ready:
            problem = f"no actor has started within {self.START_S:g} s"
            raise ConfigError(problem, remedy="check that the cluster has free GPUs", where="ray")
        self.count = len(ready)  # others may hold the rest of the GPUs; what waits is let go
        return [waiting[reference] for reference in ready]

    def _run(
        self,
        next_work: Callable[[], W | None],
        split: Callable[[W], Sequence[P]],
        prepare: Callable[[P, LocalStorage], Q],
        finish: Callable[[H, W, Iterator[Q | WorkerFailure]], R],
        actors: list[Any],
    ) -> Iterator[tuple[W, R | WorkerFailure]]:
        import ray

        begin = partial(_begun, self._tasks.submission(), prepare)
        flying: dict[Any, tuple[W, int, int]] = {}  # its actor and number of parts that have begun
        load = [0] * len(actors)
        slots = self._tasks.slots()
        most = 2 * (slots + len(actors))
        ahead = max(self.AHEAD, ceil(slots / len(actors)))  # one long work alone keeps them busy
        while True:
            self._tasks.check()
            while sum(load) < most and (work := next_work()) is not None:
                parts = split(work)
                begun = [begin(part) for part in parts[:ahead]]
                later = parts[ahead:]
                task_parts = TaskParts(begun=begun, later=later, begin=begin, result=_task_result)
                at = load.index(min(load))
                flying[actors[at].finish.remote(finish, work, task_parts)] = (work, at, len(begun))
                load[at] += len(begun)
            if not flying:
                break
            done, _ = ray.wait(list(flying), num_returns=1, timeout=5.0)
            for reference in done:
                work, at, num_parts = flying.pop(reference)
                load[at] -= num_parts
                yield work, _finished(reference)


def _begun(submit: Submit, prepare: Callable[[P, LocalStorage], Any], part: P) -> Any:
    """A reference to what the task will make of a part."""
    return submit(part, prepare)


def _task_result(reference: Any) -> Any:
    """What a task made, or how it ended; a node that does not see what the driver sees is no fault of the part."""
    ended = _finished(reference)
    if isinstance(ended, WorkerFailure):
        return ended
    _, problem, result = ended
    if problem:
        return WorkerFailure(code=Code.WORKER_DIED, how=problem, node_lost=True)
    return result


def _finished(reference: Any) -> Any:
    """What an actor or a task made, or how its process ended.

    Raises:
        ConfigError, OSError: what it raised of these.
    """
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.OutOfMemoryError as error:
        return WorkerFailure(code=Code.NODE_MEMORY_FULL, how=memory_text(str(error)))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, ConfigError | OSError):
            raise error.cause from error
        how = f"{error.cause!r}"
        return WorkerFailure(code=Code.WORKER_DIED, how=how)
    except ray.exceptions.NodeDiedError as error:
        return WorkerFailure(code=Code.NODE_LOST, how=str(error).splitlines()[0], node_lost=True)
    except ray.exceptions.RayError as error:
        return WorkerFailure(code=Code.WORKER_DIED, how=str(error).splitlines()[0])
