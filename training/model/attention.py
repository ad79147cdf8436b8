"""Attention kernels: PyTorch's in a stated order, or FlashAttention 3 and 4 where installed, also for sequences of different lengths laid end to end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as fn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile

from training.model.flash_attention import (
    KERNELS,
    PACKAGES,
    REPORTED,
    flash_attention,
    installed,
)
from training.model.kernel_check import DTYPE, is_right

WIDEST = 128  # of a head, a multiple of 8: what all of them take, forwards and backwards


@dataclass(frozen=True, slots=True, kw_only=True)
class Flash:
    """Attention of everything to everything by a package; `name` is that of `KERNELS` and is what a profiler sees."""

    name: str

    def takes(self, query: Tensor) -> bool:
        """[B, H, L, W]."""
        return is_for_kernels(query)

    def run(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """[B, H, L, W], as `attend` takes them. The kernels take [B, L, H, W]."""
        turned = (x.transpose(1, 2) for x in (query, key, value))
        out: Tensor = flash_attention(*turned, self.name)[0]
        return out.transpose(1, 2)

    def run_varlen(self, query: Tensor, key: Tensor, value: Tensor, *lengths: Any) -> Tensor:
        """As `Varlen`."""
        out: Tensor = flash_attention(query, key, value, self.name, *lengths)[0]
        return out


def is_for_kernels(query: Tensor) -> bool:
    """[..., W] on a GPU, of the type that is checked, and of a width that all of them have."""
    return query.is_cuda and query.dtype == DTYPE and is_width(query.shape[-1])


def is_width(width: int) -> bool:
    """Whether all of them have it."""
    return width % 8 == 0 and width <= WIDEST


@cache
def _flash(name: str) -> Flash:
    """One of a name, so that its methods are looked at once."""
    return Flash(name=name)


def flash_kernel(width: int) -> Flash | None:
    """That of the installed package, for joint attention with heads of `width`. None where there is none or it computes something else."""
    name = installed()
    if name is None or not is_width(width):
        return None
    flash = _flash(name)
    return flash if is_right(flash.run, name, width, has_lengths=False) else None


class Varlen(Protocol):
    """The n-th sequence has rows starts[n]:starts[n + 1]; rows after the last belong to none."""

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        query_starts: Tensor,
        key_starts: Tensor,
        max_queries: int,
        max_keys: int,
        /,
    ) -> Tensor:
        """query [B * Q, H, W], key and value [rows, H, W], starts [B + 1] int32; answers [B * Q, H, W]."""
        ...

    def __hash__(self) -> int: ...


def varlen_kernel(width: int) -> Varlen | None:
    """For CUDA, in bf16 (`is_for_kernels`), with heads of `width`. None where nothing of the kind is installed (torch has one since 2.10), or
    all of them compute something else.
    """
    if not is_width(width):
        return None
    for name, kernel in _varlen_kernels():
        if not torch.cuda.is_available() or is_right(kernel, name, width, has_lengths=True):
            return kernel
    return None


def _varlen_kernels() -> Iterator[tuple[str, Varlen]]:
    """Those at hand, the first choice first."""
    name = installed()
    if name is not None and KERNELS[name].has_lengths:
        yield name, _flash(name).run_varlen
    for place, function in (
        ("torch.nn.attention.varlen", "varlen_attn"),
        ("flash_attn", "flash_attn_varlen_func"),
    ):
        try:
            function_found: Varlen = getattr(import_module(place), function)
        except (ImportError, AttributeError, OSError):
            continue  # not installed, for another machine, or of version 4 alone: then `flash_attn` is a bare folder
        yield place, function_found  # both take these seven in this order


# Hopper: cuDNN is fastest where it takes the shape; then flash, which takes no mask; then what takes everything.
PRIORITY = (
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
)
_KERNELS = {
    "aten::_scaled_dot_product_cudnn_attention": "cudnn",
    "aten::_scaled_dot_product_flash_attention": "flash",
    "aten::_scaled_dot_product_flash_attention_for_cpu": "flash (cpu)",
    "aten::_scaled_dot_product_efficient_attention": "efficient",
    "aten::_scaled_dot_product_attention_math": "math",
    "torch_attn::_varlen_attn": "varlen (torch)",
    "flash_attn::_flash_attn_varlen_forward": "varlen (flash-attn)",
    **{name: name for name in (*PACKAGES, *REPORTED.values())},
}


def operators() -> list[Any]:
    """Of attention by a package or of sequences of different lengths: those of `aten` apart, all whose package is installed."""
    # An operator exists once its module is imported, and any of them may be chosen.
    for _ in _varlen_kernels():
        pass
    spaces = [name.split("::") for name in _KERNELS if "::" in name and not name.startswith("aten")]
    names = [("eicorpus", "flash_attention"), *spaces]
    packets = [getattr(getattr(torch.ops, space), name, None) for space, name in names]
    return [packet.default for packet in packets if packet is not None]


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    may_attend: Tensor | None = None,
    *,
    flash: Flash | None = None,
) -> Tensor:
    """softmax(q k / sqrt(width)) v.

    Args:
        query: [B, H, Q, W]. key, value: [B, H, K, W].
        may_attend: bool, broadcast to [B, H, Q, K]; every query needs one key. None: all of them.
        flash: an installed package's kernel (`flash_kernel`), for what it takes; it knows no masks.

    Raises:
        TypeError: a mask that is not bool.
    """
    if may_attend is not None:
        refuse_numbers(may_attend)
    if flash is not None and may_attend is None and flash.takes(query):
        return flash.run(query, key, value)
    with sdpa_kernel(list(PRIORITY), set_priority=True):
        out: Tensor = fn.scaled_dot_product_attention(query, key, value, attn_mask=may_attend)
    return out


def refuse_numbers(mask: Tensor) -> None:
    """
    Raises:
        TypeError: a mask that is not bool.
    """
    if mask.dtype != torch.bool:
        raise TypeError(
            f"mask of type {mask.dtype}; expected bool, True for keys that may be attended to"
        )


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """[B, L, H * W] to [B, H, L, W]."""
    return x.view(*x.shape[:-1], num_heads, -1).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """[B, H, L, W] to [B, L, H * W]."""
    return x.transpose(1, 2).flatten(2)


def kernels_of(run: Callable[[], Any]) -> dict[str, int]:
    """Which attention kernels `run` called, and how often: what the profiler saw, not what was asked for."""
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as seen:
        run()
    counts = {event.key: event.count for event in seen.key_averages()}
    return {name: counts[key] for key, name in _KERNELS.items() if key in counts}
