"""Token arrays in NumPy, which has neither bfloat16 nor 8-bit floats, and the latent file that a background thread writes in place while images are encoded."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import BufferedRandom
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from schemas.errors import ConfigError, InvariantError
from schemas.latent_header import (
    Header,
    Held,
    Span,
    expected_tensors,
    header_of,
    picture_crc,
    read_header,
)
from schemas.latents import CODE, FRAME_INDEX, LATENTS, PICTURE_CRC, SCALE, LatentFacts

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
    code: npt.NDArray[np.int64] | None = None  # [N, T] of latent actions, -1 for none

    @property
    def patches(self) -> Float32:
        """[N, grid_height, grid_width, D] the tokens of the picture's patches."""
        facts = self.facts
        grid = (facts.grid_height, facts.grid_width, facts.width)
        return self.tokens[:, facts.num_prefix :].reshape(len(self.tokens), *grid)


def read_latents(path: Path, span: Span | None = None) -> Latents:
    """Reads a whole file of latents. `span`: its offset and size in the pack `path`.

    Raises:
        ConfigError: it is none, or is damaged.
        OSError: it cannot be read.
    """
    header = _checked_header(path, span)
    arrays = {name: _array(path, header.tensors[name]) for name in expected_tensors(header.facts)}
    tokens = _float32(arrays[LATENTS], header.facts.dtype)
    if SCALE in arrays:
        tokens = tokens * arrays[SCALE][..., None]
    return Latents(
        tokens=tokens,
        frame_index=arrays[FRAME_INDEX],
        facts=header.facts,
        code=arrays.get(CODE),
    )


def read_mean_patches(
    path: Path, max_pictures: int, span: Span | None = None
) -> tuple[Float32, npt.NDArray[np.int64]]:
    """[M, D] the mean over the patches of each picture, and [M] its timestep, of at most so many pictures, evenly spaced.

    One picture is in memory at a time: a file may be larger than the memory.

    Raises:
        ConfigError: it is no file of latents, or is damaged.
        OSError: it cannot be read.
    """
    header = _checked_header(path, span)
    facts, tensors = header.facts, header.tensors
    frame_index = _array(path, tensors[FRAME_INDEX])
    count = len(frame_index)
    chosen = np.linspace(0, count - 1, min(count, max_pictures)).round().astype(np.int64)
    out = np.empty((len(chosen), facts.width), np.float32)
    for place, picture in enumerate(chosen):
        tokens = _float32(_array(path, tensors[LATENTS], picture), facts.dtype)
        if SCALE in tensors:
            tokens = tokens * _array(path, tensors[SCALE], picture)[..., None]
        out[place] = tokens[facts.num_prefix :].mean(axis=0)
    return out, frame_index[chosen]


def _checked_header(path: Path, span: Span | None) -> Header:
    """The head of a file that has the tensors which its metadata states."""
    header = read_header(path, span)
    for name, (dtype, shape) in expected_tensors(header.facts).items():
        held = header.tensors.get(name)
        if held is None or (held.dtype, held.shape) != (dtype, shape):
            problem = f"tensor {name!r} is {held}; its metadata states {dtype} {list(shape)}"
            raise ConfigError(
                problem, remedy="run `eicorpus latents images` again", where=str(path)
            )
    return header


_STORED = {"BF16": "<u2", "F8_E4M3": "u1", "I8": "i1", "U8": "u1", "F32": "<f4", "I64": "<i8"}


def _array(path: Path, held: Held, item: int | None = None) -> npt.NDArray[Any]:
    """A tensor, or one item of its first axis."""
    dtype = np.dtype(_STORED[held.dtype])
    shape = held.shape if item is None else held.shape[1:]
    count = math.prod(shape)
    offset = held.start + (item or 0) * count * dtype.itemsize
    return np.fromfile(path, dtype=dtype, count=count, offset=offset).reshape(shape)


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


T = TypeVar("T")  # an item
R = TypeVar("R")  # what is made of all


class BackgroundWriter(Generic[T, R]):
    """Sends items to a generator whose steps run in `thread`, an executor of one thread.

    `taker` is sent each item, then None, and returns. There is no queue to wait at: each step ends by itself, so that no caller is left
    waiting for one who is gone.
    """

    def __init__(self, taker: Generator[None, T | None, R], thread: ThreadPoolExecutor) -> None:
        self._taker, self._thread = taker, thread
        self._step: Future[None] = thread.submit(next, taker)

    def send(self, item: T) -> None:
        """Waits until the item before is taken, and raises what `taker` raised."""
        self._step.result()
        self._step = self._thread.submit(self._taker.send, item)

    def end(self) -> Future[R]:
        """That was all. What `taker` returns or raises, later."""
        return self._thread.submit(self._returned, self._step)

    def throw(self, error: Exception) -> Future[R]:
        """There will be no more: `taker` is left by the error, which the future raises, or what it raised itself before."""
        return self._thread.submit(self._left, self._step, error)

    def _returned(self, step: Future[None]) -> R:
        step.result()  # it has ended: there is one thread
        try:
            self._taker.send(None)
        except StopIteration as end:
            returned: R = end.value
            return returned
        raise InvariantError("the consumer continued after the last item")

    def _left(self, step: Future[None], error: Exception) -> R:
        step.result()
        self._taker.throw(error)
        raise InvariantError("the consumer continued after an error")


class TokenFile:
    """Fills an empty file, or the end of one, that can be read too. Tensors are filled side by side: of eight bits each piece has tokens and their scales.

    Bytes are hashed as they come while each follows the last, as all of bfloat16 and of a single piece do; what came before its turn is
    read again at the end.
    """

    def __init__(self, file: BufferedRandom, facts: LatentFacts, start: int = 0) -> None:
        """`start`: of the first byte, in a pack that holds other files before it."""
        head, header = header_of(facts)
        self._file, self._held, self._start = file, header.tensors, start
        self._at = {name: held.start for name, held in header.tensors.items()}
        self._digest, self._num_hashed = hashlib.sha256(), 0
        self._num_pictures = facts.num_frames
        self._crc: list[int] | None = [] if facts.has_checksums else None
        self._num_bytes = max(held.end for held in header.tensors.values())
        self._write(0, memoryview(head))
        index = np.arange(facts.num_frames, dtype="<i8") * facts.grid_stride
        self._put(FRAME_INDEX, memoryview(index.tobytes()))

    def add(self, piece: Mapping[str, memoryview]) -> None:
        """The bytes of the next pictures, by tensor.

        Raises:
            InvariantError: they are more than the file has room for.
        """
        for name in sorted(piece, key=lambda name: self._held[name].start):
            self._put(name, piece[name])
        if self._crc is not None:
            self._crc += self._checksums(piece)

    def finish(self) -> tuple[int, str]:
        """(bytes, sha256) of the whole.

        Raises:
            InvariantError: some of it is missing.
        """
        if self._crc is not None:
            self._put(PICTURE_CRC, memoryview(np.array(self._crc, "<u4").tobytes()))
            self._crc = None
        for name, held in self._held.items():
            if self._at[name] != held.end:
                raise InvariantError(
                    f"{self._at[name] - held.start} bytes of {name}; expected {held}"
                )
        self._file.seek(self._start + self._num_hashed)
        block = memoryview(bytearray(min(self._num_bytes - self._num_hashed, 1 << 20)))
        while left := self._num_bytes - self._num_hashed:
            num = self._file.readinto(block[:left])
            self._digest.update(block[:num])
            self._num_hashed += num
        return self._num_bytes, self._digest.hexdigest()

    def _checksums(self, piece: Mapping[str, memoryview]) -> list[int]:
        """Of each picture of a piece: its latents, then its scales."""
        names = [name for name in (LATENTS, SCALE) if name in piece]
        size = {name: held.end - held.start for name, held in self._held.items()}
        count = len(piece[LATENTS]) * self._num_pictures // size[LATENTS]
        rows = [np.frombuffer(piece[name], np.uint8).reshape(count, -1) for name in names]
        return [picture_crc(*(each[n] for each in rows)) for n in range(count)]

    def _put(self, name: str, data: memoryview) -> None:
        start = self._at[name]
        if start + len(data) > self._held[name].end:
            raise InvariantError(f"more data for {name} than {self._held[name]}")
        self._write(start, data)
        self._at[name] = start + len(data)

    def _write(self, start: int, data: memoryview) -> None:
        self._file.seek(self._start + start)
        self._file.write(data)
        if start == self._num_hashed:
            self._digest.update(data)
            self._num_hashed += len(data)
