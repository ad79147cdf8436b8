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
from torch import nn

from schemas.manifest import ManifestRow
from training.conditioning.inputs import TextInputs, distinct, end_to_end
from training.conditioning.protocol import Conditioner
from training.model.text import Text


class NoTextReader:
    """Tells how many samples there are, and nothing else."""

    def read(self, rows: Sequence[ManifestRow], timesteps: npt.NDArray[np.int64]) -> TextInputs:
        return self.of(len(rows))

    def of(self, num_samples: int) -> TextInputs:
        """All of which have the same text without tokens."""
        nothing, layout = end_to_end([torch.zeros(0, 1)], np.zeros(num_samples, dtype=np.int64))
        return TextInputs(layout=layout, by_token={"nothing": nothing})


class NoTextConditioner(Conditioner):
    """No token of any sample."""

    width = 1

    def forward(self, inputs: TextInputs) -> Text:
        return Text(values=inputs.by_token["nothing"], layout=inputs.layout)


_WORD = re.compile(r"\w+")


def word_ids(text: str, num_buckets: int) -> list[int]:
    """The bucket of each word, from 1 (0 was that of padding); the same on every machine."""
    words = _WORD.findall(unicodedata.normalize("NFKC", text).lower())
    return [1 + _hash(word) % (num_buckets - 1) for word in words]


def _hash(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")


@dataclass(frozen=True, slots=True, kw_only=True)
class WordsReader:
    """word_ids [N] and place [N] of each text's first `num_words` words. Texts of equal ids are equal."""

    num_buckets: int
    num_words: int

    def read(self, rows: Sequence[ManifestRow], timesteps: npt.NDArray[np.int64]) -> TextInputs:
        return self.of([row.text for row in rows])

    def of(self, texts: Sequence[str]) -> TextInputs:
        """Of texts that are in no manifest."""
        ids = [_first_ids(text, self.num_buckets, self.num_words) for text in texts]
        first, text_of = distinct(ids)
        each = [torch.tensor(ids[b], dtype=torch.long) for b in first]
        joined, layout = end_to_end(each, text_of)
        place, _ = end_to_end([torch.arange(len(x)) for x in each], text_of)
        return TextInputs(layout=layout, by_token={"word_ids": joined, "place": place})


@lru_cache(maxsize=1 << 14)  # a corpus has few texts
def _first_ids(text: str, num_buckets: int, num_words: int) -> tuple[int, ...]:
    return tuple(word_ids(text, num_buckets)[:num_words])


class WordsConditioner(Conditioner):
    """A vector for each bucket and one for each place."""

    def __init__(self, num_buckets: int, num_words: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.words = nn.Embedding(num_buckets, width)
        self.places = nn.Embedding(num_words, width)

    def forward(self, inputs: TextInputs) -> Text:
        words, places = (
            self.words(inputs.by_token["word_ids"]),
            self.places(inputs.by_token["place"]),
        )
        return Text(values=words + places, layout=inputs.layout)
