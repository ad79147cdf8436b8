"""Kernels for sequences of a length of their own, laid end to end: FlashAttention 3 or 4 where it is installed, else torch's, else of flash-attn 2.

Of the packages the names of the arguments were read in their sources; NOT RUN ON A GPU, as in `training/model/flash.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol

from torch import Tensor
from torch.profiler import record_function

from training.model.flash import PACKAGES, attended, installed_package, unseen

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
    ) -> Tensor:
        """query [B * Q, H, W], key and value [rows, H, W], starts [B + 1] int32; answers [B * Q, H, W]."""
        ...


def varlen_kernel() -> Varlen | None:
    """For CUDA, in half precision (`is_for_kernels`). None where nothing of the kind is installed: torch has one since 2.10."""
    if (package := installed_package()) is not None:
        name, module = package
        return unseen(named(REPORTED[name], module.flash_attn_varlen_func))
    for module, kernel in (
        ("torch.nn.attention.varlen", "varlen_attn"),
        ("flash_attn", "flash_attn_varlen_func"),
    ):
        try:
            found: Varlen = getattr(import_module(module), kernel)
        except (ImportError, AttributeError):  # of version 4 alone `flash_attn` is a bare folder
            continue
        return found  # both take these seven in this order
    return None


def named(name: str, kernel: Callable[..., Any]) -> Varlen:
    """A kernel of a package. Releases of version 4 have other places for these arguments; their names are those of version 3."""

    def run(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        query_starts: Tensor,
        key_starts: Tensor,
        max_queries: int,
        max_keys: int,
    ) -> Tensor:
        with record_function(name):
            found = kernel(
                query,
                key,
                value,
                cu_seqlens_q=query_starts,
                cu_seqlens_k=key_starts,
                max_seqlen_q=max_queries,
                max_seqlen_k=max_keys,
            )
        return attended(found)

    return run
