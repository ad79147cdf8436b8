"""Flow matching: a straight path from noise (t = 0) to data (t = 1), its velocity, and the way back by Euler steps.

    x_t = (1 - t) eps + t x        v = dx_t / dt = x - eps

LDA's code and openpi's agree with this direction; LDA's paper writes eps - x with time reversed (`models.md` 1.5, 1.13). A test
recovers an analytic Gaussian, which a wrong sign cannot.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

SHIFT = 0.999  # of the draw of t: u in [0, SHIFT] becomes [0, 1]


def times_from(v: Tensor, *, alpha: float = 1.5) -> Tensor:
    """Times t = (0.999 - u) / 0.999 with u ~ Beta(alpha, 1), in [0, 1], of uniform v: most are near noise (`models.md` 1.5).

    For Beta(alpha, 1), u = v^(1 / alpha).
    """
    return ((SHIFT - v ** (1.0 / alpha)) / SHIFT).clamp(0.0, 1.0)


def noised(data: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """[B, ...] at time t [B] of the way from noise to data."""
    t = t.view(-1, *[1] * (data.dim() - 1)).to(data.dtype)
    return (1 - t) * noise + t * data


def velocity(data: Tensor, noise: Tensor) -> Tensor:
    """What the network is to say: constant along the path."""
    return data - noise


def sampled(
    noise: Tensor, velocity_at: Callable[[Tensor, Tensor], Tensor], *, num_steps: int = 4
) -> Tensor:
    """From noise to data in `num_steps` Euler steps of equal length; `velocity_at(x [B, ...], t [B])`."""
    x = noise
    for step in range(num_steps):
        t = torch.full((len(x),), step / num_steps, device=x.device)
        x = x + velocity_at(x, t) / num_steps
    return x
