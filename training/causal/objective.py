"""The flow of the block-causal model, its noise levels, and the loss of a batch of sequences.

    x_s = (1 - s) x + s eps        v = dx_s / ds = eps - x        s: 0 is data, 1 is noise

That is LingBot-VA's sign (`wan_va/utils/scheduler.py`, `training_target`). `training/flow.py` runs the other way: its t is 1 - s and
its velocity x - eps. Sampling here steps s down from 1 to 0, so x <- x + (s_next - s) v, with a negative step.

Of each frame a level s = shift u / (1 + (shift - 1) u) is drawn, u uniform over 1000 numbers. Errors of a frame are a mean over what of it is scored, times
a bell-shaped weight of its level; a loss is the mean over frames. Of a noisy history the levels have u up to one half: the half nearer to data.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

NUM_LEVELS = 1000  # of u: 1/1000 .. 1
LEAST_LEVEL = 0.05  # Li and He 2025, arXiv 2511.13720


def level_of(u: Tensor, shift: float) -> Tensor:
    """Noise levels of u in [0, 1]: a shift above 1 moves them towards noise."""
    return shift * u / (1 + (shift - 1) * u)


def u_from(uniform: Tensor, *, highest: float = 1.0) -> Tensor:
    """u in {1, 2, ...} / 1000 of uniform numbers in [0, 1), up to `highest`."""
    num = round(highest * NUM_LEVELS)
    return ((uniform * num).floor() + 1) / NUM_LEVELS


def mixed_with_noise(data: Tensor, noise: Tensor, level: Tensor) -> Tensor:
    """Data at these levels. level: the leading axes of data."""
    s = level.view(*level.shape, *[1] * (data.dim() - level.dim())).to(data.dtype)
    return (1 - s) * data + s * noise


def noise_velocity(data: Tensor, noise: Tensor) -> Tensor:
    """What the network says: constant along the path, and minus that of `training.flow.velocity`."""
    return noise - data


def velocity_to(data: Tensor, noisy: Tensor, level: Tensor) -> Tensor:
    """Of noisy data whose clean data are said to be `data`: x_s - x = s v. Below LEAST_LEVEL that level counts: nothing is divided by 0."""
    s = level.clamp(min=LEAST_LEVEL)
    return (noisy - data) / s.view(*s.shape, *[1] * (data.dim() - s.dim())).to(data.dtype)


def bell_weight(level: Tensor, shift: float) -> Tensor:
    """exp(-2 (s - 1/2)^2), less its smallest value, over its mean: the levels between data and noise count most, the ends nothing."""
    lowest, mean = _bell(shift)
    return (_raw_bell(level) - lowest) / mean


def _raw_bell(level: Tensor) -> Tensor:
    return torch.exp(-2 * (level - 0.5).square())


@cache
def _bell(shift: float) -> tuple[float, float]:
    """The smallest value, and the mean of what is above it, over all levels of a shift."""
    u = torch.arange(1, NUM_LEVELS + 1, dtype=torch.float64) / NUM_LEVELS
    raw = _raw_bell(level_of(u, shift))
    return float(raw.min()), float((raw - raw.min()).mean())


def frame_errors(error: Tensor, scored: Tensor) -> tuple[Tensor, Tensor]:
    """[B, F] mean squared error of each frame over what of it is scored, 0 where that is nothing, and whether it is anything.

    Args:
        error: [B, F, ...] squared errors. scored: bool, the same shape.
    """
    sums = torch.where(scored, error, 0.0).flatten(2).sum(2)
    counts = scored.flatten(2).sum(2)
    return sums / counts.clamp(min=1), counts > 0


def sampling_levels(num_steps: int, shift: float, device: torch.device) -> Tensor:
    """[num_steps + 1] levels from 1 down to 0, in equal steps of u."""
    u = 1 - torch.arange(num_steps + 1, device=device, dtype=torch.float64) / num_steps
    return level_of(u, shift)
