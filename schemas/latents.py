"""A file of latents: what an encoder says of the pictures of one camera of one episode (design 4.4).

`datasets/<source>/<set>/latents/<encoder-id>/chunk-000/<camera>/episode_000000.safetensors` holds

    latents      [N, T, D]  bfloat16, float8_e4m3fn or int8: T tokens of width D of each of N pictures
    frame_index  [N] int64  their timesteps: every `grid_stride`-th of the episode, from the first
    scale        [N, T] float32, where `dtype` is fp8 or int8: a token is its latents times its scale

and `LatentFacts` as the file's metadata. Tokens: `num_prefix` of CLS and registers, then patches row by row.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.lerobot import CHUNK_SIZE
from schemas.safetensors_metadata import metadata_of, page_of

VERSION = 1  # a reader refuses a higher one
FOLDER = "latents"  # in a dataset
LATENTS, FRAME_INDEX, SCALE = "latents", "frame_index", "scale"
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


class LatentFacts(BaseModel):
    """What the numbers of a file are. Two files with the same `encoder_id` mean the same by the same numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    latents_version: int = VERSION
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

    @model_validator(mode="after")
    def _id_says_so(self) -> LatentFacts:
        if re.fullmatch(r"[a-z0-9_]+-[0-9a-f]{12}", self.encoder_id) is None:
            raise ValueError(
                f"encoder_id {self.encoder_id!r}; expected <model>-<12 hexadecimal digits>"
            )
        return self

    @property
    def num_tokens(self) -> int:
        return self.num_prefix + self.grid_height * self.grid_width

    @property
    def num_frames(self) -> int:
        """Timesteps 0, stride, 2 stride, ... below `length`."""
        return -(-self.length // self.grid_stride)

    @property
    def is_trained(self) -> bool:
        return re.search(rf"_{UNTRAINED}\d*-", self.encoder_id) is None

    def metadata(self) -> dict[str, str]:
        """As safetensors keeps it."""
        return metadata_of(self)


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
