"""What LingBot-VA reads instead of pictures and text: latents of Wan 2.2's video VAE and features of UMT5-XXL.

Facts: Robbyant/lingbot-va `wan_va/wan_va_server.py` and `dataset/lerobot_latent_dataset.py` at 7c6ffa9, by reading. The networks are of `diffusers` and
`transformers`; their weights are the user's, in one folder with `vae/`, `text_encoder/` and `tokenizer/`, as LingBot-VA's checkpoints and
Wan2.2-TI2V-5B-Diffusers have them. Seeded weights have the same shapes and mean nothing.
"""

from __future__ import annotations

import hashlib
import html
import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ingest.models.encoder import Device, device_of
from ingest.models.encoder_weights import draw_weights, library, weights_sha256
from schemas.errors import ConfigError

CHANNELS = 48  # of a latent
SPATIAL, TEMPORAL = 16, 4  # pixels and pictures of one latent; the first picture has one of its own
TEXT_TOKENS, TEXT_WIDTH = 512, 4096
HUB_ID = "Wan-AI/Wan2.2-TI2V-5B-Diffusers"
LICENCE = "Apache-2.0"
VAE_STEM = "diffusion_pytorch_model"  # what diffusers calls a file of weights
_LOAD_ERRORS = (OSError, ValueError, ImportError, KeyError, RuntimeError, TypeError, AttributeError)
# Seeded networks: as small as their shapes allow.
_SEEDED_VAE = {
    "base_dim": 8,
    "decoder_base_dim": 8,
    "z_dim": CHANNELS,
    "dim_mult": [1, 1, 1, 1],
    "num_res_blocks": 1,
    "temperal_downsample": [False, True, True],
    "is_residual": True,
    "in_channels": 12,
    "out_channels": 12,
    "patch_size": 2,
    "scale_factor_spatial": SPATIAL,
    "scale_factor_temporal": TEMPORAL,
    "latents_mean": [0.0] * CHANNELS,
    "latents_std": [1.0] * CHANNELS,
}
_SEEDED_TEXT = {
    "vocab_size": 384,  # bytes
    "d_model": TEXT_WIDTH,
    "d_kv": 8,
    "d_ff": 8,
    "num_layers": 1,
    "num_heads": 1,
}
_FIRST_BYTE, _END = 3, 1  # tokens of the seeded network


@dataclass(frozen=True, slots=True, kw_only=True)
class WanWeights:
    """One of: a folder with `vae/`, `text_encoder/` and `tokenizer/`, or a seed. Travels to workers."""

    folder: str = ""
    untrained_seed: int | None = None
    device: Device = "auto"

    def identity(self) -> str:
        """What decides the numbers: a digest of the weights, or the seed.

        Raises:
            ConfigError: the folder lacks weights, or has pickled ones.
        """
        if self.untrained_seed is not None:
            return f"untrained{self.untrained_seed}"
        return _folder_sha256(self.folder)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VideoLatents:
    """latent: [F * height * width, CHANNELS] bfloat16 on the CPU, row by row of each F."""

    latent: Any
    num_frames: int
    height: int
    width: int


class WanEncoders:
    """Both networks on one device."""

    def __init__(self, vae: Any, text_encoder: Any, tokenizer: Any, device: str) -> None:
        """`tokenizer` None: bytes."""
        import torch

        self._device = device
        self._vae = vae.to(device).eval()
        self._text_encoder = text_encoder.to(device).eval()
        self._dtype = next(self._vae.parameters()).dtype
        self._tokenizer = tokenizer
        self._mean, self._std = (
            torch.tensor(values, device=device).view(1, -1, 1, 1, 1)
            for values in (vae.config.latents_mean, vae.config.latents_std)
        )
        self.text = lru_cache(maxsize=64)(self._text)

    def video(self, pictures: npt.NDArray[np.uint8], height: int, width: int) -> VideoLatents:
        """The mean of the posterior, normalised by the constants of the VAE.

        Args:
            pictures: [4 k + 1, H, W, 3] RGB; they are resized to height x width, bilinear without antialiasing, as LingBot-VA's server does.
        """
        import torch
        from torch.nn.functional import interpolate

        with torch.inference_mode():
            frames = [
                interpolate(
                    torch.tensor(picture, dtype=torch.float32).permute(2, 0, 1)[None],
                    size=(height, width),
                    mode="bilinear",
                    align_corners=False,
                )
                for picture in pictures
            ]
            clip = torch.cat(frames).permute(1, 0, 2, 3)[None] / 255.0 * 2.0 - 1.0
            posterior = self._vae.encode(clip.to(self._device, self._dtype)).latent_dist
            mean = (posterior.mode().float() - self._mean) / self._std
            _, channels, count, rows, columns = mean.shape
            flat = mean[0].permute(1, 2, 3, 0).reshape(-1, channels).to("cpu", torch.bfloat16)
        return VideoLatents(latent=flat, num_frames=count, height=rows, width=columns)

    def _text(self, text: str) -> Any:
        """[TEXT_TOKENS, TEXT_WIDTH] bfloat16 on the CPU, zeros after the last token."""
        import torch

        ids, mask = self._tokens(text)
        with torch.inference_mode():
            out = self._text_encoder(ids.to(self._device), mask.to(self._device)).last_hidden_state
            kept = out[0].float().cpu() * mask[0, :, None]
        return kept.to(torch.bfloat16)

    def _tokens(self, text: str) -> tuple[Any, Any]:
        """[1, TEXT_TOKENS] ids and mask."""
        import torch

        clean = " ".join(html.unescape(html.unescape(text)).split())
        if self._tokenizer is not None:
            tokens = self._tokenizer(
                [clean],
                padding="max_length",
                max_length=TEXT_TOKENS,
                truncation=True,
                return_attention_mask=True,
                return_tensors="pt",
            )
            return tokens.input_ids, tokens.attention_mask
        numbers = [_FIRST_BYTE + byte for byte in clean.encode()[: TEXT_TOKENS - 1]] + [_END]
        ids = torch.zeros(1, TEXT_TOKENS, dtype=torch.int64)
        mask = torch.zeros(1, TEXT_TOKENS, dtype=torch.int64)
        ids[0, : len(numbers)] = torch.tensor(numbers)
        mask[0, : len(numbers)] = 1
        return ids, mask


@cache
def wan_encoders(weights: WanWeights) -> WanEncoders:
    """Both networks, loaded once in a process.

    Raises:
        ConfigError: the extra, the weights or the device are not there; the message says what to do.
    """
    diffusers, transformers = _diffusers(), library()
    device = device_of(weights.device)
    if weights.untrained_seed is not None:
        import torch

        with torch.random.fork_rng(devices=[]):
            vae = diffusers.AutoencoderKLWan(**_SEEDED_VAE)
            text_encoder = transformers.UMT5EncoderModel(transformers.UMT5Config(**_SEEDED_TEXT))
        for network in (vae, text_encoder):
            draw_weights(network, weights.untrained_seed)
        return WanEncoders(vae, text_encoder, None, device)
    folder = Path(weights.folder)
    _folder_sha256(weights.folder)  # safetensors alone are there
    import torch

    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    how = {"local_files_only": True, "use_safetensors": True}
    try:
        vae = diffusers.AutoencoderKLWan.from_pretrained(
            str(folder / "vae"), torch_dtype=dtype, **how
        )
        text_encoder = transformers.UMT5EncoderModel.from_pretrained(
            str(folder / "text_encoder"), dtype=dtype, trust_remote_code=False, **how
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            str(folder / "tokenizer"), local_files_only=True, trust_remote_code=False
        )
    except _LOAD_ERRORS as error:
        raise ConfigError(
            f"cannot be loaded: {error}", remedy="download the model again", where=str(folder)
        ) from error
    _check(vae, text_encoder, folder)
    return WanEncoders(vae, text_encoder, tokenizer, device)


def file_bytes(content: Mapping[str, Any] | Any) -> bytes:
    """Tensors, numbers and text as `torch.load` reads them; the same content gives the same bytes."""
    import torch

    out = io.BytesIO()  # a file's name would be in the bytes
    torch.save(content, out)
    return out.getvalue()


def _check(vae: Any, text_encoder: Any, folder: Path) -> None:
    """
    Raises:
        ConfigError: networks of other shapes than LingBot-VA reads.
    """
    channels, width = int(vae.config.z_dim), int(text_encoder.config.d_model)
    if (channels, width) != (CHANNELS, TEXT_WIDTH):
        problem = f"latents of {channels} channels and text of {width} numbers"
        expected = f"expected {CHANNELS} and {TEXT_WIDTH}, as of {HUB_ID}"
        raise ConfigError(f"{problem}; {expected}", where=str(folder))


@cache
def _folder_sha256(folder: str) -> str:
    """Of the weights of both networks."""
    root = Path(folder)
    if not (root / "tokenizer").is_dir():
        remedy = f"download {HUB_ID} ({LICENCE}) and pass its folder"
        raise ConfigError("no folder tokenizer", remedy=remedy, where=folder)
    parts = (weights_sha256(root / "vae", VAE_STEM), weights_sha256(root / "text_encoder"))
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def _diffusers() -> Any:
    """
    Raises:
        ConfigError: the extra is not installed.
    """
    try:
        return import_module("diffusers")
    except ModuleNotFoundError as error:
        problem = f"{error.name} is not installed"
        raise ConfigError(problem, remedy="run pip install 'eicorpus[lingbot]'") from error
