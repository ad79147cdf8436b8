"""Whether an attention kernel of a package computes what it should, on this GPU and for this width of heads: looked at once, before it is used.

A kernel can be wrong without a word. FlashAttention 4 (4.0.0b36) on an H100 has right values for heads of 48, and a gradient of the query that is
wrong by its own size; for heads of 128 all of it is right (docs/results/benchmarks.md).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

FURTHEST = 0.02  # of bf16: right kernels are off by 0.0025 of the norm
HEADS, QUERIES, KEYS = 2, 248, (33, 65)  # queries and keys of no whole tile
DEVICE, DTYPE = "cuda", torch.bfloat16

Attention = Callable[..., Tensor]
Leaves = tuple[Tensor, Tensor, Tensor]


@cache
def is_right(attention: Attention, name: str, width: int, *, has_lengths: bool) -> bool:
    """Whether values and gradients of a small example agree with plain sums; where not, a warning says how.

    Args:
        attention: of [B, H, L, W]; or with `has_lengths` as `Varlen`.
        name: for the warning.
    """
    problem = problem_of(attention, width, has_lengths=has_lengths, device=DEVICE, dtype=DTYPE)
    if problem:
        warnings.warn(
            f"{name} is not used for heads of {width}: {problem}; attention goes to PyTorch's kernels",
            RuntimeWarning,
            stacklevel=2,
        )
    return not problem


def problem_of(
    attention: Attention, width: int, *, has_lengths: bool, device: str, dtype: torch.dtype
) -> str:
    """What is wrong, or ""."""
    # not in the fake tensors, counts and precision of whoever builds a network
    with (
        _disable_current_modes(),
        torch.inference_mode(False),  # noqa: FBT003
        torch.enable_grad(),
        torch.autocast(device, enabled=False),
    ):
        leaves, grad, starts = _example(width, has_lengths=has_lengths, device=device, dtype=dtype)
        exact_leaves = tuple(x.detach().double().requires_grad_() for x in leaves)
        if has_lengths:
            exact = _by_sequence(exact_leaves, starts)
            starts_there = [torch.tensor(x, dtype=torch.int32, device=device) for x in starts]
            lengths = (*starts_there, QUERIES, max(KEYS))
        else:
            exact, lengths = _sums(*exact_leaves), ()
        exact_terms = (exact, *torch.autograd.grad(exact, exact_leaves, grad.double()))
        try:
            out = attention(*leaves, *lengths)
            grads = torch.autograd.grad(out, leaves, grad)
        except Exception as error:  # noqa: BLE001  whatever a compiler of kernels raises
            return f"{type(error).__name__}: {error}".splitlines()[0]
        names = ("result", "gradient of the query", "gradient of the key", "gradient of the value")
        for what, actual, right in zip(names, (out, *grads), exact_terms, strict=True):
            off = ((actual - right).norm() / right.norm()).item()
            if not off <= FURTHEST:
                return f"its {what} is off by {off:.2g} of the norm"
    return ""


def _example(
    width: int, *, has_lengths: bool, device: str, dtype: torch.dtype
) -> tuple[Leaves, Tensor, tuple[list[int], list[int]]]:
    """Query, key and value; a gradient of the result; and where sequences start among queries and among keys."""
    seeded = torch.Generator(device).manual_seed(0)

    def normal(*shape: int) -> Tensor:
        x = torch.randn(*shape, generator=seeded, device=device)
        return x.to(dtype).requires_grad_()

    num = len(KEYS)
    starts = [n * QUERIES for n in range(num + 1)], [0, KEYS[0], sum(KEYS)]
    if has_lengths:
        rows = (num * QUERIES, sum(KEYS), sum(KEYS))
        query, key, value = (normal(n, HEADS, width) for n in rows)
    else:
        query, key, value = (normal(num, HEADS, QUERIES, width) for _ in range(3))
    grad = normal(*query.shape).detach()
    return (query, key, value), grad, starts


def _sums(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Of [..., L, W]."""
    logits = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    return logits.softmax(dim=-1) @ value


def _by_sequence(leaves: tuple[Tensor, ...], starts: tuple[list[int], list[int]]) -> Tensor:
    """[rows, H, W] of sequences that lie end to end."""

    def each() -> Iterator[Tensor]:
        for q, k in zip(*(pairwise(x) for x in starts), strict=True):
            of_one = [
                x[slice(*at)].transpose(0, 1) for x, at in zip(leaves, (q, k, k), strict=True)
            ]
            yield _sums(*of_one).transpose(0, 1)

    return torch.cat(list(each()))
