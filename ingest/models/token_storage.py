"""Tokens as they are stored: bfloat16, or eight bits with one scale for each token; and what that loses.

fp8 is OCP float8 e4m3fn, whose largest value is 448; int8 is symmetric, -127..127. The scale of a token is its largest absolute element
over that; of a token of zeros it is 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from schemas.latents import LATENTS, SCALE, Storage

LARGEST = {"fp8": 448.0, "int8": 127.0}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StoredTokens:
    """latents: [n, T, D] in the stored type; scale: [n, T] float32, or None for bf16."""

    latents: Tensor
    scale: Tensor | None = None


def stored(tokens: Tensor, dtype: Storage) -> StoredTokens:
    """[n, T, D] of any float type as they are stored, on the same device."""
    if dtype == "bf16":
        return StoredTokens(latents=tokens.to(torch.bfloat16))
    exact = tokens.float()
    scale = exact.abs().amax(dim=-1) / LARGEST[dtype]
    scale = torch.where(scale == 0, 1.0, scale)  # a NaN stays one
    scaled = exact / scale[..., None]
    if dtype == "fp8":
        return StoredTokens(latents=scaled.to(torch.float8_e4m3fn), scale=scale)
    return StoredTokens(latents=scaled.round().clamp(-127, 127).to(torch.int8), scale=scale)


def read(stored: StoredTokens) -> Tensor:
    """[n, T, D] float32: what a reader makes of what is stored."""
    exact = stored.latents.float()
    return exact if stored.scale is None else exact * stored.scale[..., None]


def part_of(stored: StoredTokens, first: int, end: int) -> StoredTokens:
    """Of the pictures [first, end)."""
    scale = None if stored.scale is None else stored.scale[first:end]
    return StoredTokens(latents=stored.latents[first:end], scale=scale)


def is_finite(stored: StoredTokens) -> bool:
    """Whether every number is one. A NaN in a token is in its scale too."""
    seen = stored.latents if stored.scale is None else stored.scale
    return bool(torch.isfinite(seen).all())


def cosine_errors(tokens: Tensor, reference: Tensor) -> Tensor:
    """[n, T] 1 - cosine of each token with what it should be; 0 where both are zeros."""
    a, b = tokens.double(), reference.double()
    norms = a.norm(dim=-1) * b.norm(dim=-1)
    cosine = torch.where(norms > 0, (a * b).sum(-1) / norms.clamp_min(1e-300), 1.0)
    return (1.0 - cosine).clamp_min(0.0)  # a rounding may take it below


def bytes_of(stored: StoredTokens) -> dict[str, memoryview]:
    """What a file holds of them, by tensor. On a GPU this waits for them."""
    tensors = {LATENTS: stored.latents}
    if stored.scale is not None:
        tensors[SCALE] = stored.scale
    here = {name: _copied_here(each) for name, each in tensors.items()}
    if stored.latents.is_cuda:
        torch.cuda.current_stream(stored.latents.device).synchronize()
    return {name: each.view(torch.uint8).numpy().reshape(-1).data for name, each in here.items()}


def _copied_here(tensor: Tensor) -> Tensor:
    """In this machine's memory; of a GPU still on its way there, into pinned memory, which torch uses again and again."""
    if not tensor.is_cuda:
        return tensor.contiguous()
    pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return pinned.copy_(tensor, non_blocking=True)
