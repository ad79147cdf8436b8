"""What a network need not learn: the best velocity that is linear in what it is shown, so that it says only the rest.

Data x = m + r, of which m is known and channel c of r has the standard deviation s_c; on the path y = x_t - t m = (1 - t) eps + t r. Then, in
each channel,

    E[v | y] = m + skip y,  skip = (t s^2 - (1 - t)) / ((1 - t)^2 + t^2 s^2)        Var[v | y] = out^2,  out = s / sqrt((1 - t)^2 + t^2 s^2)

for Gaussian r, and the network is asked for (v - E[v | y]) / out, which has the variance 1 at every t in every channel. That is the
preconditioning of Karras et al. 2022 (EDM, arXiv 2206.00364, section 5 and appendix B.6) for a straight path, with their one sigma_data as a
diagonal: what channels tell of each other is left to the network. For actions m = 0; for a future picture m is the last one that was seen, so
that a network that says nothing yet forecasts that nothing changes. (Where no last picture is there m = 0 too, and the guess is a worse one.)

Errors of velocities are divided by out^2, as EDM's loss is (lambda = 1 / c_out^2): then every t and every channel counts alike, and 1 is what
the linear guess leaves. Undivided, a picture that changes little (s = 0.1) would be learned near t = 1 alone: at t = 0, where a forecast
begins, out^2 is s^2, a hundredth. With one s for all channels the guess leaves 1 at t = 1 and (s_c / s)^2 at t = 0: a channel that changes
ten times as much as the others would have a hundred times their loss.
"""

from __future__ import annotations

import torch
from torch import Tensor

Std = float | tuple[float, ...]  # of each channel, or of all


def channel_std(std: Std, num_channels: int) -> Tensor:
    """[num_channels] float32."""
    return torch.tensor(std, dtype=torch.float32).expand(num_channels).contiguous()


def velocity_from(output: Tensor, noisy: Tensor, mean: Tensor, t: Tensor, std: Tensor) -> Tensor:
    """[B, L, n] velocities, in the precision of `t` whatever that of `output` is: in bf16 there is no time between 0.996 and 1.

    Args:
        output: [B, L, n] what the network says. noisy: x_t, mean: m, both like it. t: [B] flow times. std: [n] s of each channel.
    """
    t = t.view(-1, 1, 1)
    spread = _spread(t, std)
    skip, out = (t * std**2 - (1 - t)) / spread, std * torch.rsqrt(spread)
    return mean + skip * (noisy - t * mean) + out * output


def error_weight(t: Tensor, std: Tensor) -> Tensor:
    """[B, 1, n] 1 / out^2, by which squared errors of velocities are multiplied. t: [B] flow times. std: [n] s of each channel."""
    return _spread(t.view(-1, 1, 1), std) / std**2


def _spread(t: Tensor, std: Tensor) -> Tensor:
    """[B, 1, n] the variance of y. t: [B, 1, 1]."""
    return (1 - t).square() + (t * std).square()
