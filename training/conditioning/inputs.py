"""What readers make of the instructions of a batch: equal ones once."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from training.model.text import Int64, TextLayout, on_device


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TextInputs:
    """For `Conditioner.forward`. by_token: each [N, ...], rows of the tokens of all distinct texts. by_text: each [U, ...]."""

    layout: TextLayout
    by_token: dict[str, Tensor] = field(default_factory=dict)
    by_text: dict[str, Tensor] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """Of its tensors; of none the CPU."""
        some = next(iter((*self.by_token.values(), *self.by_text.values())), None)
        return torch.device("cpu") if some is None else some.device

    def of_samples(self, which: slice) -> TextInputs:
        """Some samples of it, with their texts alone."""
        layout, texts, rows = self.layout.of_samples(which)
        if len(texts) == len(self.layout.num_tokens):
            return TextInputs(layout=layout, by_token=self.by_token, by_text=self.by_text)
        at_text, at_row = on_device(texts, self.device), on_device(rows, self.device)
        return TextInputs(
            layout=layout,
            by_token={name: x.index_select(0, at_row) for name, x in self.by_token.items()},
            by_text={name: x.index_select(0, at_text) for name, x in self.by_text.items()},
        )


def distinct(keys: Sequence[Hashable]) -> tuple[list[int], Int64]:
    """The place of the first of each distinct key, and [B] the number of the key at each place."""
    numbers: dict[Hashable, int] = {}
    number_of = np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)
    return np.unique(number_of, return_index=True)[1].tolist(), number_of


def end_to_end(tokens: Sequence[Tensor], text_of: Int64) -> tuple[Tensor, TextLayout]:
    """[N, ...] of distinct texts [T, ...]."""
    lengths = np.array([len(each) for each in tokens], dtype=np.int64)
    return torch.cat(list(tokens)), TextLayout(num_tokens=lengths, text_of=text_of)
