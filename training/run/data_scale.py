"""How far actions and pictures spread, measured once before the first step: the linear guess of `training/model/precondition.py` needs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from schemas.errors import SourceError
from schemas.supervision import Task
from training.data.loader import Loader
from training.data.prefetch import BatchSource
from training.data.sampler import Drawn
from training.run.parallel import Ranks, raise_on_any_rank, sum_over

NUM_SAMPLES = 512  # evenly spread over the split, the same whatever the batch and the ranks
FAR = 3.0  # of normalised actions, most of which are in [-1, 1]
_AT_ONCE = 32
_UNKNOWN = 1.0  # where no sample serves a task that it is measured on
# It is measured on samples of the first of these tasks that there are any of: those that may teach the policy, else any with actions.
_WITH_ACTIONS = (Task.POLICY, Task.INVERSE_DYNAMICS, Task.FORWARD_DYNAMICS)
_WITH_FUTURE = (Task.VISUAL_FORECASTING, Task.FORWARD_DYNAMICS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spreads:
    """Standard deviations: of normalised actions around 0, and of latents from the last picture to the future one."""

    action_std: float
    change_std: float


def measured_spreads(loader: Loader, ranks: Ranks, device: torch.device) -> Spreads:
    """Of samples evenly spread over the split. Every rank reads its stretch of them.

    An anchor counts once, however often it is drawn: what weights could change is little, for actions are normalised for each body and
    pictures are of one encoder, and the network says what the guess misses.

    Raises:
        SourceError: one of them is broken; ConfigError on the other ranks.
    """
    return Spreads(
        action_std=_std(loader, _WITH_ACTIONS, _actions, ranks, device),
        change_std=_std(loader, _WITH_FUTURE, _changes, ranks, device),
    )


def _std(
    loader: Loader,
    tasks: tuple[Task, ...],
    read: Callable[[BatchSource, Drawn], Tensor],
    ranks: Ranks,
    device: torch.device,
) -> float:
    """Three digits, so that sums in another order agree."""
    for task in tasks:
        places = loader.places(task, NUM_SAMPLES)
        sums = torch.zeros(2, dtype=torch.float64)
        with raise_on_any_rank(ranks):
            for first in range(0, len(places.now), _AT_ONCE):
                for values in _readable(loader, read, places.part(slice(first, first + _AT_ONCE))):
                    sums += torch.stack(
                        [values.square().sum(), torch.tensor(values.numel()).double()]
                    )
        whole, num = sum_over(sums.to(device), ranks).tolist()
        if num:
            return float(f"{(whole / num) ** 0.5:.3g}") if whole > 0 else _UNKNOWN
    return _UNKNOWN


def _readable(
    loader: Loader, read: Callable[[BatchSource, Drawn], Tensor], places: Drawn
) -> Iterator[Tensor]:
    """What is read of these places. Where some may be left out, without those that cannot be read."""
    try:
        yield read(loader.source, places)
    except SourceError:
        if not loader.recipe.run.max_bad_samples:
            raise
        for b in range(len(places.now)):
            with suppress(SourceError):
                yield read(loader.source, places.part(slice(b, b + 1)))


def _actions(source: BatchSource, places: Drawn) -> Tensor:
    """Few moves beyond what is usual, of a body that else stands still, do not widen it for all."""
    action, has = source.actions(places)
    return action[has].double().clamp(-FAR, FAR)


def _changes(source: BatchSource, places: Drawn) -> Tensor:
    """Where both pictures are there."""
    pictures, has = source.pictures(places)
    change = (pictures[:, -1].float() - pictures[:, -2].float()).double()
    has_both = has[:, -1] & has[:, -2]
    return change[has_both.repeat_interleave(change.shape[1] // has_both.shape[1], dim=1)]
