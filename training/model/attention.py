"""Attention through torch's kernels, in an order that is stated, or through an installed package's, and a report of which one ran.

Masks are bool, True where a key may be attended to (a float mask of 0 and 1 is added to the logits: padding is then attended,
`models.md` 1.12 bug 11). Joint attention takes no mask at all: with one, the flash kernels refuse. Attention to text is in `text.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as fn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile

from training.model.flash import PACKAGES, Flash
from training.model.varlen import REPORTED

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
            f"a mask of {mask.dtype}; it must be bool, True where a key may be attended to"
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
