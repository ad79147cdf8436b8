"""How far each channel of actions and pictures spreads, measured once before the first step, for the linear guess of `model/precondition.py`."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from schemas.errors import SourceError
from schemas.supervision import Task
from training.data.loader import Loader
from training.data.prefetch import BatchSource
from training.data.sampler import Drawn
from training.run.mishaps import Mishaps, UnmeasuredSample
from training.run.parallel import Ranks, raise_on_any_rank, sum_over

NUM_SAMPLES = 512  # evenly spread over the split, the same whatever the batch and the ranks
FAR = 3.0  # of normalised actions, most of which are in [-1, 1]
_AT_ONCE = 32
_UNKNOWN = 1.0  # where no sample serves a task that it is measured on
# Errors are divided by variances, so no channel is taken for one that spreads less than this part of all channels together. An action element that
# changes has 2 % of its values beyond its quantiles of 1 and 99 %, which are at -1 and 1: a spread of 0.14 at least, where all have about 0.5. A
# lower one is of a few rare moves that the samples missed, or of a constant. Channels of latents have many values each, and do differ by tens.
_LEAST_OF_ACTIONS, _LEAST_OF_CHANGES = 0.25, 0.01
# It is measured on samples of the first of these tasks that there are any of: those that may teach the policy, else any with actions.
_WITH_ACTIONS = (Task.POLICY, Task.INVERSE_DYNAMICS, Task.FORWARD_DYNAMICS)
_WITH_FUTURE = (Task.VISUAL_FORECASTING, Task.FORWARD_DYNAMICS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spreads:
    """Standard deviations by channel: [E] of normalised actions around 0, and [D] of latents from the last picture to the future one."""

    action_std: tuple[float, ...]
    change_std: tuple[float, ...]


def measured_spreads(
    loader: Loader, ranks: Ranks, device: torch.device, mishaps: Mishaps | None = None
) -> Spreads:
    """Of samples evenly spread over the split. Every rank reads its stretch of them.

    An anchor counts once, however often it is drawn: what weights could change is little, for actions are normalised for each body and
    pictures are of one encoder, and the network says what the guess misses. An action element that no sample has, of a body to come say, gets
    the spread of all elements together.

    Raises:
        SourceError: one of them is broken; ConfigError on the other ranks.
    """
    shapes = loader.shapes()
    known = set() if mishaps is None else mishaps.was_unmeasured
    left_out: list[UnmeasuredSample] = []
    readers = (
        _Readable(loader, "actions", known, left_out),
        _Readable(loader, "pictures", known, left_out),
    )
    actions = _sums(loader, _WITH_ACTIONS, readers[0], shapes.action_width, ranks, device)
    changes = _sums(loader, _WITH_FUTURE, readers[1], shapes.latent_width, ranks, device)
    if mishaps is not None:
        mishaps.unmeasured(left_out)
    return Spreads(
        action_std=_std(*actions, least=_LEAST_OF_ACTIONS),
        change_std=_std(*changes, least=_LEAST_OF_CHANGES),
    )


def _sums(
    loader: Loader,
    tasks: tuple[Task, ...],
    readable: _Readable,
    num_channels: int,
    ranks: Ranks,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """[num_channels] sums of squares and numbers of values, over all ranks."""
    sums = torch.zeros(2, num_channels, dtype=torch.float64)
    for task in tasks:
        places = loader.places(task, NUM_SAMPLES)
        with raise_on_any_rank(ranks):
            for first in range(0, len(places.now), _AT_ONCE):
                for values in readable.parts(places.part(slice(first, first + _AT_ONCE))):
                    sums += torch.stack([values.square().nansum(0), (~values.isnan()).sum(0)])
        sums = sum_over(sums.to(device), ranks).cpu()
        if sums[1].any():
            break
    return sums[0], sums[1]


def _std(squares: Tensor, num: Tensor, *, least: float) -> tuple[float, ...]:
    """Three digits, so that sums in another order agree."""
    whole = (squares.sum() / num.sum()).sqrt()
    if not whole > 0:  # nothing was measured, or nothing changes
        return (_UNKNOWN,) * len(num)
    std = torch.where(num > 0, (squares / num).sqrt(), whole).clamp(min=least * whole)
    return tuple(float(f"{each:.3g}") for each in std.tolist())


@dataclass(frozen=True, slots=True)
class _Readable:
    """Reads one thing of samples. Where some may be left out, without those that cannot be read, or could not when the run was begun."""

    loader: Loader
    what: Literal["actions", "pictures"]
    known: Collection[tuple[str, str, int]]
    left_out: list[UnmeasuredSample]

    def parts(self, places: Drawn) -> Iterator[Tensor]:
        if self.known:
            at = zip(self.loader.source.uids(places), places.now.tolist(), strict=True)
            is_kept = [(self.what, uid, now) not in self.known for uid, now in at]
            places = places.part(np.flatnonzero(is_kept))
            if not len(places.now):
                return
        read = {"actions": _actions, "pictures": _changes}[self.what]
        try:
            yield read(self.loader.source, places)
        except SourceError:
            if not self.loader.recipe.run.max_bad_samples:
                raise
            for b in range(len(places.now)):
                one = places.part(slice(b, b + 1))
                try:
                    yield read(self.loader.source, one)
                except SourceError as error:
                    (uid,) = self.loader.source.uids(one)
                    self.left_out.append(
                        UnmeasuredSample(
                            what=self.what, uid=uid, timestep=int(one.now[0]), error=str(error)
                        )
                    )


def _actions(source: BatchSource, places: Drawn) -> Tensor:
    """[N, E], NaN where there is none. Few moves beyond what is usual, of a body that else stands still, do not widen it for all."""
    action, has = source.actions(places)
    return torch.where(has, action.double().clamp(-FAR, FAR), torch.nan).flatten(0, 1)


def _changes(source: BatchSource, places: Drawn) -> Tensor:
    """[N, D], where both pictures are there."""
    pictures, has = source.pictures(places)
    change = (pictures[:, -1].float() - pictures[:, -2].float()).double()
    has_both = has[:, -1] & has[:, -2]
    return change[has_both.repeat_interleave(change.shape[1] // has_both.shape[1], dim=1)]
