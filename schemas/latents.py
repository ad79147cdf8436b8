"""A file of latents: tokens of one camera of one episode and the metadata that identifies encoder, video and frames (design §5).

It lies in the corpus under a name of its own, or as a member of a pack of many (schemas/latent_pack.py). From version 2 on it has a checksum
of each picture, so that one that is read alone is checked alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.errors import ConfigError
from schemas.invalid import reason
from schemas.json_text import parse_json
from schemas.lerobot import CHUNK_SIZE

METADATA = "eicorpus"  # the one key of a file's metadata
Page = TypeVar("Page", bound=BaseModel)


def metadata_of(page: BaseModel) -> dict[str, str]:
    """As safetensors keeps it: text by text."""
    return {METADATA: json.dumps(page.model_dump(mode="json"), sort_keys=True)}


def page_of(
    metadata: Mapping[str, str] | None,
    kind: type[Page],
    *,
    version: tuple[str, int],
    what: str,
    repair: str,
    where: str,
) -> Page:
    """
    Args:
        version: the key of the page's version, and the highest that is read. what: the file is, in words. repair: the command that makes it.

    Raises:
        ConfigError: it says nothing that is understood, or is of a newer version.
    """
    key, highest = version
    try:
        raw: Any = parse_json((metadata or {})[METADATA])
        if (stored := int(raw[key])) > highest:
            message = f"{what} has version {stored}; this eicorpus reads up to version {highest}"
            raise ConfigError(message, remedy="install a newer eicorpus", where=where)
        return kind.model_validate(raw)
    except (KeyError, TypeError, ValueError) as error:
        message = f"no valid {what} of eicorpus ({reason(error, kind)})"
        raise ConfigError(message, remedy=f"run `{repair}` again", where=where) from error


VERSION = 2  # a reader refuses a higher one
WITH_CHECKSUMS = 2  # the first version that has them
FOLDER = "latents"  # in a dataset
TEXT_CAMERA = "text"  # stands in a path for the camera that features of text have not
LATENTS, FRAME_INDEX, SCALE, CODE = "latents", "frame_index", "scale", "code"
# [N, 4] CRC-32C, little-endian, of the bytes of each picture's latents and, of eight bits, then of its scales. The last tensor of a file,
# so that a file is written and hashed in one pass.
PICTURE_CRC = "picture_crc32c"
ACTIONS_MODEL = "lam"  # whose tokens are latent actions, not pictures
UNTRAINED = "untrained"  # ends the model name in the id of an encoder whose weights are only seeded: m_untrained7-...
Storage = Literal["bf16", "fp8", "int8"]
STORED_AS: Mapping[Storage, str] = {
    "bf16": "BF16",
    "fp8": "F8_E4M3",
    "int8": "I8",
}  # in safetensors


class Preprocessing(BaseModel):
    """From a picture to what the encoder sees: [3, size_px, size_px], (value / 255 - mean) / std.

    `fit`: "letterbox" keeps the aspect and fills with the mean, "stretch" does not, "crop" cuts the centre square.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    fit: Literal["letterbox", "stretch", "crop"] = "letterbox"
    size_px: int = Field(224, ge=16, le=4096)
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


_OF_ACTIONS = {"num_codes", "later_s", "code_rms"}


class LatentFacts(BaseModel):
    """What the numbers of a file are. Two files with the same `encoder_id` mean the same by the same numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    latents_version: int = Field(1, ge=1)
    encoder_id: str
    model: str  # registry name: dinov3_vits16
    weights_sha256: str
    preprocessing: Preprocessing
    dtype: Storage
    width: int = Field(ge=1)
    num_prefix: int = Field(ge=0)  # CLS and register tokens that were kept
    grid_height: int = Field(ge=1)
    grid_width: int = Field(ge=1)
    grid_stride: int = Field(ge=1)  # timesteps between pictures
    rate_hz: float = Field(gt=0)  # of the episode's timesteps
    uid: str
    camera: str
    length: int = Field(ge=1)  # timesteps of the episode
    video_sha256: str
    # Of latent actions alone: the file has a code of each token, -1 for none; how much later the other picture is; and the root mean square of the
    # codes' elements, by how often each code is used.
    num_codes: int | None = Field(None, ge=2)
    later_s: float | None = Field(None, gt=0, allow_inf_nan=False)
    code_rms: float | None = Field(None, gt=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _check_encoder_id(self) -> LatentFacts:
        if re.fullmatch(r"[a-z0-9_]+-[0-9a-f]{12}", self.encoder_id) is None:
            raise ValueError(
                f"encoder_id {self.encoder_id!r}; expected <model>-<12 hexadecimal digits>"
            )
        return self

    @model_validator(mode="after")
    def _check_actions(self) -> LatentFacts:
        if len({each is None for each in (self.num_codes, self.later_s, self.code_rms)}) > 1:
            raise ValueError("latent actions have num_codes, later_s and code_rms")
        return self

    @property
    def num_tokens(self) -> int:
        return self.num_prefix + self.grid_height * self.grid_width

    @property
    def num_frames(self) -> int:
        """Timesteps 0, stride, 2 stride, ... below `length`."""
        return -(-self.length // self.grid_stride)

    @property
    def has_checksums(self) -> bool:
        return self.latents_version >= WITH_CHECKSUMS

    @property
    def is_trained(self) -> bool:
        return re.search(rf"_{UNTRAINED}\d*-", self.encoder_id) is None

    def metadata(self) -> dict[str, str]:
        """As safetensors keeps it."""
        page = self.model_dump(mode="json", exclude=set() if self.num_codes else _OF_ACTIONS)
        return {METADATA: json.dumps(page, sort_keys=True)}


def is_of_actions(encoder_id: str) -> bool:
    """Whether an encoder id is that of a latent action model."""
    return encoder_id.partition("-")[0] == ACTIONS_MODEL


def facts_of(metadata: dict[str, str] | None, *, where: str) -> LatentFacts:
    """What a file says of itself.

    Raises:
        ConfigError: it says nothing that is understood, or is of a newer version.
    """
    return page_of(
        metadata,
        LatentFacts,
        version=("latents_version", VERSION),
        what="latents",
        repair="eicorpus latents images",
        where=where,
    )


def latent_file(encoder_id: str, camera: str, episode_index: int) -> str:
    """Path relative to the dataset. `camera` is the name in the catalog, without `observation.images.`."""
    chunk, name = episode_index // CHUNK_SIZE, f"episode_{episode_index:06d}.safetensors"
    return f"{FOLDER}/{encoder_id}/chunk-{chunk:03d}/{camera}/{name}"
