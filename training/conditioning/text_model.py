"""Which frozen model encoded the instructions of a network, and with which settings: weights trained on one encoder are incompatible with another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from schemas.errors import ConfigError
from schemas.text_features import PREFIX, FeatureSettings, text_encoder_id
from schemas.vlm import model_sha256, model_type
from training.recipe import OnlineText


def text_id_of(folder: Path, settings: FeatureSettings) -> str:
    """The id that features of this model, asked so, have where they are stored. Reads all of its weights.

    Raises:
        ConfigError: it is no model.
    """
    try:
        return text_encoder_id(f"{PREFIX}{model_type(folder)}", model_sha256(folder), settings)
    except ValueError as error:  # of a name that no id can have
        raise ConfigError(str(error), where=str(folder / "config.json")) from error


def online_text_of(settings: FeatureSettings, folder: Path) -> OnlineText:
    """What makes in the step the features that were stored so. `picture_every_s` has no place there: the picture is that of now."""
    return OnlineText(
        model=str(folder),
        layer=settings.layer,
        prompt=settings.prompt,
        max_tokens=settings.max_text_tokens,
        with_pictures=settings.picture_every_s is not None,
        camera=settings.camera,
        max_picture_tokens=settings.max_picture_tokens,
    )


def settings_of(text: OnlineText, num_layers: int, rate_hz: float) -> FeatureSettings:
    """What a recipe asks in the step, as `eicorpus latents text` would say it: where the numbers are the same, so is the id.

    Args:
        num_layers: of the model, by which -1 is named. rate_hz: of timesteps, each of which has its own picture in the step.
    """
    shown: dict[str, Any] = {}
    if text.with_pictures:
        shown = {
            "picture_every_s": 1 / rate_hz,
            "camera": text.camera,
            "max_picture_tokens": text.max_picture_tokens,
        }
    return FeatureSettings.model_validate(
        {
            "prompt": text.prompt,
            "layer": text.layer % (num_layers + 1),
            "max_text_tokens": text.max_tokens,
            **shown,
        }
    )
