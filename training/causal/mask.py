"""Who attends to whom: one rule of integers, used as FlexAttention's `mask_mod` on CUDA and as a dense mask elsewhere.

In words (`wan_va/modules/model.py`, `docs/explanation`): tokens of another sample are not seen; a clean token sees clean ones of its own order
index and before; a noisy token sees clean ones strictly before; a noisy token sees noisy ones of its own order index and no other; a clean
token never sees a noisy one; nothing further away than the window is seen. The window counts order indices, of which a chunk has two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from training.causal.layout import NOWHERE, Tokens
from training.model.attention import attend

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

    Mask = Tensor | BlockMask

BLOCK = 128  # tokens of a block of FlexAttention: sequences are padded to a multiple of it


def may_attend(query: Tokens, key: Tokens, window: int) -> Tensor:
    """Whether each query may look at each key; the fields of both broadcast against each other."""
    is_own = (query.sample == key.sample) & (query.sample != NOWHERE)
    back = query.order - key.order
    among_clean = query.is_clean & key.is_clean & (back >= 0)
    to_clean = ~query.is_clean & key.is_clean & (back > 0)
    among_noisy = ~query.is_clean & ~key.is_clean & (back == 0)
    return is_own & (among_clean | to_clean | among_noisy) & (back.abs() <= window)


def dense_mask(query: Tokens, key: Tokens, window: int) -> Tensor:
    """[B, Q, K] bool."""
    rows = Tokens(*(each[:, :, None] for each in query))
    columns = Tokens(*(each[:, None, :] for each in key))
    return may_attend(rows, columns, window)


def block_mask(query: Tokens, key: Tokens, window: int) -> BlockMask:
    """For FlexAttention; lengths are multiples of BLOCK."""
    from torch.nn.attention.flex_attention import create_block_mask

    def rule(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        asking = Tokens(*(each[b, q] for each in query))
        asked = Tokens(*(each[b, k] for each in key))
        return may_attend(asking, asked, window)

    (batch, num_queries), num_keys = query.sample.shape, key.sample.shape[1]
    return create_block_mask(rule, batch, None, num_queries, num_keys, device=query.sample.device)


def mask_for(query: Tokens, key: Tokens, window: int, *, flex: bool) -> Mask:
    """What `attend_where` takes: of FlexAttention, or [B, Q, K] bool."""
    return block_mask(query, key, window) if flex else dense_mask(query, key, window)


def attend_where(query: Tensor, key: Tensor, value: Tensor, mask: Mask) -> Tensor:
    """[B, H, Q, W] of what each query may see; 0 where that is nothing, as of padding."""
    if not isinstance(mask, Tensor):
        return _flex()(query, key, value, block_mask=mask)  # type: ignore[no-any-return]
    has_any = mask.any(dim=2, keepdim=True)
    out = attend(query, key, value, (mask | ~has_any)[:, None])
    return torch.where(has_any[:, None], out, 0.0)


_COMPILED: list[Any] = []


def _flex() -> Any:
    """Compiled once: without that FlexAttention computes every score."""
    if not _COMPILED:
        from torch.nn.attention.flex_attention import flex_attention

        _COMPILED.append(torch.compile(flex_attention, dynamic=True))
    return _COMPILED[0]


def padded_length(num_tokens: int) -> int:
    """The next multiple of BLOCK."""
    return -(-num_tokens // BLOCK) * BLOCK
