"""Attention through torch's kernels, in an order that is stated, or through an installed package's, and a report of which one ran.

Masks are bool, True where a key may be attended to (a float mask of 0 and 1 is added to the logits: padding is then attended,
`models.md` 1.12 bug 11). Joint attention takes no mask at all: with one, the flash kernels refuse. Text has a length of its own in each
sample: where a kernel for that is at hand its padding is left out, elsewhere it is masked.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as fn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile

from training.model.flash import HALF, PACKAGES, Flash

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
    **{name: name for name in PACKAGES},
}


class Varlen(Protocol):
    """A kernel over sequences laid end to end: the n-th has rows starts[n]:starts[n + 1]; rows after the last sequence belong to none."""

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
    if may_attend is not None and may_attend.dtype != torch.bool:
        raise TypeError(
            f"a mask of {may_attend.dtype}; it must be bool, True where a key may be attended to"
        )
    if flash is not None and may_attend is None and flash.takes(query):
        return flash.run(query, key, value)
    with sdpa_kernel(list(PRIORITY), set_priority=True):
        out: Tensor = fn.scaled_dot_product_attention(query, key, value, attn_mask=may_attend)
    return out


def attend_text(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    has_text: Tensor,
    varlen: Varlen | None = None,
) -> Tensor:
    """`attend` to text of a length of its own in each sample.

    Args:
        query: [B, H, Q, W]. key, value: [B, H, T, W].
        has_text: [B, T] bool, where there is a token: anywhere in the row, and at least one in each.
        varlen: the kernel that leaves padding out (`varlen_kernel`). None: a mask.

    Raises:
        TypeError: a mask that is not bool.
    """
    if has_text.dtype != torch.bool:
        raise TypeError(f"a mask of {has_text.dtype}; it must be bool, True where there is a token")
    if varlen is None:
        return attend(query, key, value, has_text[:, None, None, :])
    batch, heads, num_queries, width = query.shape
    rows, has_row, key_starts = packed_rows(has_text)
    query_starts = torch.arange(batch + 1, dtype=torch.int32, device=query.device) * num_queries
    # zeros where nothing is: a kernel's gradient there may be anything, and must reach no weight
    keys, values = (
        torch.where(has_row, x.transpose(1, 2).reshape(-1, heads, width)[rows], 0.0)
        for x in (key, value)
    )
    out = varlen(
        query.transpose(1, 2).reshape(-1, heads, width),
        keys,
        values,
        query_starts,
        key_starts,
        num_queries,
        has_text.shape[1],
    )
    return out.view(batch, num_queries, heads, width).transpose(1, 2)


def packed_rows(has_text: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """How the tokens of [B, T] lie end to end, by arithmetic of fixed shape: nobody waits for the GPU to count them.

    Returns:
        [B * T] rows of the flattened keys, those of tokens first and in order; [B * T, 1, 1] whether a row is of a token; [B + 1] int32
        where each sample's tokens start.
    """
    flat = has_text.flatten()
    rows = torch.argsort((~flat).to(torch.uint8), stable=True)
    starts = fn.pad(has_text.sum(dim=1).cumsum(0), (1, 0)).to(torch.int32)
    return rows, flat[rows][:, None, None], starts


def varlen_kernel() -> Varlen | None:
    """torch's own (2.10 and later), else the flash-attn package's, else None. For CUDA, in half precision."""
    try:
        kernel: Any = import_module("torch.nn.attention.varlen").varlen_attn
    except ImportError:
        try:
            kernel = import_module("flash_attn").flash_attn_varlen_func
        except ImportError:
            return None
    found: Varlen = kernel  # both take these seven in this order
    return found


def takes_varlen(query: Tensor) -> bool:
    """Whether such kernels run on this device in this precision."""
    return query.is_cuda and query.dtype in HALF


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
