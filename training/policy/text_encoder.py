"""The instruction of an observation, for the conditioner that a policy was trained with: as the loader tells it, without a corpus."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from schemas.errors import ConfigError
from training.conditioning.cached import CachedConditioner
from training.conditioning.hashed_words import WordsConditioner, WordsReader
from training.conditioning.none import NoTextConditioner
from training.conditioning.protocol import Conditioner
from training.policy.observation import Observation
from training.policy.restored import recipe_of
from training.policy.vlm_text_encoder import VlmTextEncoder, model_of
from training.recipe import CachedText, OnlineText, WordsText
from training.run.checkpoint import Checkpoint

Tell = Callable[[Sequence[Observation]], dict[str, Tensor]]


def open_text_encoder(
    checkpoint: Checkpoint, *, vlm: Path | None = None, device: torch.device
) -> tuple[Tell, Conditioner]:
    """What tells the conditioner of observations, and the conditioner.

    Args:
        vlm: folder of the vision-language model that told the run its instructions, where one did.

    Raises:
        ConfigError: the run was told by another model than that of the folder, or by none, or there is no such model.
    """
    text = recipe_of(checkpoint).text
    if isinstance(text, CachedText | OnlineText):
        telling = VlmTextEncoder(*model_of(checkpoint, text, vlm), device)
        return telling, CachedConditioner(telling.width)
    if vlm is not None:
        problem = (
            f"no language model told {checkpoint.folder} its instructions (text.kind {text.kind})"
        )
        raise ConfigError(f"{problem}; leave it out", where="--vlm")
    if isinstance(text, WordsText):
        words = WordsReader(num_buckets=text.num_buckets, num_words=text.num_words)
        conditioner = WordsConditioner(text.num_buckets, text.num_words, text.width)
        return lambda seen: words.of([each.text for each in seen]), conditioner
    return lambda seen: {"nothing": torch.zeros(len(seen), 0)}, NoTextConditioner()
