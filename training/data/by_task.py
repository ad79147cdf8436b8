"""Where one task is drawn from: segments by their weight, then one of the anchors in it that can serve the task.

Each task has an order of its own (`order.py`): how often another task is drawn, or what data only that one can use, changes nothing of it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from schemas.supervision import Task
from training.data.rng_keys import Order, endless, key_of, uniform
from training.data.sample_index import Records, SampleIndex
from training.data.windows import BIT, Ints
from training.tasks import INDEX

PURPOSE = 10  # of the keys: order, routing, weights, noise, dropout and evaluation have 0 to 9


class TaskPlaces:
    """An endless run of draws of one task; `num_draws` to an epoch, as many as there are anchors that serve it."""

    def __init__(
        self, anchors: SampleIndex, task: Task, *, low_policy_share: float, seed: int
    ) -> None:
        self.anchors, self.task = anchors, task
        self.weights = _weights(anchors.segments, task, low_policy_share)
        self.num = np.where(self.weights > 0, anchors.segments["num_serving"][:, INDEX[task]], 0)
        self.num_draws = int(self.num.sum())
        self._order: Order | None = None
        if self.num_draws:
            self._order = Order(
                weights=self.weights,
                num_anchors=self.num,
                num_draws=self.num_draws,
                seed=int(key_of(seed, 0, PURPOSE, INDEX[task])),
            )

    def at(self, index: Ints) -> tuple[Ints, Ints]:
        """[B] segment and anchor of draws of the endless run. Raises ValueError where nothing serves the task."""
        order = self._order
        if order is None:
            raise ValueError(f"nothing serves {self.task}")
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


def _weights(segments: Records, task: Task, low_policy_share: float) -> npt.NDArray[np.float64]:
    """[S] of those that may serve the task and can."""
    may = ((segments["may"] & BIT[task]) > 0).astype(np.float64)
    if task is Task.POLICY:
        may = np.where(segments["is_low"], np.maximum(may, low_policy_share), may)
    can = segments["num_serving"][:, INDEX[task]] > 0
    return np.where(can, segments["weight"] * may, 0.0)
