"""Reads a few pictures' latents out of files of many: memory-mapped, only the bytes that are asked for, a bounded number of files open.

Each file is checked when it is opened: it lies inside the corpus, is whole (safetensors compares its header with its size), says that it is the row's
episode, camera and encoder, and has the shapes of all others. `with_digest` also reads it whole once and compares its sha256: `eicorpus verify`
does that for a corpus, so a run does it only when asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from schemas.errors import ConfigError
from schemas.latents import (
    FRAME_INDEX,
    LATENTS,
    SCALE,
    STORED_AS,
    LatentFacts,
    Storage,
    facts_of,
)
from schemas.manifest import Latent
from training.data.compared import Compared
from training.data.recording import inside
from training.data.views import repair_of

OPEN_FILES = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentShape:
    """What all files of a run have in common. N patches: CLS and registers, where a file has them, are left out."""

    encoder_id: str
    dtype: Storage
    num_prefix: int
    grid_height: int
    grid_width: int
    width: int
    grid_stride: int
    rate_hz: float

    @property
    def num_patches(self) -> int:
        return self.grid_height * self.grid_width

    @property
    def read_as(self) -> torch.dtype:
        """Of the pictures that are read: as they are stored, for what is copied, pinned and sent is half of float32; eight bits times their scales."""
        return torch.bfloat16 if self.dtype == "bf16" else torch.float32


def shape_of(facts: LatentFacts) -> LatentShape:
    names = LatentShape.__dataclass_fields__
    return LatentShape(**{name: getattr(facts, name) for name in names})


def _mapped(path: Path) -> Any:
    return safe_open(path, framework="pt")


class LatentFile:
    """One open file."""

    def __init__(self, path: Path, where: str) -> None:
        self.where = where
        try:
            self._handle = _mapped(path)
            self.facts = facts_of(self._handle.metadata(), where=where)
            self._latents = self._handle.get_slice(LATENTS)
            has_scale = self.facts.dtype != "bf16"
            self._scale = self._handle.get_slice(SCALE) if has_scale else None
            self._check()
        except (OSError, SafetensorError, KeyError) as error:
            found = f"damaged ({error}); remove it and run `eicorpus latents` again"
            raise ConfigError(found, where=where) from error

    def _check(self) -> None:
        facts, frames = self.facts, self._handle.get_slice(FRAME_INDEX)
        wanted = [facts.num_frames, facts.num_tokens, facts.width]
        if (found := list(self._latents.get_shape())) != wanted:
            message = f"damaged (latents of shape {found}, its metadata says {wanted})"
            raise ConfigError(f"{message}; run `eicorpus latents` again", where=self.where)
        at = np.arange(0, facts.length, facts.grid_stride)
        if list(frames.get_shape()) != [len(at)] or not np.array_equal(frames[:].numpy(), at):
            message = f"damaged (its pictures are not every {facts.grid_stride}th timestep)"
            raise ConfigError(f"{message}; run `eicorpus latents` again", where=self.where)
        if (has := self._latents.get_dtype()) != STORED_AS[facts.dtype]:
            raise ConfigError(f"damaged (latents of {has}, not {facts.dtype})", where=self.where)

    def read(self, timestep: int, out: Tensor) -> None:
        """Patches of the picture at a timestep of the grid into `out` [N, D], which is `LatentShape.read_as`."""
        frame = timestep // self.facts.grid_stride
        prefix = self.facts.num_prefix
        values = self._latents[frame : frame + 1][0, prefix:]
        if self._scale is not None:
            scale = self._scale[frame : frame + 1][0, prefix:, None]
            out.copy_(values.float() * scale)
        else:
            bits_of(out)[...] = bits_of(values)


def bits_of(values: Tensor) -> npt.NDArray[np.unsignedinteger[Any]]:
    """The memory of a float tensor as numbers. numpy copies in one thread, outside the interpreter's lock; torch would start
    a team of threads in each of ours.
    """
    if values.dtype == torch.float32:
        return values.view(torch.int32).numpy().view(np.uint32)
    return values.view(torch.int16).numpy().view(np.uint16)


def is_finite(values: Tensor) -> bool:
    """Whether there is neither NaN nor infinity, whose exponents are all ones. Twenty times as fast as `torch.isfinite`."""
    sign_off, infinity = {torch.float32: (0x7FFFFFFF, 0x7F800000), torch.bfloat16: (0x7FFF, 0x7F80)}.get(values.dtype, (0, 0))  # fmt: skip
    if not infinity:
        return bool(torch.isfinite(values).all())
    return bool((bits_of(values) & sign_off).max(initial=0) < infinity)


class LatentReader:
    """Opens files as rows name them. Picklable: a worker opens its own."""

    def __init__(
        self, corpus: Path, shape: LatentShape | None = None, *, with_digest: bool = False
    ) -> None:
        self.corpus, self.shape, self.with_digest = corpus, shape, with_digest
        self._open = lru_cache(maxsize=OPEN_FILES)(self._opened)
        self._compared = Compared()

    def __reduce__(self) -> tuple[Any, ...]:
        return _reader, (self.corpus, self.shape, self.with_digest)

    def open(self, latent: Latent, uid: str, end: int) -> LatentFile:
        """The file of a row whose segment ends at `end`.

        Raises:
            ConfigError: it is missing, damaged, of something else, or too short.
        """
        file = self._open(latent.path, latent.sha256, latent.camera, latent.encoder_id, uid)
        if file.facts.length < end:
            found = f"{file.facts.length} timesteps, the segment ends at {end}"
            raise self._other(found, latent.path)
        return file

    def _other(self, wrong: str, path: str) -> ConfigError:
        found = f"latents of something else ({wrong})"
        return ConfigError(f"{found}; run `eicorpus latents {self.corpus}` again", where=path)

    def _opened(self, path: str, sha256: str, camera: str, encoder_id: str, uid: str) -> LatentFile:
        real = inside(self.corpus, path, repair=repair_of(self.corpus, encoder_id))
        file = LatentFile(real, path)
        facts = file.facts
        wrong = [
            f"{what} {found}, the manifest says {said}"
            for what, found, said in (
                ("episode", facts.uid, uid),
                ("camera", facts.camera, camera),
                ("encoder", facts.encoder_id, encoder_id),
            )
            if found != said
        ]
        if self.shape is not None and shape_of(facts) != self.shape:
            wrong.append(f"{shape_of(facts)}, the others have {self.shape}")
        if wrong:
            raise self._other("; ".join(wrong), path)
        if self.with_digest and (digest := self._compared.other_digest(real, sha256)):
            message = f"its digest is {digest}, the manifest says {sha256}"
            raise ConfigError(f"{message}; run `eicorpus latents {self.corpus}` again", where=path)
        return file


def _reader(corpus: Path, shape: LatentShape | None, with_digest: bool) -> LatentReader:  # noqa: FBT001
    return LatentReader(corpus, shape, with_digest=with_digest)


def common_shape(corpus: Path, latents: Sequence[Latent], uid: str) -> LatentShape:
    """Of a run, by the first file that it would read.

    Raises:
        ConfigError: see `LatentReader.open`.
    """
    return shape_of(LatentReader(corpus).open(latents[0], uid, 0).facts)
