"""How far actions and pictures spread, measured once before the first step: the linear guess of `training/model/precondition.py` needs it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from schemas.supervision import Task
from training.batch import Batch
from training.data.loader import Loader
from training.run.parallel import Ranks, sum_over

NUM_SAMPLES = 512  # evenly spread over the split, the same whatever the batch and the ranks
FAR = 3.0  # of normalised actions, most of which are in [-1, 1]
_AT_ONCE = 32
_UNKNOWN = 1.0  # where no sample serves the task that it is measured on


@dataclass(frozen=True, slots=True, kw_only=True)
class Spreads:
    """Standard deviations: of normalised actions around 0, and of latents from the last picture to the future one."""

    action_std: float
    change_std: float


def measured_spreads(loader: Loader, ranks: Ranks, device: torch.device) -> Spreads:
    """Of samples evenly spread over the split; every rank reads its stretch of them.

    Raises:
        SourceError: one of them is broken.
    """
    return Spreads(
        action_std=_std(loader, Task.POLICY, ranks, device),
        change_std=_std(loader, Task.VISUAL_FORECASTING, ranks, device),
    )


def _std(loader: Loader, task: Task, ranks: Ranks, device: torch.device) -> float:
    """Three digits, so that sums in another order agree."""
    told = torch.zeros(2, dtype=torch.float64)
    for batch in loader.every(task, batch_size=_AT_ONCE, num_samples=NUM_SAMPLES):
        told += _squares(batch) if task is Task.POLICY else _squared_changes(batch)
    whole, num = sum_over(told.to(device), ranks).tolist()
    return float(f"{(whole / num) ** 0.5:.3g}") if whole > 0 else _UNKNOWN


def _squares(batch: Batch) -> Tensor:
    """[2] the sum, and of how many. Few moves beyond what is usual, of a body that else stands still, do not widen it for all."""
    found = batch.action[batch.has_action].double().clamp(-FAR, FAR).square()
    return torch.stack([found.sum(), torch.tensor(found.numel(), dtype=torch.float64)])


def _squared_changes(batch: Batch) -> Tensor:
    """[2] the sum, and of how many."""
    change = (batch.future - batch.known.past[:, -1]).double().square()
    has = (batch.has_future & batch.known.has_past[:, -1]).repeat_interleave(
        change.shape[1] // batch.has_future.shape[1], dim=1
    )
    found = change[has]
    return torch.stack([found.sum(), torch.tensor(found.numel(), dtype=torch.float64)])
