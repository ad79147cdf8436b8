"""Conditioning without a language model: no text, or a table of hashed words that is trained with the network."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from schemas.manifest import ManifestRow
from training.conditioning.protocol import Conditioner
from training.model.network import Text


class NoTextReader:
    """Tells how many samples there are, and nothing else."""

    def read(
        self, rows: Sequence[ManifestRow], timesteps: npt.NDArray[np.int64]
    ) -> dict[str, Tensor]:
        return {"nothing": torch.zeros(len(rows), 0)}


class NoTextConditioner(Conditioner):
    """[B, 0, 1]."""

    width = 1

    def forward(self, inputs: dict[str, Tensor]) -> Text:
        values = inputs["nothing"].unsqueeze(-1)
        return Text(values=values, has=torch.zeros_like(inputs["nothing"], dtype=torch.bool))

    def num_tokens(self, inputs: dict[str, Tensor]) -> Tensor:
        return torch.zeros((), dtype=torch.long, device=inputs["nothing"].device)


PADDING = 0  # the bucket of no word
_WORD = re.compile(r"\w+")


def word_ids(text: str, num_buckets: int) -> list[int]:
    """The bucket of each word, from 1; the same on every machine."""
    words = _WORD.findall(unicodedata.normalize("NFKC", text).lower())
    return [1 + _hash(word) % (num_buckets - 1) for word in words]


def _hash(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")


@dataclass(frozen=True, slots=True, kw_only=True)
class WordsReader:
    """Ids [B, num_words], the first words of each text, then padding."""

    num_buckets: int
    num_words: int

    def read(
        self, rows: Sequence[ManifestRow], timesteps: npt.NDArray[np.int64]
    ) -> dict[str, Tensor]:
        return self.of([row.text for row in rows])

    def of(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Of texts that are in no manifest."""
        rows = [_padded_ids(text, self.num_buckets, self.num_words) for text in texts]
        flat = np.array(rows, dtype=np.int64).reshape(len(texts), self.num_words)
        return {"word_ids": torch.from_numpy(flat)}


@lru_cache(maxsize=1 << 14)  # a corpus has few texts
def _padded_ids(text: str, num_buckets: int, num_words: int) -> tuple[int, ...]:
    ids = word_ids(text, num_buckets)[:num_words]
    return (*ids, *[PADDING] * (num_words - len(ids)))


class WordsConditioner(Conditioner):
    """A vector for each bucket and one for each place."""

    def __init__(self, num_buckets: int, num_words: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.words = nn.Embedding(num_buckets, width)
        self.places = nn.Embedding(num_words, width)

    def forward(self, inputs: dict[str, Tensor]) -> Text:
        ids = inputs["word_ids"]
        return Text(values=self.words(ids) + self.places.weight, has=ids != PADDING)

    def num_tokens(self, inputs: dict[str, Tensor]) -> Tensor:
        return (inputs["word_ids"] != PADDING).sum()
