"""Whether an attention kernel computes what it should, on this GPU and with this width of heads: checked once, before it is used.

A kernel can be wrong without an error. FlashAttention 4 (4.0.0b36) on an H100 has right values with heads of 48, and a gradient of the query whose
relative error is 1.1; with heads of 128 all of it is right (docs/results/benchmarks.md). The check covers bf16, a few lengths and two heads, not the sizes of a run.
It was tested with stand-ins on CPUs, and has not run on a GPU itself.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import pairwise

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

LARGEST_ERROR = 0.02  # relative, in bf16; that of right kernels is 0.0024
SAMPLES, HEADS = 2, 2
# Not multiples of a kernel's tiles. The mistake of FlashAttention 4 was measured at 248, with 128 samples of 32 heads.
LENGTHS = (248, 520)
TEXTS = (33, 300)  # keys of each sample, where they differ
LONGEST = 320  # a caller may state more than the longest text has
DEVICE, DTYPE = "cuda", torch.bfloat16

Attention = Callable[..., Tensor]


@cache
def is_right(attention: Attention, name: str, width: int, *, has_lengths: bool) -> bool:
    """Whether values and gradients of small examples agree with a reference in float64. Where they do not, a warning says how.

    Args:
        attention: of [B, H, L, W]; or with `has_lengths` as `Varlen`.
        name: for the warning.

    Raises:
        OutOfMemoryError: there is no memory for an example, a few MB.
    """
    problem = problem_of(attention, width, has_lengths=has_lengths, device=DEVICE, dtype=DTYPE)
    if problem:
        warnings.warn(
            f"{name} is not used for heads of {width}: {problem}; another kernel is used",
            RuntimeWarning,
            stacklevel=2,
        )
    return not problem


def problem_of(
    attention: Attention, width: int, *, has_lengths: bool, device: str, dtype: torch.dtype
) -> str:
    """What is wrong, or ""."""
    # not in the fake tensors, counts and precision of the caller
    with (
        _disable_current_modes(),
        torch.inference_mode(mode=False),
        torch.enable_grad(),
        torch.autocast(device, enabled=False),
    ):
        example = _example_of_texts if has_lengths else _example
        try:
            problems = (
                _problem_of(attention, *example(length, width, device, dtype)) for length in LENGTHS
            )
            return next(filter(None, problems), "")
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # noqa: BLE001  whatever a compiler of kernels raises
            return f"{type(error).__name__}: {error}".splitlines()[0]


def _problem_of(
    attention: Attention,
    leaves: Sequence[Tensor],
    lengths: tuple[object, ...],
    reference: Callable[[Sequence[Tensor]], Tensor],
) -> str:
    """
    Args:
        leaves: query, key and value. lengths: what `attention` takes after them.
    """
    exact_leaves = [x.detach().double().requires_grad_() for x in leaves]
    exact_out = reference(exact_leaves)
    grad = _normal(exact_out.shape, leaves[0].device.type, leaves[0].dtype, seed=1)
    exact = (exact_out, *torch.autograd.grad(exact_out, exact_leaves, grad.double()))
    out = attention(*leaves, *lengths)
    actual = (out, *torch.autograd.grad(out, leaves, grad))
    names = ("result", "gradient of the query", "gradient of the key", "gradient of the value")
    for name, one, other in zip(names, actual, exact, strict=True):
        error = ((one - other).norm() / other.norm()).item()
        if not error <= LARGEST_ERROR:
            return f"the relative error of its {name} is {error:.2g}"
    return ""


def _normal(shape: Sequence[int], device: str, dtype: torch.dtype, *, seed: int) -> Tensor:
    seeded = torch.Generator(device).manual_seed(seed)
    return torch.randn(*shape, generator=seeded, device=device).to(dtype)


def _example(length: int, width: int, device: str, dtype: torch.dtype) -> tuple[Sequence[Tensor], tuple[()], Callable[[Sequence[Tensor]], Tensor]]:  # fmt: skip
    """Of [B, H, L, W]."""
    shape = (3, SAMPLES, HEADS, length, width)
    leaves = [x.requires_grad_() for x in _normal(shape, device, dtype, seed=0).unbind()]
    return leaves, (), lambda exact: _attention(*exact)


def _example_of_texts(length: int, width: int, device: str, dtype: torch.dtype) -> tuple[Sequence[Tensor], tuple[object, ...], Callable[[Sequence[Tensor]], Tensor]]:  # fmt: skip
    """Of rows that lie end to end; keys and values beside each other in memory, as text has them."""
    query = _normal((SAMPLES * length, HEADS, width), device, dtype, seed=0).requires_grad_()
    key_value = _normal((sum(TEXTS), 2, HEADS, width), device, dtype, seed=2)
    key, value = (x.requires_grad_() for x in key_value.unbind(1))
    starts = [n * length for n in range(SAMPLES + 1)], [0, TEXTS[0], sum(TEXTS)]
    on_device = [torch.tensor(x, dtype=torch.int32, device=device) for x in starts]

    def by_sample(exact: Sequence[Tensor]) -> Iterator[Tensor]:
        for q, k in zip(*map(pairwise, starts), strict=True):
            of_sample = [
                x[slice(*at)].transpose(0, 1) for x, at in zip(exact, (q, k, k), strict=True)
            ]
            yield _attention(*of_sample).transpose(0, 1)

    lengths = (*on_device, length, LONGEST)
    return (query, key, value), lengths, lambda exact: torch.cat(list(by_sample(exact)))


def _attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(q k / sqrt(W)) v, of [..., L, W]."""
    logits = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    return logits.softmax(dim=-1) @ value
