"""Kernels for sequences of a length of their own, laid end to end: FlashAttention 3 or 4 where it is installed, else torch's, else of flash-attn 2.

Of the packages the names of the arguments were read in their sources; NOT RUN ON A GPU, as in `training/model/flash.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from inspect import signature
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.profiler import record_function

from training.model.flash import PACKAGES, attended, installed_package, unseen

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
