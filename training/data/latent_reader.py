"""Reads a few pictures' latents out of files of many: only the bytes that are asked for, into the memory of the batch, a bounded number of files open.

A file lies under a name of its own or in a pack: a row of the manifest says where in it. A picture is compared with its checksum when it is read.

Each file is checked when it is opened: it lies inside the corpus, is whole (its header is compared with its size), says that it is the row's
episode, camera and encoder, and has the shapes of all others. `with_digest` also reads it whole once and compares its sha256: `eicorpus verify`
does that for a corpus, so a run does it only when asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from schemas.errors import ConfigError
from schemas.latent_header import (
    Header,
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
Bytes = npt.NDArray[np.uint8]
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Memory for what a file has of a picture: its tokens, and of eight bits their scales. CLS and registers come first, then the patches."""

    tokens: tuple[Bytes, ...]
    scales: tuple[Bytes, ...] = ()

    @property
    def all(self) -> tuple[Bytes, ...]:
        """In the order in which their checksum was computed."""
        return (*self.tokens, *self.scales)


class LatentFile:
    """One open file."""

    facts: LatentFacts
    _crc: npt.NDArray[np.uint32] | None

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
            raise self.damaged(str(error)) from error
        self._adopt(header)
        self._check_frames(header.tensors, self._file.fill)
        if self.facts.has_checksums:
            self._crc = np.empty(self.facts.num_frames, dtype="<u4")
            self._file.fill(self._crc, header.tensors[PICTURE_CRC].start)

    def _adopt(self, header: Header) -> None:
        """Take over where its tensors lie. Raises ConfigError where they are not those that its metadata states."""
        self.facts, tensors = header.facts, header.tensors
        for name, (dtype, shape) in expected_tensors(self.facts).items():
            if name not in tensors:
                raise self.damaged(f"no tensor {name!r}")
            held = tensors[name]
            if held.shape != shape:
                raise self.damaged(f"tensor {name} has shape {list(held.shape)}; its metadata states {list(shape)}")  # fmt: skip
            if held.dtype != dtype:
                raise self.damaged(
                    f"tensor {name} has type {held.dtype}; its metadata states {dtype}"
                )
        self._latents = tensors[LATENTS].start
        self._scale = tensors[SCALE].start if SCALE in tensors else 0
        self._crc = None

    def _check_frames(
        self, tensors: Mapping[str, Held], fill: Callable[[npt.NDArray[Any], int], None]
    ) -> None:
        """Raises ConfigError where its pictures are not those of the grid. fill: as `PositionalFile.fill`."""
        facts = self.facts
        at = np.arange(0, facts.length, facts.grid_stride)
        frames = np.empty(len(at), dtype="<i8")
        if tensors[FRAME_INDEX].shape == frames.shape:
            fill(frames, tensors[FRAME_INDEX].start)
        if tensors[FRAME_INDEX].shape != frames.shape or not np.array_equal(frames, at):
            raise self.damaged(f"its images are not every {facts.grid_stride}th timestep")

    def damaged(self, why: str) -> ConfigError:
        """The error for a file that is not what was written."""
        return self._file.damaged(why)

    @property
    def token_bytes(self) -> int:
        """Of the tokens of a picture."""
        size = 2 if self.facts.dtype == "bf16" else 1
        return self.facts.num_tokens * self.facts.width * size

    @property
    def scale_bytes(self) -> int:
        """Of the scales of a picture."""
        return 0 if self.facts.dtype == "bf16" else self.facts.num_tokens * 4

    def read(self, timestep: int, out: Memory) -> None:
        """Patches of the picture at a timestep of the grid into `out` [N, D], the memory of numbers that are `LatentShape.read_as`.

        Raises:
            OSError, TransientError: it cannot be read now.
            ConfigError: it is shorter than it was, or the picture has another checksum.
        """
        self.read_all([timestep], [out])

    def read_all(self, timesteps: Sequence[int], outs: Sequence[Memory]) -> None:
        """`read` of several pictures."""
        parts = [self._parts(out) for out in outs]
        self._fill([at // self.facts.grid_stride for at in timesteps], parts)
        if self.facts.dtype != "bf16":
            for out, part in zip(outs, parts, strict=True):
                self._scaled(part, out)

    def _parts(self, out: Memory) -> Parts:
        facts = self.facts
        if facts.dtype == "bf16":
            before = _before(facts.num_prefix * out.shape[1] * out.itemsize)
            return Parts(tokens=(*before, out.reshape(-1).view(np.uint8)))
        tokens = (*_before(facts.num_prefix * out.shape[1]), np.empty(out.size, np.uint8))
        return Parts(
            tokens=tokens, scales=(*_before(4 * facts.num_prefix), np.empty(4 * len(out), np.uint8))
        )

    def _fill(self, pictures: Sequence[int], parts: Sequence[Parts]) -> None:
        """Bytes of these pictures, as they were written. Those that follow each other in the file are read together."""
        first = 0
        for k in range(1, len(pictures) + 1):
            if k < len(pictures) and pictures[k] == pictures[k - 1] + 1:
                continue
            start, run = pictures[first], parts[first:k]
            tokens = [each for part in run for each in part.tokens]
            self._file.fill_all(tokens, self._latents + start * self.token_bytes)
            if self.scale_bytes:
                scales = [each for part in run for each in part.scales]
                self._file.fill_all(scales, self._scale + start * self.scale_bytes)
            first = k
        if self._crc is not None:
            for picture, part in zip(pictures, parts, strict=True):
                if (crc := picture_crc(*part.all)) != int(self._crc[picture]):
                    raise self.other_checksum(picture, crc)

    def other_checksum(self, picture: int, crc: int) -> ConfigError:
        """The error for a picture whose bytes are not those that were written."""
        assert self._crc is not None
        written = int(self._crc[picture])
        return self.damaged(
            f"picture {picture} has the checksum {crc:08x}; {written:08x} was written"
        )

    def _scaled(self, part: Parts, out: Memory) -> None:
        stored = part.tokens[-1].reshape(out.shape)
        scale = part.scales[-1].view("<f4").reshape(-1, 1)
        values = torch.from_numpy(stored).view(_EIGHT_BITS[self.facts.dtype]).float()
        out.view(np.float32)[...] = (values * torch.from_numpy(scale)).numpy()


def _before(num_bytes: int) -> tuple[Bytes, ...]:
    """Memory for what lies before the patches, if anything does."""
    return (np.empty(num_bytes, np.uint8),) if num_bytes else ()


_EIGHT_BITS = {"fp8": torch.float8_e4m3fn, "int8": torch.int8}


def is_finite(memory: Memory) -> bool:
    """Whether there is neither NaN nor infinity among floats of 16 (bfloat16) or 32 bits, whose exponents are all ones.

    Such numbers are the largest of either sign, so two maxima say it: a copy of the memory would cost more than all else of a sample.
    """
    infinity = {2: 0x7F80, 4: 0x7F800000}[memory.itemsize]
    sign = 1 << (8 * memory.itemsize - 1)
    signed = memory.view(f"i{memory.itemsize}")
    return bool(signed.max(initial=0) < infinity and memory.max(initial=0) < infinity + sign)


class Opener(Protocol):
    """Opens files that are not read where the corpus lies (`training.data.stored_latents`)."""

    def open(self, latent: Latent) -> LatentFile: ...


@dataclass(frozen=True, kw_only=True)
class _Opening:
    """How files of a corpus are opened. Not the reader's own method: a cache of that would keep itself and its files alive."""

    corpus: Path
    shape: LatentShape | None
    with_digest: bool
    opener: Opener | None
    compared: VerifiedFiles = field(default_factory=VerifiedFiles)

    def other(self, wrong: str, path: str) -> ConfigError:
        problem = f"these are not the latents of the manifest ({wrong})"
        return ConfigError(
            problem, remedy=f"run `eicorpus latents images {self.corpus}` again", where=path
        )

    def __call__(self, latent: Latent, uid: str) -> LatentFile:
        path = latent.path
        file = self._local(latent) if self.opener is None else self.opener.open(latent)
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
        return file

    def _local(self, latent: Latent) -> LatentFile:
        path, span = latent.path, span_of(latent.pack_offset, latent.num_bytes)
        real = inside(self.corpus, path, repair=repair_of(self.corpus, latent.encoder_id))
        file = LatentFile(real, path, span)
        if self.with_digest and (digest := self.compared.other_digest(real, latent.sha256, span)):
            message = f"sha256 is {digest}; the manifest records {latent.sha256}"
            raise ConfigError(
                message, remedy=f"run `eicorpus latents images {self.corpus}` again", where=path
            )
        return file


class LatentReader:
    """Opens files as rows name them, at most `OPEN_FILES` at a time. Picklable: a worker opens its own."""

    def __init__(
        self,
        corpus: Path,
        shape: LatentShape | None = None,
        *,
        with_digest: bool = False,
        opener: Opener | None = None,
    ) -> None:
        """
        Args:
            opener: of files that are not read in `corpus`.
        """
        self._opening = _Opening(corpus=corpus, shape=shape, with_digest=with_digest, opener=opener)
        self._open = lru_cache(maxsize=OPEN_FILES)(self._opening)

    @property
    def shape(self) -> LatentShape | None:
        return self._opening.shape

    def __reduce__(self) -> tuple[Any, ...]:
        opening = self._opening
        return _reader, (opening.corpus, opening.shape, opening.with_digest, opening.opener)

    def open(self, latent: Latent, uid: str, end: int) -> LatentFile:
        """The file of a row whose segment ends at `end`.

        Raises:
            ConfigError: it is missing, damaged, of something else, or too short.
            OSError, TransientError: it cannot be read now.
        """
        file = self._open(latent, uid)
        if file.facts.length < end:
            problem = f"the file covers {file.facts.length} timesteps, the segment ends at {end}"
            raise self._opening.other(problem, latent.path)
        return file


def _reader(
    corpus: Path,
    shape: LatentShape | None,
    with_digest: bool,  # noqa: FBT001
    opener: Opener | None,
) -> LatentReader:
    return LatentReader(corpus, shape, with_digest=with_digest, opener=opener)


def common_shape(
    corpus: Path, latents: Sequence[Latent], uid: str, opener: Opener | None = None
) -> LatentShape:
    """Of a run, by the first file that it would read.

    Raises:
        ConfigError: see `LatentReader.open`.
    """
    return shape_of(LatentReader(corpus, opener=opener).open(latents[0], uid, 0).facts)
