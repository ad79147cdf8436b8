"""The instruction of an observation, for the conditioner that a policy was trained with: as the loader tells it, without a corpus."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from schemas.errors import ConfigError
from training.conditioning.none import NoTextConditioner
from training.conditioning.online import OnlineConditioner, OnlineReader
from training.conditioning.protocol import Conditioner
from training.conditioning.vlm_parts import folder_of
from training.conditioning.words import WordsConditioner, WordsReader
from training.policy.observation import Observation, Pixels
from training.recipe import CachedText, OnlineText, TextSettings, WordsText

Tell = Callable[[Sequence[Observation]], dict[str, Tensor]]


def open_telling(text: TextSettings) -> tuple[Tell, Conditioner]:
    """What tells the conditioner of observations, and the conditioner.

    Raises:
        ConfigError: the network was trained on features that only a corpus has, or there is no such model.
    """
    if isinstance(text, WordsText):
        words = WordsReader(num_buckets=text.num_buckets, num_words=text.num_words)
        conditioner = WordsConditioner(text.num_buckets, text.num_words, text.width)
        return lambda seen: words.of([each.text for each in seen]), conditioner
    if isinstance(text, CachedText):
        found = "trained on stored text features, which only segments of its corpus have"
        repair = "train with text.kind online or words to serve it"
        raise ConfigError(f"{found}; {repair}", where="recipe key text.kind")
    if isinstance(text, OnlineText):
        folder = folder_of(text.model)
        reader = OnlineReader(corpus=Path(), folder=folder, settings=text)
        return (
            lambda seen: reader.of([x.text for x in seen], [_shown(x, text) for x in seen]),
            OnlineConditioner(folder, text.layer),
        )
    return lambda seen: {"nothing": torch.zeros(len(seen), 0)}, NoTextConditioner()


def _shown(observation: Observation, text: OnlineText) -> Pixels | None:
    """The picture of now that the language model is shown; of latents alone there is none."""
    if not text.with_pictures:
        return None
    names = sorted(observation.pictures)
    camera = next((name for name in names if fnmatchcase(name, text.camera)), None)
    if camera is None:
        found = f"no picture of a camera like {text.camera}, which the language model is shown"
        raise ConfigError(found, where="observation")
    return np.asarray(observation.pictures[camera][-1])
