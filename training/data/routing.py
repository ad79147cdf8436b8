"""How many samples of a global batch each task gets, and, where segments are drawn first, which task each sample gets (design 4.3).

A pure function of (seed, step) and of the tables that are drawn from, so every rank and worker computes the same.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.supervision import Task
from training.data.rng_keys import Ints, Purpose, key_of, uniform
from training.tasks import INDEX, TASKS

Mask = npt.NDArray[np.bool_]
LIMITED = "supervision_limit"  # the reason code of a tier that the episode's facts, not its quality, forced


def _alike() -> dict[Task, float]:
    return dict.fromkeys(TASKS, 1.0)


class RoutingSettings(BaseModel):
    """How often each task is trained.

    `draw: task`: every global batch has a fixed number of samples of each task, by `shares`; then a segment is drawn among those that may
    serve the task. Data that cannot serve a task takes nothing from it. `draw: segment`: a segment is drawn first, then a task by `weights`
    among those that the segment may serve, so a task's share follows the data. Keys of the other way have no effect: `shares` are dropped, `weights` refused.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    draw: Literal["task", "segment"] = "task"
    shares: dict[Task, float] = Field(default_factory=_alike)
    weights: dict[Task, float] = Field(default_factory=_alike)
    # Samples of every task with a share or weight. With `draw: segment` only where enough samples allow it: see `least_by_task` in the log.
    min_per_batch: int = Field(1, ge=0)
    # How often a low segment is drawn for the policy, relative to a high one of the same weight; for post-training. With `draw: segment`: the
    # share of low samples that may teach the policy.
    low_policy_share: float = Field(0.0, ge=0, le=1)

    @model_validator(mode="before")
    @classmethod
    def _without_idle_shares(cls, settings: Any) -> Any:
        """A recipe that says `draw: segment` may extend one that has shares."""
        if isinstance(settings, dict) and settings.get("draw") == "segment":
            return {key: value for key, value in settings.items() if key != "shares"}
        return settings

    @model_validator(mode="after")
    def _some_task(self) -> RoutingSettings:
        for what, values in (("shares", self.shares.values()), ("weights", self.weights.values())):
            if any(v < 0 or not np.isfinite(v) for v in values) or not sum(values):
                raise ValueError(f"{what} of tasks must be finite, not negative and not all zero")
        if self.draw == "task" and self.weights != _alike():
            raise ValueError(
                "routing.weights needs draw: segment; with draw: task, set routing.shares, the fractions of every global batch"
            )
        return self

    def of_tasks(self) -> npt.NDArray[np.float64]:
        """[4] shares or weights, whichever have an effect, in the order of TASKS."""
        effective = self.shares if self.draw == "task" else self.weights
        return np.array([effective.get(task, 0.0) for task in TASKS])

    @property
    def trained(self) -> tuple[Task, ...]:
        """Tasks with a share or weight."""
        return tuple(t for t, value in zip(TASKS, self.of_tasks(), strict=True) if value > 0)


def counts_of_batch(shares: npt.NDArray[np.float64], batch_size: int, least: int) -> Ints:
    """[T] samples of each task in every global batch: by largest remainder, and no task with a share below `least`, as far as the batch reaches.

    Equal remainders go to the first task. The same number in every step: so what a task draws in step n begins at n * count.
    """
    exact = np.round(shares / shares.sum() * batch_size, 9)  # 0.1 + 0.2 is no remainder
    counts: Ints = np.floor(exact).astype(np.int64)
    by_remainder = np.argsort(counts - exact, kind="stable")
    counts[by_remainder[: batch_size - counts.sum()]] += 1
    least = min(least, batch_size // max(1, int(np.count_nonzero(shares))))
    while len(short := np.flatnonzero((shares > 0) & (counts < least))):
        counts[counts.argmax()] -= 1
        counts[short[0]] += 1
    return counts


def routed(may: Mask, is_low: Mask, settings: RoutingSettings, *, seed: int, step: int) -> Ints:
    """[B] task of each sample of a global batch that was drawn segment first, -1 for one that may teach nothing with a weight.

    Args:
        may: [B, 4] what each sample may teach and can. is_low: [B] samples that quality alone keeps from the policy.
    """
    index = np.arange(len(may))
    may = may.copy()
    may[:, INDEX[Task.POLICY]] |= is_low & (
        uniform(key_of(seed, step, Purpose.LOW_QUALITY), index) < settings.low_policy_share
    )
    weights = settings.of_tasks()
    chance = may * weights
    line = chance.cumsum(axis=1)
    point = uniform(key_of(seed, step, Purpose.TASK), index) * line[:, -1]
    task = (line <= point[:, None]).sum(axis=1)
    task = np.where(line[:, -1] > 0, np.minimum(task, len(TASKS) - 1), -1)
    key = key_of(seed, step, Purpose.RARE_TASK)
    _raise_to_minimum(task, may, weights, settings.min_per_batch, key)
    return task


def _raise_to_minimum(
    task: Ints,
    may: Mask,
    weights: npt.NDArray[np.float64],
    least: int,
    key: np.uint64,
) -> None:
    """Move samples to tasks that have too few, from tasks that keep enough; rarest task first. Changes `task`."""
    by_chance = np.argsort(uniform(key, np.arange(len(task))), kind="stable")
    for t in sorted(np.flatnonzero(weights > 0), key=lambda t: may[:, t].sum()):
        for i in by_chance:
            counts = np.bincount(task[task >= 0], minlength=len(TASKS))
            if counts[t] >= least:
                break
            if may[i, t] and task[i] != t and counts[task[i]] > least:
                task[i] = t
