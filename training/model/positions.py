"""Where a token is: a learned table (LDA), or rotations of queries and keys (Su et al. 2021, RoPE) over patches and time."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def timestep_features(t: Tensor, width: int, *, max_period: float = 10_000.0) -> Tensor:
    """[B] or [B, ...] flow time in [0, 1] to sinusoids [..., width]: half cosines, half sines, of 1000 t (DiT, Peebles & Xie 2023)."""
    half = width // 2
    rates = torch.exp(-math.log(max_period) * torch.arange(half, device=t.device) / half)
    angle = 1000.0 * t[..., None].float() * rates
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


def rotations(places: Tensor, head_width: int, *, base: float = 10_000.0) -> Tensor:
    """[L, 2] places (two coordinates of each token) to angles [L, head_width / 2]: the first half turns with the first coordinate."""
    quarter = head_width // 4
    rates = base ** (-torch.arange(quarter, device=places.device) / quarter)
    return torch.cat([places[:, :1] * rates, places[:, 1:] * rates], dim=-1)


def rotate(x: Tensor, angle: Tensor) -> Tensor:
    """Turn neighbouring pairs of the last axis of [B, H, L, W] by `angle` [L, W / 2]."""
    even, odd = x[..., 0::2], x[..., 1::2]
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)


def token_places(
    num_patches: int, num_views: int, num_registers: int, num_action_tokens: int
) -> Tensor:
    """[L, 2] places of registers, patches, action tokens: patches on a grid (views beside each other), the rest on a line below it."""
    side = math.ceil(math.sqrt(num_patches))
    patch = torch.arange(num_patches)
    views = [
        torch.stack([patch // side, patch % side + view * (side + 1)], dim=-1)
        for view in range(num_views)
    ]
    registers = torch.full((num_registers, 2), -1)
    steps = torch.arange(num_action_tokens)
    line = torch.stack([torch.full_like(steps, side + 1), steps], dim=-1)
    return torch.cat([registers, *views, line]).float()
