"""Which samples a global batch has, and what each is trained on. Pure arithmetic on small tables; nothing is read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schemas.errors import ConfigError, InvariantError
from schemas.supervision import Task
from training.data.anchors import Anchors, Records, allowed
from training.data.order import Order
from training.data.routing import RoutingSettings, routed
from training.data.windows import BIT, Ints, from_bits
from training.tasks import INDEX, TASKS


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drawn:
    """[B] places in the table of segments, timesteps, and tasks."""

    segment: Ints
    now: Ints
    task: Ints

    def part(self, which: Ints | slice) -> Drawn:
        return Drawn(segment=self.segment[which], now=self.now[which], task=self.task[which])


class Draws:
    """An endless run of draws, `num_draws` to an epoch: as many as there are anchors."""

    def __init__(
        self, anchors: Anchors, routing: RoutingSettings, *, seed: int, batch_size: int
    ) -> None:
        """
        Raises:
            ConfigError: there is nothing to draw.
        """
        self.anchors, self.routing = anchors, routing
        self.seed, self.batch_size = seed, batch_size
        segments = anchors.segments
        num = np.asarray(segments["num_anchors"], dtype=np.int64)
        weights = np.where(num > 0, segments["weight"], 0.0)
        if not len(num) or weights.sum() <= 0:
            raise ConfigError(
                "no sample is left: no segment of this split is long enough for the window and allows a task that "
                "the recipe gives a weight; shorten data.future_s, or look at `eicorpus manifest show`"
            )
        self.num_draws = int(num.sum())
        self.order = Order(weights=weights, num_anchors=num, num_draws=self.num_draws, seed=seed)

    def of_step(self, step: int, rank: int = 0, world_size: int = 1) -> Drawn:
        """What a rank takes of global batch `step`; one rank of one takes it whole."""
        first = step * self.batch_size
        segment, anchor = self._places(np.arange(first, first + self.batch_size))
        bits = self.anchors.serves[anchor]
        task = self._tasks(self.anchors.segments[segment], bits, step)
        now = np.asarray(self.anchors.timestep[anchor], dtype=np.int64)
        share = self.batch_size // world_size
        mine = slice(rank * share, (rank + 1) * share)
        return Drawn(segment=segment, now=now, task=task).part(mine)

    def _places(self, index: Ints) -> tuple[Ints, Ints]:
        """[B] segment and anchor of draws of the endless run."""
        segment, anchor = np.empty_like(index), np.empty_like(index)
        epochs = index // self.num_draws
        for epoch in np.unique(epochs):
            of_epoch = epochs == epoch
            at = index[of_epoch] - epoch * self.num_draws
            segment[of_epoch], anchor[of_epoch] = self.order.at(int(epoch), at)
        return segment, anchor + self.anchors.segments["first"][segment]

    def _tasks(self, segments: Records, bits: npt.NDArray[np.uint8], step: int) -> Ints:
        can, may = from_bits(bits), from_bits(np.asarray(segments["may"]))
        is_low = segments["is_low"] & can[:, INDEX[Task.POLICY]]
        task = routed(can & may, is_low, self.routing, seed=self.seed, step=step)
        if (task < 0).any():
            raise InvariantError("a sample was drawn that may be trained on nothing")
        return task

    def every(self, task: Task, num_samples: int | None = None) -> Drawn:
        """All anchors that this task is allowed and possible at, once, in order; or that many of them, evenly spread.

        The tables are gone through twice, for counts and then for the answer: what fits is never in memory whole.
        """
        counts = [int(np.count_nonzero(b & BIT[task])) for _, _, b in allowed(self.anchors)]
        whole = sum(counts)
        num = whole if num_samples is None else min(num_samples, whole)
        wanted = np.arange(num) * whole // num  # of those that fit, numbered
        segment, anchor = np.empty_like(wanted), np.empty_like(wanted)
        before = 0
        for count, (of_segment, at, bits) in zip(counts, allowed(self.anchors), strict=True):
            here = slice(*np.searchsorted(wanted, [before, before + count]))
            fitting = np.flatnonzero(bits & BIT[task])[wanted[here] - before]
            segment[here], anchor[here] = of_segment[fitting], at[fitting]
            before += count
        now = np.asarray(self.anchors.timestep[anchor], dtype=np.int64)
        return Drawn(segment=segment, now=now, task=np.full(num, INDEX[task]))


def check_lottery(routing: RoutingSettings) -> None:
    """
    Raises:
        ConfigError: low segments may teach the policy by lottery, and nothing else when they lose.
    """
    others = [t for t in TASKS if t is not Task.POLICY and routing.weights.get(t, 0.0) > 0]
    if 0 < routing.low_policy_share < 1 and not others:
        found = f"low_policy_share {routing.low_policy_share} with no task but policy"
        repair = "a low sample that loses the draw has nothing to teach: say 0 or 1, or give another task a weight"
        raise ConfigError(f"{found}: {repair}", where="recipe key routing.low_policy_share")
