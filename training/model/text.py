"""Text as every block attends to it: tokens of distinct texts end to end, and which of them each sample has.

Keys and values are computed once for each token of a distinct text. Each sample then takes those of its own text: end to end where a kernel for texts
of different lengths is at hand (`attention.py`), elsewhere side by side, with padding that a mask hides. Lengths are numbers of the host, so a
step reads nothing back to know how many rows there are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as fn

from training.model.attention import Varlen, attend, is_for_kernels, join_heads, split_heads

Int64 = npt.NDArray[np.int64]
_LENGTHS_APART = 64  # what a kernel is told of the longest text is a multiple of it: torch.compile meets few numbers


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TextLayout:
    """num_tokens: [U] of each distinct text, which lie end to end in this order. text_of: [B] the number of the text of each sample."""

    num_tokens: Int64
    text_of: Int64

    @property
    def num_rows(self) -> int:
        """N, the tokens of all distinct texts."""
        return int(self.num_tokens.sum())

    @property
    def longest(self) -> int:
        return int(self.num_tokens.max(initial=0))

    def starts(self) -> Int64:
        """[U] the first row of each text."""
        return np.cumsum(self.num_tokens) - self.num_tokens

    def rows_of_texts(self) -> tuple[Int64, npt.NDArray[np.bool_]]:
        """[U, T] the row of each token of each text, 0 where there is none, and whether there is one."""
        column = np.arange(self.longest)
        has = column < self.num_tokens[:, None]
        return np.where(has, self.starts()[:, None] + column, 0), has

    def of_samples(self, which: slice) -> tuple[TextLayout, Int64, Int64]:
        """The layout of some samples, the numbers of their texts here, and the rows of these texts here."""
        kept, text_of = np.unique(self.text_of[which], return_inverse=True)
        layout = TextLayout(num_tokens=self.num_tokens[kept], text_of=text_of.reshape(-1))
        rows, has = self.rows_of_texts()
        return layout, kept, rows[kept][has[kept]]


def equal_lengths(num_samples: int, length: int) -> TextLayout:
    """Of samples with as many tokens each, no text twice."""
    numbers = np.arange(num_samples)
    return TextLayout(num_tokens=np.full_like(numbers, length), text_of=numbers)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Text:
    """The instructions of B samples, as a conditioner encodes them. values: [N, C], the tokens of the distinct ones."""

    values: Tensor
    layout: TextLayout


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PaddedText:
    """The same sample by sample. values: [B, T, C], zeros where there is no token. has: [B, T] bool."""

    values: Tensor
    has: Tensor


def padded(text: Text) -> PaddedText:
    """Each sample's own copy of its text."""
    layout = text.layout
    rows, has = (x[layout.text_of] for x in layout.rows_of_texts())
    place = on_device(np.where(has, rows + 1, 0), text.values.device)
    values = fn.embedding(place, fn.pad(text.values, (0, 0, 1, 0)))
    return PaddedText(values=values, has=on_device(has, text.values.device))


def on_device(array: npt.NDArray[np.generic], device: torch.device) -> Tensor:
    """Without waiting for a GPU."""
    x = torch.tensor(array)
    return (x.pin_memory() if device.type == "cuda" else x).to(device, non_blocking=True)


class Words(NamedTuple):
    """Normalised text of B samples. A tuple, because FSDP2 looks for tensors in nothing else of ours.

    values: [N, C] tokens of distinct texts. own: [1, C], a token that stands before every text: its keys and values are made by itself, so a text that
    is not trained has no gradient. place: long, rows of [own; values], each sample's own token first. Side by side: place [B, L] and has [B, L] bool, where there is
    a token. End to end: place [M], starts [B + 1] int32, where each sample's begin, and `longest`, at least as many as any has.
    """

    values: Tensor
    own: Tensor
    place: Tensor
    has: Tensor | None = None
    starts: Tensor | None = None
    longest: int = 0


def is_for_varlen(values: Tensor, head_width: int) -> bool:
    """Whether queries to this text will be what the kernels take: as a linear layer makes them, under autocast or without."""
    is_cast = values.is_cuda and torch.is_autocast_enabled("cuda")
    dtype = torch.get_autocast_dtype("cuda") if is_cast else values.dtype
    return is_for_kernels(values.new_empty(0, head_width, dtype=dtype))


def words_of(values: Tensor, own: Tensor, layout: TextLayout, *, is_packed: bool) -> Words:
    """
    Args:
        values: [N, C]. own: [1, C]. is_packed: end to end.
    """
    device = values.device
    rows, has = layout.rows_of_texts()
    place = np.pad(np.where(has, rows + 1, 0), ((0, 0), (1, 0)))[layout.text_of]
    has = np.pad(has, ((0, 0), (1, 0)), constant_values=True)[layout.text_of]
    if not is_packed:
        return Words(values, own, on_device(place, device), has=on_device(has, device))
    starts = np.pad(np.cumsum(layout.num_tokens[layout.text_of] + 1), (1, 0)).astype(np.int32)
    return Words(
        values,
        own,
        on_device(place[has], device),
        starts=on_device(starts, device),
        longest=-(-place.shape[1] // _LENGTHS_APART) * _LENGTHS_APART,
    )


def keys_and_values(heads: Callable[[Tensor], Tensor], words: Words) -> Tensor:
    """[*place.shape, 2 * width] of every token of every sample, as `attend_text` takes them.

    A lookup, whose gradient adds up what samples with the same text say in an order of its own: an index_add of a GPU has another each time.
    """
    return fn.embedding(words.place, torch.cat([heads(words.own), heads(words.values)]))


def attend_text(
    query: Tensor, key_value: Tensor, words: Words, num_heads: int, varlen: Varlen | None
) -> Tensor:
    """`attend` to the text of one's own sample.

    Args:
        query: [B * R, Q, width]. The R draws of a sample lie beside each other: to its text they are R * Q queries of one.
        key_value: keys and values of all tokens, beside each other (`keys_and_values`).
        varlen: what attends to text that lies end to end.

    Returns:
        [B * R, Q, width].
    """
    if words.has is not None:
        asked = query.reshape(len(words.has), -1, query.shape[-1])
        q, k, v = (split_heads(x, num_heads) for x in (asked, *key_value.chunk(2, dim=-1)))
        return join_heads(attend(q, k, v, words.has[:, None, None, :])).view_as(query)
    assert varlen is not None  # who has none lays nothing end to end
    assert words.starts is not None
    num_samples = len(words.starts) - 1
    num_queries = query.shape[0] * query.shape[1] // num_samples
    starts = torch.arange(num_samples + 1, dtype=torch.int32, device=query.device) * num_queries
    key, value = key_value.view(-1, 2, num_heads, query.shape[-1] // num_heads).unbind(1)
    out = varlen(
        query.reshape(-1, *key.shape[1:]),
        key,
        value,
        starts,
        words.starts,
        num_queries,
        words.longest,
    )
    return out.reshape(query.shape)
