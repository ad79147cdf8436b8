"""A file of text features: what a frozen vision-language model makes of the instructions of one episode, with or without what a camera sees.

`datasets/<source>/<set>/latents/<encoder-id>/chunk-000/text/episode_000000.safetensors`, beside latents, holds M moments:

    features    [K, C] bfloat16  tokens of all moments, end to end
    offsets     [M + 1] int64    moment m has tokens offsets[m]:offsets[m + 1]
    text_index  [M] int64        the text that was encoded, an index into `TextFacts.texts`
    timestep    [M] int64        of the picture that it was shown; NO_PICTURE for none

and `TextFacts` as the file's metadata. Moments are sorted by text, then by timestep; every text has one without a picture. In the
catalog's table `latents` such a file has the camera "" and its `source_sha256` as `video_sha256`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.latents import TEXT_CAMERA, latent_file, metadata_of, page_of
from schemas.vlm import TEXT_SLOT

VERSION = 1  # a reader refuses a higher one
FEATURES, OFFSETS, TEXT_INDEX, TIMESTEP = "features", "offsets", "text_index", "timestep"
NO_PICTURE = -1
NO_CAMERA = ""  # of these files in the catalog, whatever they were shown
PREFIX = "text_"  # of the model in the id of every encoder of text
BYTES_OF_A_NUMBER = 2
Span = tuple[int, int]  # timesteps [start, end)
Int64 = npt.NDArray[np.int64]


class FeatureSettings(BaseModel):
    """What a model is asked, and what is taken of its answer. `layer`: of its hidden states, 0 the embedded tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    prompt: str = f"Instruction: {TEXT_SLOT}"
    layer: int = Field(ge=0)
    max_text_tokens: int = Field(256, ge=1)  # a longer instruction is cut
    picture_every_s: float | None = Field(None, gt=0)
    camera: str = "*"  # glob: the first camera of an episode that matches is shown
    max_picture_tokens: int = Field(64, ge=4)  # a larger picture is shrunk

    @model_validator(mode="after")
    def _has_a_place_for_the_text(self) -> FeatureSettings:
        if TEXT_SLOT not in self.prompt:
            raise ValueError(f"the prompt {self.prompt!r} must contain {TEXT_SLOT}")
        return self


class TextFacts(BaseModel):
    """What the numbers of a file are."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    text_features_version: int = VERSION
    encoder_id: str
    model_sha256: str  # of weights, tokenizer and image processor: schemas/vlm.py
    settings: FeatureSettings
    width: int = Field(ge=1)
    uid: str
    camera: str  # that was shown; "" for none
    length: int = Field(ge=1)  # timesteps of the episode
    rate_hz: float = Field(gt=0)
    texts: tuple[str, ...] = Field(min_length=1)
    source_sha256: str

    @model_validator(mode="after")
    def _check_encoder_id(self) -> TextFacts:
        model = self.encoder_id.partition("-")[0]
        if self.encoder_id != text_encoder_id(model, self.model_sha256, self.settings):
            raise ValueError(
                f"encoder_id {self.encoder_id!r} does not match these weights and settings"
            )
        return self

    def metadata(self) -> dict[str, str]:
        """As safetensors keeps it: text by text."""
        return metadata_of(self)


def text_encoder_id(model: str, model_sha256: str, settings: FeatureSettings) -> str:
    """`text_<family>-<12 hexadecimal digits>`, of everything that decides the numbers but the texts and pictures."""
    if re.fullmatch(rf"{PREFIX}[a-z0-9_]+", model) is None:
        raise ValueError(f"unknown model {model!r}; expected {PREFIX}<family>")
    content = json.dumps([model_sha256, settings.model_dump(mode="json")], sort_keys=True)
    return f"{model}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"


def text_feature_file(encoder_id: str, episode_index: int) -> str:
    """Path relative to the dataset."""
    return latent_file(encoder_id, TEXT_CAMERA, episode_index)


def is_of_text(encoder_id: str) -> bool:
    """Whether these are text features, and not latents of pictures."""
    return encoder_id.startswith(PREFIX)


def source_sha256(spans: Mapping[str, tuple[Span, ...]], length: int, video_sha256: str) -> str:
    """Of what features of an episode are made from. `video_sha256` "": of the texts alone, whenever they hold."""
    content = [sorted(spans)] if not video_sha256 else [sorted(spans.items()), length, video_sha256]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def picture_timesteps(spans: tuple[Span, ...], stride: int) -> list[int]:
    """Which images a text is encoded with: every `stride`-th of the episode while it holds, from the last at or before its start."""
    timesteps: set[int] = set()
    for start, end in spans:
        timesteps.update(range(start // stride * stride, end, stride))
    return sorted(timesteps)


def moment_of(text_index: Int64, timestep: Int64, text: int, now: int) -> int:
    """The moment to read: of this text the last at or before `now`. The future is never looked at.

    Args:
        text_index, timestep: [M] of a file, sorted as it says above.
    """
    first, last = np.searchsorted(text_index, [text, text + 1])
    return int(first + np.searchsorted(timestep[first:last], now, side="right") - 1)


def text_facts_of(metadata: Mapping[str, str] | None, *, where: str) -> TextFacts:
    """What a file says of itself.

    Raises:
        ConfigError: it says nothing that is understood, or is of a newer version.
    """
    return page_of(
        metadata,
        TextFacts,
        version=("text_features_version", VERSION),
        what="text features",
        repair="eicorpus latents text CORPUS --vlm FOLDER",
        where=where,
    )
