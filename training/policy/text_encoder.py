"""Encodes the instruction of an observation as the loader does, for the conditioner that the policy was trained with, a frozen VLM included."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from schemas.errors import ConfigError
from schemas.vlm import refuse_what_is_no_model
from training.conditioning.cached import CachedConditioner, side_by_side
from training.conditioning.hashed_words import NoTextConditioner, WordsConditioner, WordsReader
from training.conditioning.online import OnlineConditioner, OnlineReader
from training.conditioning.protocol import Conditioner
from training.conditioning.text_model import asked_as, text_id_of
from training.conditioning.vlm_parts import folder_of
from training.model.network import Text
from training.policy.observation import Observation, Pixels, checked_pictures
from training.policy.restored import recipe_of
from training.recipe import CachedText, OnlineText, WordsText
from training.run.checkpoint import Checkpoint

KEPT_TEXTS = (
    64  # of 100 tokens of 2560 numbers, 65 MB: a client says the same with each observation
)


class VlmTextEncoder:
    """A `Tell` for `CachedConditioner`. `folder`: of the model; `asked`: what, and whether with a picture.

    Raises:
        ConfigError: the folder holds no such model.
    """

    def __init__(self, folder: Path, asked: OnlineText, device: torch.device) -> None:
        self._asked, self._device = asked, device
        self._reader = OnlineReader(corpus=Path(), folder=folder, settings=asked)
        self._model = OnlineConditioner(folder, asked.layer)
        self.width = self._model.width
        self._of_text = lru_cache(maxsize=KEPT_TEXTS)(self._alone)
        self._alone("")  # what cannot work is refused now, and not to the first client

    def __call__(self, seen: Sequence[Observation]) -> dict[str, Tensor]:
        if not self._asked.with_pictures:
            return side_by_side([self._of_text(each.text) for each in seen])
        shown = [picture_shown(each, self._asked.camera) for each in seen]
        text = self._told([each.text for each in seen], shown)
        return side_by_side([x[has] for x, has in zip(text.values, text.has, strict=True)])

    def _alone(self, text: str) -> Tensor:
        """[T, C]: in a batch with others the last bit could differ."""
        return self._told([text], [None]).values[0]

    def _told(self, texts: Sequence[str], pictures: Sequence[Pixels | None]) -> Text:
        inputs = self._reader.of(texts, pictures)
        features: Text = self._model({name: x.to(self._device) for name, x in inputs.items()})
        return features


def picture_shown(observation: Observation, camera: str) -> Pixels:
    """[H, W, 3]: now, of the first camera by name that matches.

    Raises:
        ConfigError: there is none, as where latents were sent alone, or it is none.
    """
    name = next((each for each in sorted(observation.pictures) if fnmatchcase(each, camera)), None)
    if name is None:
        problem = f"no picture of a camera like {camera}, which the language model is shown"
        raise ConfigError(f"{problem}; send one, beside latents too", where="observation")
    now: Pixels = checked_pictures(observation.pictures[name], name)[-1]
    return now


def model_of(
    checkpoint: Checkpoint, text: CachedText | OnlineText, model_folder: Path | None
) -> tuple[Path, OnlineText]:
    """The folder of the model that told a run its instructions, and how it is asked.

    Args:
        model_folder: a folder that holds it; None: where the recipe says, which of stored features it does not.

    Raises:
        ConfigError: nobody says where it is or how it was asked, or the folder holds another.
    """
    was, settings = checkpoint.state.text_id, checkpoint.state.text_settings
    if model_folder is not None:
        folder = model_folder
        refuse_what_is_no_model(folder)
    elif isinstance(text, OnlineText):
        folder = folder_of(text.model)
    else:
        problem = f"trained on stored features {was or text.encoder} of instructions, and a new one has none"
        repair = "say --vlm FOLDER, that of the model which `eicorpus latents text` was given"
        raise ConfigError(problem, remedy=repair, where=str(checkpoint.folder))
    if settings is not None:
        if (now := text_id_of(folder, settings)) != was:
            problem = f"asked as this run was, its model makes features {now}; {checkpoint.folder} was trained on {was}"
            repair = "say --vlm FOLDER of the model, with its tokenizer and image processor, whose features those are"
            raise ConfigError(problem, remedy=repair, where=str(folder))
        return folder, asked_as(settings, folder)
    if isinstance(text, OnlineText):
        return folder, text
    problem = f"trained on stored features {text.encoder}, and does not say how they were made: an older eicorpus wrote it"
    repair = "go on with `eicorpus train` for a step, whose checkpoint does"
    raise ConfigError(problem, remedy=repair, where=str(checkpoint.folder))


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
