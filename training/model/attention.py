"""Attention kernels: PyTorch's in a stated order, or FlashAttention 3 and 4 where installed, also for sequences of different lengths laid end to end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from inspect import signature
from typing import Any, ParamSpec, Protocol

import torch
from torch import Tensor
from torch.nn import functional as fn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile, record_function

P = ParamSpec("P")
HALF = (torch.float16, torch.bfloat16)
WIDEST = 128  # of a head, a multiple of 8: what all of them take, forwards and backwards
# By name: the module, and the major compute capabilities that it is tried on. Hopper (9) takes what was written for it first.
PACKAGES = {
    "flash-attn 3": ("flash_attn_interface", (9,)),
    "flash-attn 4": ("flash_attn.cute", (9, 10)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Flash:
    """Attention of everything to everything by a package; `name` is that of `PACKAGES` and is what a profiler sees."""

    name: str
    run: Callable[[Tensor, Tensor, Tensor], Tensor]

    def takes(self, query: Tensor) -> bool:
        """[B, H, L, W]."""
        return is_for_kernels(query)


def is_for_kernels(query: Tensor) -> bool:
    """[..., W] on a GPU, in half precision, of a width that all of them have."""
    width = query.shape[-1]
    return query.is_cuda and query.dtype in HALF and width % 8 == 0 and width <= WIDEST


def flash_kernel() -> Flash | None:
    """That of the installed package, for joint attention."""
    package = installed_package()
    if package is None:
        return None
    name, module = package
    return Flash(name=name, run=unseen(turned(name, module.flash_attn_func)))


def installed_package() -> tuple[str, Any] | None:
    """Name and module of the first of `PACKAGES` for this GPU that can be imported."""
    if not torch.cuda.is_available():
        return None
    major, _ = torch.cuda.get_device_capability()
    for name, (module, majors) in PACKAGES.items():
        if major not in majors:
            continue
        try:
            return name, import_module(module)
        except ImportError:
            continue
    return None


def unseen(run: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """torch.compile cannot look into kernels that are built as they are called: the graph has a seam there."""
    return torch.compiler.disable(run)  # type: ignore[no-untyped-call, no-any-return]


def turned(name: str, kernel: Callable[..., Any]) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """A kernel of [B, L, H, W] as one of [B, H, L, W]."""

    def run(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        with record_function(name):
            output = kernel(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2))
        return attended(output).transpose(1, 2)

    return run


def attended(output: Any) -> Tensor:
    """Some releases answer with what they attended to and its normaliser, others with the first alone."""
    out: Tensor = output[0] if isinstance(output, tuple) else output
    return out


# Of the last four of `Varlen`, in its order.
NAMES = ("cu_seqlens_q", "cu_seqlens_k", "max_seqlen_q", "max_seqlen_k")
# What a profiler sees of those that are called by us, by package.
REPORTED = {name: f"varlen ({name})" for name in PACKAGES}


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


def varlen_kernel() -> Varlen | None:
    """For CUDA, in half precision (`is_for_kernels`). None where nothing of the kind is installed: torch has one since 2.10."""
    if (package := installed_package()) is not None:
        name, module = package
        kernel = getattr(module, "flash_attn_varlen_func", None)
        if kernel is not None and _goes_both_ways(name, kernel):
            return unseen(named(REPORTED[name], kernel))
    for place, function in (
        ("torch.nn.attention.varlen", "varlen_attn"),
        ("flash_attn", "flash_attn_varlen_func"),
    ):
        try:
            function_found: Varlen = getattr(import_module(place), function)
        except (ImportError, AttributeError):  # of version 4 alone `flash_attn` is a bare folder
            continue
        return function_found  # both take these seven in this order
    return None


def _goes_both_ways(name: str, kernel: Callable[..., Any]) -> bool:
    """Of version 4, betas before the fifth refuse the backward pass on Hopper, and what flash-attn 2.8.3 brings of it has no lengths and no backward."""
    is_young = name == "flash-attn 4" and torch.cuda.get_device_capability()[0] < 10
    return not is_young and all(each in signature(kernel).parameters for each in NAMES)


def named(name: str, kernel: Callable[..., Any]) -> Varlen:
    """A kernel of a package. Releases of version 4 have other places for these arguments than version 3, but the same names (`NAMES`)."""

    def run(query: Tensor, key: Tensor, value: Tensor, *others: Any) -> Tensor:
        with record_function(name):
            output = kernel(query, key, value, **dict(zip(NAMES, others, strict=True)))
        return attended(output)

    return run


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
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        run()
    counts = {event.key: event.count for event in seen.key_averages()}
    return {name: counts[key] for key, name in _KERNELS.items() if key in counts}
