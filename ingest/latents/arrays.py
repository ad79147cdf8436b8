"""Latents as NumPy arrays, without torch: NumPy has neither bfloat16 nor eight-bit floats."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.errors import ConfigError
from schemas.latent_header import Held, read_header, wanted_tensors
from schemas.latents import FRAME_INDEX, LATENTS, SCALE, LatentFacts

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Latents:
    """What an encoder says of a camera's pictures.

    tokens: [N, T, D] float32; T is `facts.num_prefix` CLS and register tokens, then the patches row by row.
    frame_index: [N] timesteps of the episode.
    """

    tokens: Float32
    frame_index: npt.NDArray[np.int64]
    facts: LatentFacts

    @property
    def patches(self) -> Float32:
        """[N, grid_height, grid_width, D] the tokens of the picture's patches."""
        facts = self.facts
        grid = (facts.grid_height, facts.grid_width, facts.width)
        return self.tokens[:, facts.num_prefix :].reshape(len(self.tokens), *grid)


def read_latents(path: Path) -> Latents:
    """A whole file of latents.

    Raises:
        ConfigError: it is none, or is damaged.
        OSError: it cannot be read.
    """
    header = read_header(path)
    for name, (dtype, shape) in wanted_tensors(header.facts).items():
        held = header.tensors.get(name)
        if held is None or (held.dtype, held.shape) != (dtype, shape):
            problem = f"tensor {name!r} is {held}, its metadata says {dtype} {list(shape)}"
            raise ConfigError(
                problem, remedy="run `eicorpus latents images` again", where=str(path)
            )
    arrays = {name: _array(path, header.tensors[name]) for name in wanted_tensors(header.facts)}
    tokens = _float32(arrays[LATENTS], header.facts.dtype)
    if SCALE in arrays:
        tokens = tokens * arrays[SCALE][..., None]
    return Latents(tokens=tokens, frame_index=arrays[FRAME_INDEX], facts=header.facts)


_STORED = {"BF16": "<u2", "F8_E4M3": "u1", "I8": "i1", "F32": "<f4", "I64": "<i8"}


def _array(path: Path, held: Held) -> npt.NDArray[Any]:
    dtype = np.dtype(_STORED[held.dtype])
    count = (held.end - held.start) // dtype.itemsize
    return np.fromfile(path, dtype=dtype, count=count, offset=held.start).reshape(held.shape)


def _float32(stored: npt.NDArray[Any], dtype: str) -> Float32:
    if dtype == "bf16":  # the upper half of a float32
        return (stored.astype(np.uint32) << 16).view(np.float32)
    if dtype == "fp8":
        return np.asarray(_E4M3FN[stored], dtype=np.float32)
    return stored.astype(np.float32)


def _e4m3fn() -> Float32:
    """[256] values of float8_e4m3fn: 1 sign, 4 exponent bits of bias 7, 3 of mantissa; no infinity, all ones are NaN (OCP 8-bit floating point, 5)."""
    bits = np.arange(256)
    exponent, mantissa = (bits >> 3) & 15, (bits & 7).astype(np.float32)
    size = np.where(
        exponent == 0,
        mantissa / 8 * 2.0**-6,
        (1 + mantissa / 8) * np.exp2(exponent.astype(np.float32) - 7),
    )
    size[(bits & 127) == 127] = np.nan
    return np.where(bits & 128, -size, size).astype(np.float32)


_E4M3FN = _e4m3fn()
