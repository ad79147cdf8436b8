"""Flow times and noise of a batch: a pure function of (seed, step, place of the sample in the global batch).

So they do not depend on how many ranks share a batch or in how many parts a rank takes its share. Each sample has a key of its own
(`order.key_of`), with which the generator of the device is seeded anew. Kinds of devices draw different numbers from the same key.
(The CPU's generator takes 32 bits of a key: over a long run some samples share their noise with another, steps away. That is no harm.)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from training.batch import Batch
from training.data.rng_keys import key_of
from training.flow import draw_times

PURPOSE = 7  # of the keys: order and routing have 0 to 5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Noise:
    """R draws for B samples. t: [R, B], action: [R, B, K, E], future: [R, B, V * N, D]."""

    t: Tensor
    action: Tensor
    future: Tensor


def noise_for(batch: Batch, *, seed: int, step: int, first: int, num_draws: int) -> Noise:
    """On the device of the batch.

    Args:
        first: place of the batch's first sample in the global batch.
    """
    like, device = batch.action, batch.action.device
    generator = torch.Generator(device=device)
    t = torch.empty(len(like), num_draws, device=device)
    action = torch.empty(len(like), num_draws, *like.shape[1:], device=device)
    future = torch.empty(len(like), num_draws, *batch.future.shape[1:], device=device)
    for i in range(len(like)):
        generator.manual_seed(int(key_of(seed, step, PURPOSE, first + i)))
        t[i] = draw_times(num_draws, generator)
        action[i].normal_(generator=generator)
        future[i].normal_(generator=generator)
    return Noise(t=t.transpose(0, 1), action=action.transpose(0, 1), future=future.transpose(0, 1))
