"""A picture encoder: uint8 pictures in, tokens out. One wrapper for every entry of `ingest/models/encoders.py`, without torchvision.

Weights and arithmetic are bfloat16 (DINOv3 on this project's CPU: 39 pictures/s against 13 in float32) unless an entry says float32,
positions and normalisation of pixels float32.
Batches have few fixed sizes, the last one filled up with black pictures, so that a compiled network or a CUDA graph sees the same
shapes again. How a file is cut into batches depends on the file alone: the same pictures give the same bytes, whatever else is encoded.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ingest.models.encoder_weights import WeightSource, library, load_network
from ingest.models.encoders import EncoderSpec, Fit, encoder_spec
from schemas.errors import ConfigError
from schemas.latents import UNTRAINED, Preprocessing, Storage

Pictures = npt.NDArray[np.uint8]  # [n, H, W, 3] RGB
PREPROCESSING_VERSION = 1  # raise it whenever `ingest/latents/frame_grid.py` or `ingest/video/timestep_pictures.py` gives other pixels
NUM_SIZES = 4  # of batches: the whole, a half, a quarter, an eighth
Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderChoice:
    """Everything that says what is encoded how; small enough to travel. `batch` 0: what suits the device."""

    model: str
    source: WeightSource
    fit: Fit = "letterbox"
    storage: Storage = "bf16"
    grid_stride: int = 3
    keeps_prefix: bool = False
    device: Device = "auto"
    batch: int = 0
    is_compiled: bool = False
    gpu_share: float = 1.0  # of the memory of its GPU

    @property
    def spec(self) -> EncoderSpec:
        return encoder_spec(self.model)

    @property
    def preprocessing(self) -> Preprocessing:
        return self.spec.preprocessing(self.fit)

    @property
    def num_prefix(self) -> int:
        """Prefix tokens that are kept."""
        return self.spec.num_prefix if self.keeps_prefix else 0

    @property
    def num_tokens(self) -> int:
        return self.num_prefix + self.spec.grid**2


def encoder_id(choice: EncoderChoice, weights_sha256: str) -> str:
    """`<model>-<12 hex digits>` of all that decides what the numbers mean; `<model>_untrained<seed>-...` for seeded weights."""
    identity = {
        "model": choice.model,
        "weights_sha256": weights_sha256,
        "preprocessing": choice.preprocessing.model_dump(mode="json"),
        "preprocessing_version": PREPROCESSING_VERSION,
        "num_prefix": choice.num_prefix,
        "grid_stride": choice.grid_stride,
        "storage": choice.storage,
    }
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
    seed = choice.source.untrained_seed
    return f"{choice.model}{'' if seed is None else f'_{UNTRAINED}{seed}'}-{digest}"


class ImageEncoder:
    """One network on one device."""

    def __init__(
        self, choice: EncoderChoice, network: Any, weights_sha256: str, *, is_exact: bool = False
    ) -> None:
        """`is_exact`: float32 throughout, to compare with."""
        import torch

        self.choice, self.weights_sha256 = choice, weights_sha256
        self.id = encoder_id(choice, weights_sha256)
        self.device = device_of(choice.device)
        self.batch = choice.batch or (128 if self.device == "cuda" else 16)
        self._sizes = sorted({max(1, self.batch >> k) for k in range(NUM_SIZES)})
        has_float32 = is_exact or choice.spec.is_float32
        self._dtype = torch.float32 if has_float32 else torch.bfloat16
        for parameter in network.parameters():
            # not buffers: the frequencies of rotary positions lose their meaning in bfloat16
            parameter.data = parameter.data.to(self._dtype)
            parameter.requires_grad = False
        network = network.to(device=self.device, memory_format=torch.channels_last).eval()
        self._has_graphs = choice.is_compiled and self.device == "cuda"
        if choice.is_compiled:
            mode = "reduce-overhead" if self._has_graphs else "default"
            network = torch.compile(network, mode=mode, dynamic=False)
        self._network = network
        seen = choice.preprocessing
        mean, std = torch.tensor(seen.mean), torch.tensor(seen.std)
        self._gain = (1.0 / (255.0 * std)).view(1, 3, 1, 1).to(self.device)
        self._offset = (-mean / std).view(1, 3, 1, 1).to(self.device)

    @staticmethod
    def open(choice: EncoderChoice, *, is_exact: bool = False) -> ImageEncoder:
        """Load the weights and put the network on its device.

        Raises:
            ConfigError: an extra, the weights or the device are not there; the message says what to do.
        """
        library()
        device = device_of(choice.device)
        network, sha256 = load_network(choice.spec, choice.source)
        if device == "cuda" and choice.gpu_share < 1.0:
            import torch

            # a share of a GPU is otherwise only a number that Ray counts with
            torch.cuda.set_per_process_memory_fraction(choice.gpu_share)
        return ImageEncoder(choice, network, sha256, is_exact=is_exact)

    def encode(self, pictures: Pictures, *, has_whole_batches: bool = False) -> Any:
        """Tokens [n, T, D] of pictures [n, S, S, 3] as `ingest/latents/frame_grid.py` makes them, on the device.

        Args:
            has_whole_batches: the last batch is filled up, so that the tokens of a picture do not depend on how many there are. Without, it
                is of the smallest size that holds it: faster, for a policy that sees one picture.

        bfloat16 (float32 where exact, or where the entry says so); on a GPU they may still be in the making when this returns.

        Raises:
            ConfigError: the device's memory does not hold a batch.
        """
        import torch

        side = self.choice.spec.size_px
        if pictures.shape[1:] != (side, side, 3) or pictures.dtype != np.uint8:
            problem = f"pictures {pictures.shape} of {pictures.dtype}"
            raise ValueError(f"{problem}; expected [n, {side}, {side}, 3] of uint8")
        parts = [
            self._encode_batch(pictures[at : at + self.batch], has_whole_batches)
            for at in range(0, len(pictures), self.batch)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _encode_batch(self, pictures: Pictures, has_whole_batches: bool) -> Any:  # noqa: FBT001
        import torch

        smallest = next(each for each in self._sizes if each >= len(pictures))
        size = self.batch if has_whole_batches else smallest
        batch = torch.from_numpy(
            np.require(pictures, requirements=["C", "W"])
        )  # Ray's are read-only
        try:
            with torch.inference_mode():
                batch = _sent(batch, self.device)
                if size > len(pictures):
                    filled = batch.new_zeros(size, *batch.shape[1:])
                    filled[: len(pictures)] = batch
                    batch = filled
                # [n, H, W, 3] seen as [n, 3, H, W] is channels-last already
                x = batch.permute(0, 3, 1, 2).float().mul_(self._gain).add_(self._offset)
                if self._has_graphs:
                    torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
                out = self._network(pixel_values=x.to(self._dtype)).last_hidden_state
                first = self.choice.spec.num_prefix - self.choice.num_prefix
                # a graph writes where it wrote before, so what it gave is copied
                kept = out[: len(pictures), first:]
                return kept.clone() if self._has_graphs else kept
        except torch.OutOfMemoryError as error:
            problem = f"the device's memory is too small for {size} images per batch"
            raise ConfigError(problem, remedy=f"use a --batch smaller than {self.batch}") from error


def _sent(pictures: Any, device: str) -> Any:
    """On the device; a GPU copies from pinned memory while it computes."""
    if device == "cpu":
        return pictures
    return pictures.pin_memory().to(device, non_blocking=True)


def num_gpus() -> int:
    """That torch sees here."""
    library()
    import torch

    return torch.cuda.device_count()


def device_of(asked: Device) -> Literal["cpu", "cuda"]:
    """The device that is meant.

    Raises:
        ConfigError: a GPU was asked for and torch sees none.
    """
    library()
    import torch

    has_gpu = torch.cuda.is_available()
    if asked == "cuda" and not has_gpu:
        raise ConfigError(
            "torch sees no GPU here", remedy="use --device cpu", where="--device cuda"
        )
    return "cuda" if has_gpu and asked != "cpu" else "cpu"
