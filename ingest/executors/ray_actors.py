"""Ray actors that hold something heavy, an encoder on a part of a GPU say, fed by tasks that need only a CPU."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from math import ceil
from typing import Any, Generic, TypeVar

from ingest.executors.node_proof import SharedView
from ingest.executors.ray import RayExecutor, memory_text
from ingest.executors.ray_run import TURN_S
from ingest.executors.ray_worker import Submit
from ingest.recipe import Limits
from ingest.storage.local import LocalStorage
from schemas.errors import Code, ConfigError, TransientError
from schemas.outcome import WorkerFailure

H = TypeVar("H")  # what an actor holds
W = TypeVar("W")  # a work
P = TypeVar("P")  # a part of a work
Q = TypeVar("Q")  # what a task makes of a part
R = TypeVar("R")  # what an actor makes of a work

NODES_LOST = 3  # with which a part may go before it counts as failed


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TaskParts(Generic[P, Q]):
    """Each part of a work, in order, with what a task made of it, or how that ended.

    Those that have begun wait while the actor is at another work. Each that is asked for begins one of the `later`, so that a long work
    has no more of them under way or waiting than a short one. One that went with its node is begun again.
    """

    parts: Sequence[P]
    begun: Sequence[Any]  # references to the first
    begin: Callable[[P], Any]
    result: Callable[[Any], Q | WorkerFailure]

    def __iter__(self) -> Iterator[tuple[P, Q | WorkerFailure]]:
        under_way = deque(zip(self.parts, self.begun, strict=False))
        later = iter(self.parts[len(self.begun) :])
        while under_way:
            part, reference = under_way.popleft()
            under_way.extend((each, self.begin(each)) for each in islice(later, 1))
            outcome = self.result(reference)
            for _ in range(NODES_LOST):
                if not (isinstance(outcome, WorkerFailure) and outcome.node_lost):
                    break
                outcome = self.result(self.begin(part))
            yield part, outcome


class _Holder:
    """A Ray actor: holds something heavy for as long as it lives."""

    def __init__(self, hold: Callable[[], Any]) -> None:
        self.held = hold()

    def is_ready(self) -> bool:
        return True

    def finish(self, body: Callable[..., Any], work: Any, parts: TaskParts[Any, Any]) -> Any:
        return body(self.held, work, iter(parts))


class RayActors:
    """A pool of actors, one for each share of a GPU in the cluster as it is: made again when a node goes, and more when one comes.

    What a task returns goes to its actor through Ray's object store, one part after the other; the driver sees what the actor makes of
    the whole. Actors count as no CPU: on a small cluster they would take those that the tasks need, and nothing would ever move.
    A work whose actor goes is done by another one; one that ends the processes of two is given up.
    """

    START_S = 300.0  # for what an actor holds to be there; a network of weights takes a minute
    SAY_S = 40.0  # until it is said that none has begun
    AHEAD = 4  # parts of a work that are under way or wait, besides the one in hand: at least, more where each actor has more CPUs
    MOST_DEATHS = 2  # of processes at one work

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
        finish: Callable[[H, W, Iterator[tuple[P, Q | WorkerFailure]]], R],
        again: Callable[[W], W] = lambda work: work,
    ) -> Iterator[tuple[W, R | WorkerFailure]]:
        """`finish(held, work, ((part, prepare(part)) for part in split(work)))` for all work, in any order.

        Args:
            again: what is done in place of a work whose actor went: it may be at it still, where only the network is broken.

        Raises:
            ConfigError: an actor cannot be made; or what `finish` raised of that kind, or as an OSError.
            TransientError: no actor is left, and none could begin.
        """
        self.connect()
        try:
            self._tasks.cluster.watch()  # nodes come and go
            pool = _Pool(self, self._tasks, hold)
            pool.await_one()
            begin = partial(_begun, self._tasks.submission(), prepare)
            queue = _Queue(next_work, again)
            yield from self._run(queue, split, begin, finish, pool)
        finally:
            self._tasks.close()

    def _run(
        self,
        queue: _Queue[W],
        split: Callable[[W], Sequence[P]],
        begin: Callable[[P], Any],
        finish: Callable[[H, W, Iterator[tuple[P, Q | WorkerFailure]]], R],
        pool: _Pool,
    ) -> Iterator[tuple[W, R | WorkerFailure]]:
        while True:
            self._tasks.check()
            pool.tend()
            self.count = max(1, len(pool.ready))
            slots = self._tasks.slots()
            # one long work alone keeps them busy
            ahead = max(self.AHEAD, ceil(slots / self.count))
            while pool.ready and pool.load < 2 * (slots + self.count):
                if (one := queue.following()) is None:
                    break
                parts = split(one.work)
                begun = [begin(part) for part in parts[:ahead]]
                task_parts = TaskParts(parts=parts, begun=begun, begin=begin, result=_task_result)
                pool.give(one, len(begun), finish, task_parts)
            if pool.flying:
                yield from self._ended(queue, pool)
            elif not pool.ready:
                pool.await_one()
            elif queue.is_over:
                return

    def _ended(self, queue: _Queue[W], pool: _Pool) -> Iterator[tuple[W, Any]]:
        """What ended within a turn; a work whose actor went is put back, unless it ended too many."""
        for one, outcome in pool.ended():
            if not isinstance(outcome, _ActorLoss):
                yield one.work, outcome
            elif one.deaths + outcome.is_blamed >= self.MOST_DEATHS:
                yield one.work, WorkerFailure(code=Code.WORKER_DIED, how=outcome.how)
            else:
                queue.put_back(one, outcome)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Try(Generic[W]):
    """A work, and how many processes have ended at it."""

    work: W
    deaths: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _ActorLoss:
    """The actor of a work went. `is_blamed`: its process ended, and it was at this work; else its node went, or it was at another."""

    how: str
    is_blamed: bool


class _Queue(Generic[W]):
    """Work that no actor has: first the work of lost actors. `is_over`: the source of work is exhausted."""

    def __init__(self, next_work: Callable[[], W | None], again: Callable[[W], W]) -> None:
        self._next_work, self._again = next_work, again
        self._back: deque[_Try[W]] = deque()
        self.is_over = False

    def following(self) -> _Try[W] | None:
        if self._back:
            return self._back.popleft()
        work = self._next_work()
        self.is_over = work is None
        return None if work is None else _Try(work=work, deaths=0)

    def put_back(self, one: _Try[W], loss: _ActorLoss) -> None:
        self.is_over = False
        self._back.append(_Try(work=self._again(one.work), deaths=one.deaths + loss.is_blamed))


@dataclass(slots=True, kw_only=True, eq=False)
class _Slot:
    """An actor. `begins`: a reference, until it is ready."""

    actor: Any
    begins: Any
    load: int = 0  # parts


class _Pool:
    """The actors of a run. They work in the order in which they are given work."""

    def __init__(self, owner: RayActors, tasks: RayExecutor, hold: Callable[[], Any]) -> None:
        self.owner, self.tasks, self.hold = owner, tasks, hold
        self.slots: list[_Slot] = []
        self.flying: dict[Any, tuple[_Slot, _Try[Any], int]] = {}  # in the order of giving

    @property
    def ready(self) -> list[_Slot]:
        return [slot for slot in self.slots if slot.begins is None]

    @property
    def load(self) -> int:
        return sum(slot.load for slot in self.slots)

    def tend(self) -> None:
        """See which have begun, and make as many as the cluster has room for.

        Raises:
            ConfigError: what an actor holds cannot be made there.
        """
        import ray

        waiting = {slot.begins: slot for slot in self.slots if slot.begins is not None}
        begun, _ = (
            ray.wait(list(waiting), num_returns=len(waiting), timeout=0) if waiting else ([], [])
        )
        for reference in begun:
            slot = waiting[reference]
            try:
                ray.get(reference)
                slot.begins = None
            except ray.exceptions.RayActorError as error:
                if error.actor_init_failed:
                    raise _not_made(error) from error
                self.slots.remove(slot)  # its node went before it began
            except ray.exceptions.RayError as error:
                raise _not_made(error) from error
        count, share = self.owner.planned()
        for _ in range(count - len(self.slots)):
            self._make(share)

    def _make(self, share: float) -> None:
        import ray

        actor_class: Any = ray.remote(
            num_cpus=0,
            num_gpus=share,
            max_restarts=0,  # another is made, wherever there is room then
            label_selector=self.tasks.selector(),
        )(_Holder)
        actor = actor_class.remote(self.hold)
        self.slots.append(_Slot(actor=actor, begins=actor.is_ready.remote()))

    def await_one(self) -> None:
        """Until one is ready.

        Raises:
            ConfigError, TransientError: as `RayActors.run`.
        """
        import ray

        began_s, has_said = time.monotonic(), False
        while True:
            self.tasks.check()
            self.tend()
            if self.ready:
                return
            waited_s = time.monotonic() - began_s
            if waited_s >= self.owner.START_S:
                problem = f"no actor has started within {self.owner.START_S:g} s"
                raise TransientError(
                    problem,
                    remedy="check that the cluster has free GPUs and run again",
                    where="ray",
                )
            if waited_s >= self.owner.SAY_S and not has_said:
                has_said = True
                _, share = self.owner.planned()
                problem = f"no encoder has started within {self.owner.SAY_S:g} s"
                self.tasks.notify(f"{problem}; each needs {share:g} of a GPU; waiting for one")
            waiting = [slot.begins for slot in self.slots if slot.begins is not None]
            ray.wait(waiting, num_returns=1, timeout=TURN_S)

    def give(
        self,
        one: _Try[Any],
        num_parts: int,
        finish: Callable[..., Any],
        task_parts: TaskParts[Any, Any],
    ) -> None:
        """To the actor that has least to do."""
        slot = min(self.ready, key=lambda each: each.load)
        slot.load += num_parts
        reference = slot.actor.finish.remote(finish, one.work, task_parts)
        self.flying[reference] = (slot, one, num_parts)

    def ended(self) -> Iterator[tuple[_Try[Any], Any]]:
        """Works that ended within a turn, with what was made of them, or `_ActorLoss`."""
        import ray

        done, _ = ray.wait(list(self.flying), num_returns=1, timeout=TURN_S)
        for reference in done:
            if reference not in self.flying:
                continue  # it went with one before it
            slot, one, num_parts = self.flying[reference]
            try:
                outcome = ray.get(reference)
            except ray.exceptions.RayActorError as error:
                yield from self._lose(slot, error)
                continue
            except ray.exceptions.RayError:
                outcome = _finished(reference)
            del self.flying[reference]
            slot.load -= num_parts
            yield one, outcome

    def _lose(self, slot: _Slot, error: Any) -> Iterator[tuple[_Try[Any], _ActorLoss]]:
        """All works of an actor that went. The first of them was in hand."""
        import ray

        if slot in self.slots:
            self.slots.remove(slot)
        with suppress(Exception):  # it may only be out of reach
            ray.kill(slot.actor)
        is_node = error.preempted or "node has died" in str(error)
        how = str(error).splitlines()[0]
        lost = [reference for reference, (of, _, _) in self.flying.items() if of is slot]
        for place, reference in enumerate(lost):
            _, one, _ = self.flying.pop(reference)
            yield one, _ActorLoss(how=how, is_blamed=place == 0 and not is_node)


def _not_made(error: Exception) -> ConfigError:
    problem = f"an actor cannot be created on this node: {str(error).splitlines()[-1]}"
    return ConfigError(problem, where="ray")


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
    except (ray.exceptions.NodeDiedError, ray.exceptions.ObjectLostError) as error:
        how = str(error).splitlines()[0]
        return WorkerFailure(code=Code.NODE_LOST, how=how, node_lost=True)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, ConfigError | OSError):
            raise error.cause from error
        how = f"{error.cause!r}"
        return WorkerFailure(code=Code.WORKER_DIED, how=how)
    except ray.exceptions.RayError as error:
        return WorkerFailure(code=Code.WORKER_DIED, how=str(error).splitlines()[0])
