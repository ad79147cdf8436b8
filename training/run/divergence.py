"""What stops a run whose numbers are no longer numbers, before they reach the weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from schemas.errors import PipelineError
from training.batch import Origin
from training.run.parallel import Ranks, all_gather_rows
from training.tasks import TASKS

MAX_NAMED = 8


class Diverged(PipelineError):
    """A loss or a gradient is not finite. The weights are those before the step; nothing was written."""

    exit_code = 1


def culprits(
    origin: Origin, task: Tensor, sample_sums: Tensor, ranks: Ranks
) -> list[tuple[int, int, int]]:
    """(row, timestep, task) of the samples of all ranks whose own loss is not finite. Every rank must call this."""
    device = sample_sums.device
    where = torch.stack([torch.as_tensor(origin.row), torch.as_tensor(origin.timestep)], dim=1)
    is_bad = (~sample_sums.isfinite()).long()
    table = torch.cat([where.to(device), task[:, None], is_bad[:, None]], dim=1)
    rows = all_gather_rows(table, ranks).tolist()
    return [(row, timestep, index) for row, timestep, index, bad in rows if bad]


def diverged(step: int, named: Sequence[tuple[str, int, int]]) -> Diverged:
    """
    Args:
        named: (uid, timestep, task) of each sample to blame.
    """
    if not named:
        problem = "a gradient is not finite, though the loss of every sample is"
        return Diverged(f"{problem}; try a smaller lr or clip_norm", where=f"step {step}")
    listed = "; ".join(
        f"{uid} at timestep {t}, {TASKS[i].value}" for uid, t, i in named[:MAX_NAMED]
    )
    more = f" and {len(named) - MAX_NAMED} more" if len(named) > MAX_NAMED else ""
    problem = f"the loss is not finite for {listed}{more}"
    remedy = "look at these samples (`eicorpus explain CORPUS UID`), or try a smaller lr"
    return Diverged(f"{problem}; {remedy}", where=f"step {step}")
