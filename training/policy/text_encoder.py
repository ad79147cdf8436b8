"""Encodes the instruction of an observation as the loader does, for the conditioner that the policy was trained with, a frozen VLM included."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache, partial
from pathlib import Path

import torch
from torch import Tensor

from schemas.errors import ConfigError
from schemas.stored_size import SHORT_SIDE_PX
from schemas.vlm import refuse_what_is_no_model
from training.conditioning.cached import CachedConditioner, features_of
from training.conditioning.hashed_words import (
    NoTextConditioner,
    NoTextReader,
    WordsConditioner,
    WordsReader,
)
from training.conditioning.inputs import TextInputs
from training.conditioning.online import OnlineConditioner, OnlineReader
from training.conditioning.protocol import Conditioner
from training.conditioning.text_model import online_text_of, text_id_of
from training.conditioning.vlm_parts import folder_of
from training.data.prefetch import tensors_mapped
from training.model.text import Text
from training.policy.observation import Observation, Pixels, stored_images
from training.recipe import CachedText, OnlineText, WordsText
from training.run.checkpoint import Checkpoint, recipe_of

KEPT_TEXTS = (
    64  # of 100 tokens of 2560 numbers, 65 MB: a client says the same with each observation
)


class VlmTextEncoder:
    """A `Tell` for `CachedConditioner`. `folder`: of the model; `asked`: what, and whether with a picture; `short_side_px`: of stored ones.

    Raises:
        ConfigError: the folder holds no such model.
    """

    def __init__(
        self,
        folder: Path,
        asked: OnlineText,
        device: torch.device,
        short_side_px: int = SHORT_SIDE_PX,
    ) -> None:
        self._asked, self._device, self._short_side_px = asked, device, short_side_px
        self._reader = OnlineReader(corpus=Path(), folder=folder, settings=asked)
        self._model = OnlineConditioner(folder, asked.layer)
        self.width = self._model.width
        self._of_text = lru_cache(maxsize=KEPT_TEXTS)(self._alone)
        self._alone("")  # what cannot work is refused now, and not to the first client

    def __call__(self, seen: Sequence[Observation]) -> TextInputs:
        texts = [each.text for each in seen]
        if not self._asked.with_pictures:
            return features_of([self._of_text(text) for text in texts], texts)
        shown = [image_for_text(each, self._asked.camera, self._short_side_px) for each in seen]
        text = self._encoded(texts, shown)
        each = torch.split(text.values, text.layout.num_tokens.tolist())
        return features_of([each[number] for number in text.layout.text_of], texts)

    def _alone(self, text: str) -> Tensor:
        """[T, C]: in a batch with others the last bit could differ."""
        return self._encoded([text], [None]).values

    def _encoded(self, texts: Sequence[str], pictures: Sequence[Pixels | None]) -> Text:
        inputs = self._reader.of(texts, pictures)
        features: Text = self._model(tensors_mapped(inputs, lambda x: x.to(self._device)))
        return features


def image_for_text(observation: Observation, camera: str, short_side_px: int) -> Pixels:
    """[H, W, 3]: now, of the first camera by name that matches, as the video of an episode has it: features of training are of that.

    Raises:
        ConfigError: there is none, as where latents were sent alone, or it is none.
    """
    name = next((each for each in sorted(observation.pictures) if fnmatchcase(each, camera)), None)
    if name is None:
        problem = f"no image of a camera matching {camera}, which the language model needs"
        raise ConfigError(
            problem, remedy="send one in addition to the latents", where="observation"
        )
    now: Pixels = stored_images(observation, name, short_side_px, last=1)[0]
    return now


def model_of(
    checkpoint: Checkpoint, text: CachedText | OnlineText, model_folder: Path | None
) -> tuple[Path, OnlineText]:
    """The folder of the model that encodes the instructions of a run, and its settings.

    Args:
        model_folder: a folder that holds it; None: where the recipe says, which of stored features it does not.

    Raises:
        ConfigError: its folder or settings are unknown, or the folder contains another model.
    """
    was, settings = checkpoint.state.text_id, checkpoint.state.text_settings
    if model_folder is not None:
        folder = model_folder
        refuse_what_is_no_model(folder)
    elif isinstance(text, OnlineText):
        folder = folder_of(text.model)
    else:
        problem = f"trained on stored text features {was or text.encoder}, which do not exist for new instructions"
        repair = "add --vlm FOLDER, the model that `eicorpus latents text` used"
        raise ConfigError(problem, remedy=repair, where=str(checkpoint.folder))
    if settings is not None:
        if (now := text_id_of(folder, settings)) != was:
            problem = (
                f"this model makes text features {now}; {checkpoint.folder} was trained on {was}"
            )
            repair = "pass --vlm FOLDER of the model that made those features, with its tokenizer and image processor"
            raise ConfigError(problem, remedy=repair, where=str(folder))
        return folder, online_text_of(settings, folder)
    if isinstance(text, OnlineText):
        return folder, text
    problem = f"trained on stored text features {text.encoder}; an older eicorpus wrote the checkpoint without the settings that made them"
    repair = "resume with `eicorpus train` for one step; the new checkpoint stores them"
    raise ConfigError(problem, remedy=repair, where=str(checkpoint.folder))


Tell = Callable[[Sequence[Observation]], TextInputs]


def _inputs_of(reader: OnlineReader, short_side_px: int, seen: Sequence[Observation]) -> TextInputs:
    """For a model that is a part of the checkpoint, in which some of its layers are."""
    asked = reader.settings
    shown = [
        image_for_text(each, asked.camera, short_side_px) if asked.with_pictures else None
        for each in seen
    ]
    return reader.of([each.text for each in seen], shown)


def open_text_encoder(
    checkpoint: Checkpoint, *, vlm: Path | None = None, device: torch.device
) -> tuple[Tell, Conditioner]:
    """What tells the conditioner of observations, and the conditioner.

    Args:
        vlm: folder of the vision-language model that encoded the instructions of the run, if any.

    Raises:
        ConfigError: the run used another model than that of the folder, or none, or there is no such model.
    """
    text = recipe_of(checkpoint).text
    if isinstance(text, OnlineText) and text.train_last:
        folder, asked = model_of(checkpoint, text, vlm)
        tuned = OnlineConditioner(folder, asked.layer, text.train_last)
        reader = OnlineReader(corpus=Path(), folder=folder, settings=asked)
        return partial(_inputs_of, reader, checkpoint.short_side_px), tuned
    if isinstance(text, CachedText | OnlineText):
        telling = VlmTextEncoder(*model_of(checkpoint, text, vlm), device, checkpoint.short_side_px)
        return telling, CachedConditioner(telling.width)
    if vlm is not None:
        problem = (
            f"{checkpoint.folder} was not trained with a language model (text.kind {text.kind})"
        )
        raise ConfigError(problem, remedy="remove it", where="--vlm")
    if isinstance(text, WordsText):
        words = WordsReader(num_buckets=text.num_buckets, num_words=text.num_words)
        conditioner = WordsConditioner(text.num_buckets, text.num_words, text.width)
        return lambda seen: words.of([each.text for each in seen]), conditioner
    return lambda seen: NoTextReader().of(len(seen)), NoTextConditioner()
