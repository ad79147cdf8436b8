"""Which samples a global batch has, which task each one trains, and how segments and timesteps are drawn. Arithmetic on small tables, no reads."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.errors import ConfigError, InvariantError
from schemas.supervision import Task
from training.data.rng_keys import Order, Purpose, endless, key_of, uniform
from training.data.routing import RoutingSettings, counts_of_batch, routed
from training.data.sample_index import Records, SampleIndex, allowed
from training.data.windows import BIT, Ints, from_bits
from training.tasks import INDEX, TASKS


class TaskPlaces:
    """An endless run of draws of one task; `num_draws` to an epoch, as many as there are anchors that serve it."""

    def __init__(
        self,
        anchors: SampleIndex,
        task: Task,
        *,
        low_policy_share: float,
        label_share: float,
        seed: int,
    ) -> None:
        self.anchors, self.task = anchors, task
        self.weights = _weights(anchors.segments, task, low_policy_share, label_share)
        self.num = np.where(self.weights > 0, anchors.segments["num_serving"][:, INDEX[task]], 0)
        self.num_draws = int(self.num.sum())
        self._order: Order | None = None
        if self.num_draws:
            self._order = Order(
                weights=self.weights,
                num_anchors=self.num,
                num_draws=self.num_draws,
                seed=int(key_of(seed, 0, Purpose.TASK_ORDER, INDEX[task])),
            )

    def at(self, index: Ints) -> tuple[Ints, Ints]:
        """[B] segment and anchor of draws of the endless run. Raises ValueError where nothing serves the task."""
        order = self._order
        if order is None:
            raise ValueError(f"no sample is usable for task {self.task}")
        segment, nth = endless(order, index)
        return segment, self._anchors(segment, nth)

    def by_key(self, key: np.uint64) -> tuple[int, int]:
        """Segment and anchor of one draw outside of the run."""
        line = np.cumsum(self.weights)
        last = int(np.searchsorted(line, line[-1]))
        point = uniform(key, 0) * line[-1]
        segment = min(int(np.searchsorted(line, point, side="right")), last)
        nth = int(uniform(key, 1) * self.num[segment])
        return segment, int(self._anchors(np.array([segment]), np.array([nth]))[0])

    def _anchors(self, segment: Ints, nth: Ints) -> Ints:
        """[B] the nth anchor of each segment that serves the task. Only where they have gaps is a segment's table looked through."""
        segments = self.anchors.segments[segment]
        out = segments["first"] + segments["first_serving"][:, INDEX[self.task]] + nth
        for b in np.flatnonzero((segments["is_run"] & BIT[self.task]) == 0):
            first, num = int(segments["first"][b]), int(segments["num_anchors"][b])
            serving = np.flatnonzero(self.anchors.serves[first : first + num] & BIT[self.task])
            out[b] = first + serving[nth[b]]
        return np.asarray(out, dtype=np.int64)


def _weights(
    segments: Records, task: Task, low_policy_share: float, label_share: float
) -> npt.NDArray[np.float64]:
    """[S] of those that may serve the task and can.

    Args:
        label_share: of the policy's draws that are of latent actions, where there are others too.
    """
    may = ((segments["may"] & BIT[task]) > 0).astype(np.float64)
    if task is Task.POLICY:
        may = np.where(segments["is_low"], np.maximum(may, low_policy_share), may)
    can = segments["num_serving"][:, INDEX[task]] > 0
    own = np.where(can, segments["weight"] * may, 0.0)
    if task is not Task.POLICY or not label_share:
        return own
    labelled = np.where(can & segments["is_labelled"], segments["weight"], 0.0)
    if not own.sum() or not labelled.sum():
        return np.asarray(own + labelled)
    return np.asarray((1 - label_share) * own / own.sum() + label_share * labelled / labelled.sum())


STEPS_AT_ONCE = 8  # that are drawn together: small arrays cost as much as large ones
_KEPT_BLOCKS = 4  # of so many steps: threads and read-ahead ask for steps that are close


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drawn:
    """[B] places in the table of segments, timesteps, and tasks."""

    segment: Ints
    now: Ints
    task: Ints

    def part(self, which: Ints | slice) -> Drawn:
        return Drawn(segment=self.segment[which], now=self.now[which], task=self.task[which])

    def copied(self) -> Drawn:
        """In memory of its own, which a batch may keep."""
        return Drawn(segment=self.segment.copy(), now=self.now.copy(), task=self.task.copy())


class Draws:
    """An endless run of global batches."""

    def __init__(
        self,
        anchors: SampleIndex,
        routing: RoutingSettings,
        *,
        seed: int,
        batch_size: int,
        label_share: float = 0.0,
    ) -> None:
        """
        Args:
            label_share: of the policy's draws, those of latent actions.

        Raises:
            ConfigError: there is nothing to draw, or a batch is smaller than the number of its tasks.
        """
        self.anchors, self.routing = anchors, routing
        self.seed, self.batch_size, self._label_share = seed, batch_size, label_share
        segments = anchors.segments
        num = np.asarray(segments["num_anchors"], dtype=np.int64)
        weights = np.where(num > 0, segments["weight"], 0.0)
        self.places = {
            task: TaskPlaces(
                anchors,
                task,
                low_policy_share=routing.low_policy_share,
                label_share=label_share,
                seed=seed,
            )
            for task in routing.trained
        }
        # By segment, a low sample that loses the lottery may leave a task without any place though its segment has weight.
        has_place = any(places.num_draws for places in self.places.values())
        if not len(num) or weights.sum() <= 0 or not has_place:
            raise ConfigError(
                "no samples: no segment of this split is long enough for the window and usable for a task that "
                "the recipe samples",
                remedy="shorten data.future_s, or see `eicorpus manifest show`",
            )
        self.num_draws = int(num.sum())
        self.counts = self._counts()
        self.order = Order(weights=weights, num_anchors=num, num_draws=self.num_draws, seed=seed)
        self._blocks: dict[tuple[int, int, int], list[Drawn]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """By what decides it: its tables are as long as the manifest."""
        again = partial(
            Draws, seed=self.seed, batch_size=self.batch_size, label_share=self._label_share
        )
        return again, (self.anchors, self.routing)

    def _counts(self) -> Ints:
        """[4] samples of each task in every global batch; nothing for a task that no segment may serve: its share goes to the others."""
        shares = self.routing.of_tasks()
        for task, places in self.places.items():
            shares[INDEX[task]] *= places.num_draws > 0
        served, least = int((shares > 0).sum()), self.routing.min_per_batch
        if self.routing.draw == "task" and least and self.batch_size < served:
            problem = f"a global batch of {self.batch_size} samples cannot hold {served} tasks"
            repair = f"set run.batch_size to {served} or more, or set a share for fewer tasks"
            raise ConfigError(problem, remedy=repair, where="recipe key run.batch_size")
        return counts_of_batch(shares, self.batch_size, least)

    @property
    def unserved(self) -> tuple[Task, ...]:
        """Tasks with a share or weight that no segment may serve."""
        return tuple(task for task, places in self.places.items() if not places.num_draws)

    def share_of_segments(self) -> npt.NDArray[np.float64]:
        """[S] of all draws, in the mean."""
        if self.routing.draw == "segment":
            return np.asarray(self.order.weights / self.order.weights.sum())
        out = np.zeros(len(self.anchors.segments))
        for task, places in self.places.items():
            if count := self.counts[INDEX[task]]:
                out += count / self.batch_size * places.weights / places.weights.sum()
        return out

    def of_step(self, step: int, rank: int = 0, world_size: int = 1) -> Drawn:
        """What a rank takes of global batch `step`; one rank of one takes it whole."""
        share = self.batch_size // world_size
        own = np.arange(rank * share, (rank + 1) * share)
        if self.routing.draw != "task":
            return self._by_segment(step).part(own)
        block, nth = divmod(step, STEPS_AT_ONCE)
        key = (block, rank, world_size)
        drawn = self._blocks.get(key)
        if drawn is None:
            steps = np.arange(block * STEPS_AT_ONCE, (block + 1) * STEPS_AT_ONCE)
            drawn = self._by_task(steps, own)
            kept = [*self._blocks.items()][1 - _KEPT_BLOCKS :]
            self._blocks = {**dict(kept), key: drawn}  # another thread goes on with what it has
        return drawn[nth].copied()

    def _by_task(self, steps: Ints, place: Ints) -> list[Drawn]:
        """These places of each step. Tasks are mixed over a batch, so that ranks and parts have about as much of each."""
        keys = np.array([key_of(self.seed, step, Purpose.TASK_MIX) for step in steps.tolist()])
        chance = uniform(keys[:, None], np.arange(self.batch_size))
        slot = np.argsort(chance, axis=1, kind="stable")[:, place]
        ends = np.cumsum(self.counts)
        task = np.searchsorted(ends, slot, side="right")
        index = steps[:, None] * self.counts[task] + slot - (ends - self.counts)[task]
        segment, anchor = np.empty_like(index), np.empty_like(index)
        for each, places in self.places.items():
            of_task = task == INDEX[each]
            if of_task.any():
                segment[of_task], anchor[of_task] = places.at(index[of_task])
        parts = zip(segment, anchor, task, strict=True)
        return [self._drawn(*part) for part in parts]

    def _by_segment(self, step: int) -> Drawn:
        first = step * self.batch_size
        segment, anchor = self._places(np.arange(first, first + self.batch_size))
        bits = self.anchors.serves[anchor]
        return self._drawn(segment, anchor, self._tasks(self.anchors.segments[segment], bits, step))

    def redrawn(self, drawn: Drawn, b: int, *, step: int, place: int, attempt: int) -> Drawn:
        """With another sample of the same task in place of sample `b`, which has this place in global batch `step`."""
        segment, now = drawn.segment.copy(), drawn.now.copy()
        key = key_of(self.seed, step, Purpose.REDRAWN_SAMPLE, place, attempt)
        segment[b], anchor = self.places[TASKS[int(drawn.task[b])]].by_key(key)
        now[b] = self.anchors.timestep[anchor]
        return Drawn(segment=segment, now=now, task=drawn.task)

    def _drawn(self, segment: Ints, anchor: Ints, task: Ints) -> Drawn:
        now = np.asarray(self.anchors.timestep[anchor], dtype=np.int64)
        return Drawn(segment=segment, now=now, task=task)

    def _places(self, index: Ints) -> tuple[Ints, Ints]:
        """[B] segment and anchor of draws of the endless run."""
        segment, anchor = endless(self.order, index)
        return segment, anchor + self.anchors.segments["first"][segment]

    def _tasks(self, segments: Records, bits: npt.NDArray[np.uint8], step: int) -> Ints:
        can, may = from_bits(bits), from_bits(np.asarray(segments["may"]))
        is_low = segments["is_low"] & can[:, INDEX[Task.POLICY]]
        task = routed(can & may, is_low, self.routing, seed=self.seed, step=step)
        if (task < 0).any():
            raise InvariantError("a sample was drawn that is not usable for any task")
        return task

    def every(self, task: Task, num_samples: int | None = None) -> Drawn:
        """All anchors that this task is allowed and possible at, once, in order; or that many of them, evenly spread.

        The tables are gone through twice, for counts and then for the answer: what fits is never in memory whole.
        """
        counts = [int(np.count_nonzero(b & BIT[task])) for _, _, b in allowed(self.anchors)]
        whole = sum(counts)
        num = whole if num_samples is None else min(num_samples, whole)
        positions = np.arange(num) * whole // num  # of those that fit, numbered
        segment, anchor = np.empty_like(positions), np.empty_like(positions)
        before = 0
        for count, (of_segment, at, bits) in zip(counts, allowed(self.anchors), strict=True):
            here = slice(*np.searchsorted(positions, [before, before + count]))
            fitting = np.flatnonzero(bits & BIT[task])[positions[here] - before]
            segment[here], anchor[here] = of_segment[fitting], at[fitting]
            before += count
        now = np.asarray(self.anchors.timestep[anchor], dtype=np.int64)
        return Drawn(segment=segment, now=now, task=np.full(num, INDEX[task]))


def check_low_policy_share(routing: RoutingSettings) -> None:
    """
    Raises:
        ConfigError: low segments may teach the policy by lottery, and nothing else when they lose.
    """
    if (
        routing.draw == "task"
    ):  # there is no lottery: low segments are drawn for the policy less often
        return
    others = [t for t in TASKS if t is not Task.POLICY and routing.weights.get(t, 0.0) > 0]
    if 0 < routing.low_policy_share < 1 and not others:
        problem = f"low_policy_share is {routing.low_policy_share} and policy is the only task"
        repair = "set it to 0 or 1, or give another task a weight, so that the other low samples have a task"
        raise ConfigError(problem, remedy=repair, where="recipe key routing.low_policy_share")
