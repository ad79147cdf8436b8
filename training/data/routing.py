"""Which task each sample of a global batch is trained on: drawn by weights among what its segment may teach (design 4.3).

A pure function of (seed, step) and of what the samples of the whole batch allow, so every rank and worker finds the same.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.supervision import Task
from training.data.order import Ints, key_of, uniform
from training.tasks import INDEX, TASKS

Mask = npt.NDArray[np.bool_]
LIMITED = "supervision_limit"  # the reason code of a tier that the episode's facts, not its quality, forced


class RoutingSettings(BaseModel):
    """How often each task is trained, where a sample allows several."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    weights: dict[Task, float] = Field(default_factory=lambda: dict.fromkeys(TASKS, 1.0))
    # Of every task with a weight, where enough samples allow it; the log says the fewest there were (`least_by_task`):
    min_per_batch: int = Field(1, ge=0)
    # Of low samples that may teach the policy after all, for post-training:
    low_policy_share: float = Field(0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _some_task(self) -> RoutingSettings:
        weights = self.weights.values()
        if any(w < 0 or not np.isfinite(w) for w in weights) or not sum(weights):
            raise ValueError("weights of tasks must be finite, not negative and not all zero")
        return self

    def of_tasks(self) -> npt.NDArray[np.float64]:
        """[4] in the order of TASKS."""
        return np.array([self.weights.get(task, 0.0) for task in TASKS])


def routed(may: Mask, is_low: Mask, settings: RoutingSettings, *, seed: int, step: int) -> Ints:
    """[B] task of each sample of a global batch, -1 for one that may teach nothing with a weight.

    Args:
        may: [B, 4] what each sample may teach and can. is_low: [B] samples that quality alone keeps from the policy.
    """
    index = np.arange(len(may))
    may = may.copy()
    may[:, INDEX[Task.POLICY]] |= is_low & (
        uniform(key_of(seed, step, 3), index) < settings.low_policy_share
    )
    weights = settings.of_tasks()
    chance = may * weights
    line = chance.cumsum(axis=1)
    point = uniform(key_of(seed, step, 4), index) * line[:, -1]
    task = (line <= point[:, None]).sum(axis=1)
    task = np.where(line[:, -1] > 0, np.minimum(task, len(TASKS) - 1), -1)
    _raise_to_minimum(task, may, weights, settings.min_per_batch, key_of(seed, step, 5))
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
