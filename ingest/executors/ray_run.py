"""One run on Ray: tasks under way, work that goes to another node, and results that are doubted."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import TYPE_CHECKING, Any, TypeVar

from ingest.executors.inline import DRIVER, Placement, timed
from ingest.executors.local import LISTEN_S
from ingest.executors.ray_cluster import Offer
from ingest.executors.ray_worker import Body, Submit
from ingest.executors.second_look import SecondLook
from schemas.outcome import State, WorkerFailure

if TYPE_CHECKING:
    from ingest.executors.ray import RayExecutor

TURN_S = 1.0  # without a result, until the cluster is looked at again

AHEAD_S = 2.0  # of work that waits at each slot: while the driver commits, no worker may run out
MOST_AHEAD = 4  # episodes at a slot, however short they are
MOST_TROUBLES = 3  # of a node's own disk or network, one after the other
SMOOTH = 0.05  # of a new episode, in the running mean of their length

W = TypeVar("W")


def ahead(mean_s: float | None) -> int:
    """Episodes that wait at a slot beside the one in work, by their mean length; None: that is not known yet."""
    return 1 if mean_s is None else min(max(ceil(AHEAD_S / max(mean_s, 1e-3)), 1), MOST_AHEAD)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Flying:
    """A task under way."""

    work: Any
    since_s: float
    memory_mib: int


class Run:
    """One run: tasks under way, work that goes to another node, and results that are doubted."""

    def __init__(
        self,
        executor: RayExecutor,
        body: Body,
        second: SecondLook,
        is_doubtful: Callable[[Any, Any], bool],
    ) -> None:
        self.executor, self.body = executor, body
        self.timed_body: Body = partial(timed, body)
        self.second, self.is_doubtful = second, is_doubtful
        self.flying: dict[Any, _Flying] = {}
        self.troubles: Counter[str] = Counter()  # of a node, since its last result that counts
        self.again: deque[Any] = deque()
        self.submit: Submit | None = None
        self.offer: Offer | None = None  # that `submit` was made for
        self.mean_s: float | None = None  # that an episode takes in its worker

    def results(self, next_work: Callable[[], W | None]) -> Iterator[tuple[W, Any]]:
        import ray

        while True:
            self.executor.check()
            self.executor.report(self._ages_s)
            is_all_handed_out = self._fill(next_work)
            if is_all_handed_out and not self.flying and not self.second.looking:
                return
            if self.flying:
                timeout_s = LISTEN_S if self.second.looking else TURN_S
                references = list(self.flying)
                done, _ = ray.wait(references, num_returns=1, timeout=timeout_s)
                if done:  # all that have ended since the last look
                    done, _ = ray.wait(references, num_returns=len(references), timeout=0)
                for reference in done:
                    if reference in self.flying:  # a smaller cluster takes work back
                        yield from self._taken(reference)
                        self._fill(next_work)  # before the next one is committed
            elif not self.second.looking:
                time.sleep(TURN_S)  # for a node
            yield from self._looked_at(LISTEN_S if not self.flying else 0.0)

    def _ages_s(self) -> list[float]:
        """Seconds since each episode was handed out."""
        now_s = time.monotonic()
        return [now_s - flying.since_s for flying in self.flying.values()]

    def _fill(self, next_work: Callable[[], Any]) -> bool:
        """Hand out work up to the window; returns whether there is none left."""
        offer = self.executor.offer()
        if offer is not self.offer:
            self.offer, self.submit = offer, None
            self._take_back(offer)
        while len(self.flying) < (1 + ahead(self.mean_s)) * offer.slots:
            work = self.again.popleft() if self.again else next_work()
            if work is None:
                return True
            self._begin(work, offer)
        if offer.slots or self.flying or self.again:
            return False
        if (work := next_work()) is not None:  # no node now: only whether there is any
            self.again.append(work)
        return work is None

    def _begin(self, work: Any, offer: Offer) -> None:
        self.submit = self.submit or self.executor.submission()
        reference = self.submit(work, self.timed_body)
        self.flying[reference] = _Flying(
            work=work, since_s=time.monotonic(), memory_mib=offer.memory_mib
        )

    def _take_back(self, offer: Offer) -> None:
        """Tasks that ask for more than the nodes that are left can give: they would wait endlessly."""
        import ray

        if not offer.slots:
            return
        for reference, flying in list(self.flying.items()):
            if flying.memory_mib > offer.largest_mib:
                ray.cancel(reference, force=True)
                self.again.append(self.flying.pop(reference).work)

    def _taken(self, reference: Any) -> Iterator[tuple[Any, Any]]:
        flying = self.flying.pop(reference)
        ended = self.executor.ended(reference, time.monotonic() - flying.since_s)
        if isinstance(ended, WorkerFailure):
            self.executor.latest = Placement(node=ended.node)
            yield flying.work, ended
            return
        node_id, problem, timed_result = ended
        problem = problem or self.executor.unanswered(node_id)
        if problem:
            self.executor.exclude(node_id, problem)
            self.again.append(flying.work)
            return
        seconds, result = timed_result
        self.mean_s = (
            seconds if self.mean_s is None else self.mean_s + SMOOTH * (seconds - self.mean_s)
        )
        if self.is_doubtful(flying.work, result):
            self.second.look(self.body, flying.work, node_id, result)
        else:
            self.troubles.pop(node_id, None)
            node = self.executor.node_name(node_id)
            self.executor.latest = Placement(node=node, seconds=seconds)
            yield flying.work, result

    def _looked_at(self, wait_s: float) -> Iterator[tuple[Any, Any]]:
        """What the driver found where a node called something absent: that counts, and a node that was wrong is excluded."""
        for work, node_id, claimed, result in self.second.done(wait_s):
            is_sound = not isinstance(result, WorkerFailure) and not self.is_doubtful(work, result)
            self.troubles[node_id] += is_sound
            # Where workers upload, what fails may be a moment of the network; what is absent stays absent.
            is_moment = self.executor.uploads and claimed.state is State.FAILED
            if is_sound and self.troubles[node_id] >= (MOST_TROUBLES if is_moment else 1):
                problem = f"{claimed.code}: {claimed.message}"
                self.executor.exclude(
                    node_id, f"it reports what the driver does not see ({problem})"
                )
            self.executor.latest = Placement(node=DRIVER)
            yield work, result
