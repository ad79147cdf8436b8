"""Text as every block attends to it, laid out once for all of them.

Each sample's text has a length of its own. Where a kernel for that is at hand (`varlen.py`) the tokens of all samples lie end to end and
padding is left out; elsewhere it is masked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as fn

from training.model.attention import (
    Varlen,
    attend,
    is_for_kernels,
    join_heads,
    refuse_numbers,
    split_heads,
)


class Words(NamedTuple):
    """Normalised text of B samples. A tuple, because FSDP2 looks for tensors in nothing else of ours.

    Masked: values [B, T, C]; has [B, T] bool, where there is a token: anywhere in the row, and at least one in each; starts None.
    End to end: values [B * T, C], those of tokens first and in order; has [B * T, 1] bool, which rows are of tokens; starts [B + 1]
    int32, where each sample's begin.

    With `own` [1, C], a token that stands before the text of every sample, `has` and `starts` count it and `values` do not: its keys and values are made
    once for all samples, and a text that is not trained has no gradient. End to end, `place` [B * (T + 1)] is the row of `values` of each row of
    `has`, and `is_own` [B * (T + 1), 1] which rows are the token's.
    """

    values: Tensor
    has: Tensor
    starts: Tensor | None = None
    own: Tensor | None = None
    place: Tensor | None = None
    is_own: Tensor | None = None


def is_for_varlen(values: Tensor, head_width: int) -> bool:
    """Whether queries to this text will be what the kernels take: as a linear layer makes them, under autocast or without."""
    is_cast = values.is_cuda and torch.is_autocast_enabled("cuda")
    dtype = torch.get_autocast_dtype("cuda") if is_cast else values.dtype
    return is_for_kernels(values.new_empty(0, head_width, dtype=dtype))


def end_to_end(values: Tensor, has: Tensor) -> Words:
    """Masked text without its padding, by arithmetic of fixed shape, without waiting for the GPU to count tokens.

    Raises:
        TypeError: a mask that is not bool.
    """
    refuse_numbers(has)
    flat = has.flatten()
    rows = torch.argsort((~flat).to(torch.uint8), stable=True)
    starts = fn.pad(has.sum(dim=1).cumsum(0), (1, 0)).to(torch.int32)
    return Words(values.flatten(0, 1)[rows], flat[rows][:, None], starts)


def behind_own(values: Tensor, has: Tensor, own: Tensor, *, is_packed: bool) -> Words:
    """Masked text [B, T, C] behind the token `own` [1, C] of all samples; end to end where `is_packed` and there are any tokens."""
    padded = fn.pad(has, (1, 0), value=True)
    batch, num = has.shape
    if not is_packed or not num:
        return Words(values, padded, own=own)
    column = torch.arange(-1, num, device=has.device)
    rows = torch.arange(batch, device=has.device)[:, None] * num + column.clamp(min=0)
    # rows of another kind than text in the same order: a layout of two columns, laid end to end
    table = torch.stack([rows, (column < 0).expand_as(rows)], dim=-1)
    laid = end_to_end(table, padded)
    place, is_own = laid.values.unbind(-1)
    return Words(values.flatten(0, 1), laid.has, laid.starts, own, place, is_own[:, None] > 0)


def keys_and_values(heads: Callable[[Tensor], Tensor], words: Words) -> Tensor:
    """[..., 2 * width] of every token, that of our own with them, as `attend_text` takes them."""
    each = heads(words.values)
    if words.own is None:
        return each
    own = heads(words.own)
    if words.place is None or words.is_own is None:
        return torch.cat([own.expand(len(each), 1, -1), each], dim=1)
    return torch.where(words.is_own, own, each.index_select(0, words.place))


def attend_text(
    query: Tensor, key_value: Tensor, words: Words, num_heads: int, varlen: Varlen | None
) -> Tensor:
    """`attend` to the text of one's own sample.

    Args:
        query: [B * R, Q, width]. The R draws of a sample lie beside each other: to its text they are R * Q queries of one.
        key_value: [..., 2 * width] keys and values of all tokens, beside each other (`keys_and_values`).
        varlen: what attends to text that lies end to end.

    Returns:
        [B * R, Q, width].
    """
    if words.starts is None:
        asked = query.reshape(len(words.values), -1, query.shape[-1])
        q, k, v = (split_heads(x, num_heads) for x in (asked, *key_value.chunk(2, dim=-1)))
        return join_heads(attend(q, k, v, words.has[:, None, None, :])).view_as(query)
    assert varlen is not None  # who has none lays nothing end to end
    num_samples = len(words.starts) - 1
    num_queries = query.shape[0] * query.shape[1] // num_samples
    starts = torch.arange(num_samples + 1, dtype=torch.int32, device=query.device) * num_queries
    # zeros where nothing is: a kernel's gradient there may be anything, and must reach no weight
    present = torch.where(words.has, key_value, 0.0)
    key, value = present.view(-1, 2, num_heads, query.shape[-1] // num_heads).unbind(1)
    out = varlen(
        query.reshape(-1, *key.shape[1:]),
        key,
        value,
        starts,
        words.starts,
        num_queries,
        len(words.has) // num_samples,
    )
    return out.reshape(query.shape)
