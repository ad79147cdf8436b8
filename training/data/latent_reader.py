"""Reads a few pictures' latents out of files of many: only the bytes that are asked for, into the memory of the batch, a bounded number of files open.

A file lies under a name of its own or in a pack: a row of the manifest says where in it. A picture is compared with its checksum when it is read.

Each file is checked when it is opened: it lies inside the corpus, is whole (its header is compared with its size), says that it is the row's
episode, camera and encoder, and has the shapes of all others. `with_digest` also reads it whole once and compares its sha256: `eicorpus verify`
does that for a corpus, so a run does it only when asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from schemas.errors import ConfigError
from schemas.latent_header import (
    Held,
    Span,
    expected_tensors,
    picture_crc,
    read_header,
    span_of,
)
from schemas.latents import FRAME_INDEX, LATENTS, PICTURE_CRC, SCALE, LatentFacts, Storage
from schemas.manifest import Latent
from training.data.camera_views import repair_of
from training.data.file_check import VerifiedFiles
from training.data.recording import PositionalFile, inside

OPEN_FILES = 512
REPAIR = "remove it and run `eicorpus latents images` again"
Memory = npt.NDArray[np.unsignedinteger[Any]]  # of floats, as numbers of as many bits


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


class LatentFile:
    """One open file."""

    def __init__(self, path: Path, where: str, span: Span | None = None) -> None:
        """
        Args:
            span: where it lies in the pack `path`; None where `path` is the file itself.

        Raises:
            ConfigError: it is damaged.
            OSError: it cannot be read now.
        """
        self._file = PositionalFile(path, where=where, repair=REPAIR)
        try:
            header = read_header(path, span)
        except ConfigError as error:
            raise self._file.damaged(str(error)) from error
        self.facts = header.facts
        self._check(header.tensors)
        self._latents = header.tensors[LATENTS].start
        self._scale = header.tensors[SCALE].start if SCALE in header.tensors else 0
        self._crc: npt.NDArray[np.uint32] | None = None
        if self.facts.has_checksums:
            self._crc = np.empty(self.facts.num_frames, "<u4")
            self._file.fill(self._crc, header.tensors[PICTURE_CRC].start)

    def _check(self, tensors: Mapping[str, Held]) -> None:
        facts = self.facts
        for name, (dtype, shape) in expected_tensors(facts).items():
            if name not in tensors:
                raise self._file.damaged(f"no tensor {name!r}")
            held = tensors[name]
            if held.shape != shape:
                raise self._file.damaged(f"tensor {name} has shape {list(held.shape)}; its metadata states {list(shape)}")  # fmt: skip
            if held.dtype != dtype:
                raise self._file.damaged(
                    f"tensor {name} has type {held.dtype}; its metadata states {dtype}"
                )
        at = np.arange(0, facts.length, facts.grid_stride)
        frames = np.empty(len(at), dtype="<i8")
        if tensors[FRAME_INDEX].shape == frames.shape:
            self._file.fill(frames, tensors[FRAME_INDEX].start)
        if tensors[FRAME_INDEX].shape != frames.shape or not np.array_equal(frames, at):
            raise self._file.damaged(f"its images are not every {facts.grid_stride}th timestep")

    def damaged(self, why: str) -> ConfigError:
        """The error for a file that is not what was written."""
        return self._file.damaged(why)

    def read(self, timestep: int, out: Memory) -> None:
        """Patches of the picture at a timestep of the grid into `out` [N, D], the memory of numbers that are `LatentShape.read_as`.

        Raises:
            OSError: it cannot be read now.
            ConfigError: it is shorter than it was, or the picture has another checksum.
        """
        facts, picture = self.facts, timestep // self.facts.grid_stride
        if facts.dtype == "bf16":
            prefix = self._filled(out, self._latents, picture)
            self._compare(picture, prefix, out)
            return
        stored, scale = np.empty(out.shape, np.uint8), np.empty((len(out), 1), "<f4")
        prefix = self._filled(stored, self._latents, picture)
        prefix_scale = self._filled(scale, self._scale, picture)
        self._compare(picture, prefix, stored, prefix_scale, scale)
        values = torch.from_numpy(stored).view(_EIGHT_BITS[facts.dtype]).float()
        out.view(np.float32)[...] = (values * torch.from_numpy(scale)).numpy()

    def _filled(
        self, out: npt.NDArray[Any], start: int, picture: int
    ) -> npt.NDArray[np.uint8] | None:
        """Fills `out` [N, k] with a picture's patches of the tensor at `start`; returns what is before them: CLS and registers, if they are compared."""
        facts = self.facts
        row = out.shape[1] * out.itemsize
        first = start + picture * facts.num_tokens * row
        num_before = facts.num_prefix * row
        before = None
        if num_before and self._crc is not None:
            before = np.empty(num_before, np.uint8)
            self._file.fill(before, first)
        self._file.fill(out, first + num_before)
        return before

    def _compare(self, picture: int, *parts: npt.NDArray[Any] | None) -> None:
        """
        Raises:
            ConfigError: the bytes of a picture are not those that were written.
        """
        if self._crc is None:
            return
        as_bytes = [each.reshape(-1).view(np.uint8) for each in parts if each is not None]
        if (crc := picture_crc(*as_bytes)) != int(self._crc[picture]):
            why = f"picture {picture} has the checksum {crc:08x}; {self._crc[picture]:08x} was written"
            raise self._file.damaged(why)


_EIGHT_BITS = {"fp8": torch.float8_e4m3fn, "int8": torch.int8}


def is_finite(memory: Memory) -> bool:
    """Whether there is neither NaN nor infinity among floats of 16 (bfloat16) or 32 bits, whose exponents are all ones.

    Such numbers are the largest of either sign, so two maxima say it: a copy of the memory would cost more than all else of a sample.
    """
    infinity = {2: 0x7F80, 4: 0x7F800000}[memory.itemsize]
    sign = 1 << (8 * memory.itemsize - 1)
    signed = memory.view(f"i{memory.itemsize}")
    return bool(signed.max(initial=0) < infinity and memory.max(initial=0) < infinity + sign)


@dataclass(frozen=True, kw_only=True)
class _Opening:
    """How files of a corpus are opened. Not the reader's own method: a cache of that would keep itself and its files alive."""

    corpus: Path
    shape: LatentShape | None
    with_digest: bool
    compared: VerifiedFiles = field(default_factory=VerifiedFiles)

    def other(self, wrong: str, path: str) -> ConfigError:
        problem = f"these are not the latents of the manifest ({wrong})"
        return ConfigError(
            problem, remedy=f"run `eicorpus latents images {self.corpus}` again", where=path
        )

    def __call__(self, latent: Latent, uid: str) -> LatentFile:
        path, span = latent.path, span_of(latent.pack_offset, latent.num_bytes)
        real = inside(self.corpus, path, repair=repair_of(self.corpus, latent.encoder_id))
        file = LatentFile(real, path, span)
        facts = file.facts
        wrong = [
            f"{what} {actual}, expected {expected} (manifest)"
            for what, actual, expected in (
                ("episode", facts.uid, uid),
                ("camera", facts.camera, latent.camera),
                ("encoder", facts.encoder_id, latent.encoder_id),
            )
            if actual != expected
        ]
        if self.shape is not None and shape_of(facts) != self.shape:
            wrong.append(f"{shape_of(facts)}, expected {self.shape} as in the other files")
        if wrong:
            raise self.other("; ".join(wrong), path)
        if self.with_digest and (digest := self.compared.other_digest(real, latent.sha256, span)):
            message = f"sha256 is {digest}; the manifest records {latent.sha256}"
            raise ConfigError(
                message, remedy=f"run `eicorpus latents images {self.corpus}` again", where=path
            )
        return file


class LatentReader:
    """Opens files as rows name them, at most `OPEN_FILES` at a time. Picklable: a worker opens its own."""

    def __init__(
        self, corpus: Path, shape: LatentShape | None = None, *, with_digest: bool = False
    ) -> None:
        self._opening = _Opening(corpus=corpus, shape=shape, with_digest=with_digest)
        self._open = lru_cache(maxsize=OPEN_FILES)(self._opening)

    @property
    def shape(self) -> LatentShape | None:
        return self._opening.shape

    def __reduce__(self) -> tuple[Any, ...]:
        opening = self._opening
        return _reader, (opening.corpus, opening.shape, opening.with_digest)

    def open(self, latent: Latent, uid: str, end: int) -> LatentFile:
        """The file of a row whose segment ends at `end`.

        Raises:
            ConfigError: it is missing, damaged, of something else, or too short.
            OSError: it cannot be read now.
        """
        file = self._open(latent, uid)
        if file.facts.length < end:
            problem = f"the file covers {file.facts.length} timesteps, the segment ends at {end}"
            raise self._opening.other(problem, latent.path)
        return file


def _reader(corpus: Path, shape: LatentShape | None, with_digest: bool) -> LatentReader:  # noqa: FBT001
    return LatentReader(corpus, shape, with_digest=with_digest)


def common_shape(corpus: Path, latents: Sequence[Latent], uid: str) -> LatentShape:
    """Of a run, by the first file that it would read.

    Raises:
        ConfigError: see `LatentReader.open`.
    """
    return shape_of(LatentReader(corpus).open(latents[0], uid, 0).facts)
