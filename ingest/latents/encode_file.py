"""The two halves of the work on a file of latents: decoding a piece of a video (any worker), and encoding and writing (who holds the encoder)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ingest.latents.frame_grid import fitted
from ingest.latents.plan import PlannedLatentFile
from ingest.latents.token_file import BackgroundWriter, TokenFile
from ingest.models.encoder import EncoderChoice, ImageEncoder
from ingest.storage.local import LocalStorage
from ingest.storage.rooted import item_within
from ingest.video.timestep_pictures import pictures_at
from schemas.committed_rows import LatentRow
from schemas.errors import Code, PipelineError, SourceError, TransientError, system_error_text
from schemas.latents import LatentFacts, Preprocessing

PIECE_PICTURES = 128  # decoded at once: 19 MB at 224 px
Pictures = npt.NDArray[np.uint8]  # [n, S, S, 3]
_Stored = Mapping[str, memoryview]  # the bytes of a piece, by tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameChunk:
    """Pictures [first, first + count) of a file's grid. The first piece of a file also looks whether the video is the committed one."""

    file: PlannedLatentFile
    first: int
    count: int
    grid_stride: int
    preprocessing: Preprocessing

    @property
    def timesteps(self) -> range:
        start = self.first * self.grid_stride
        return range(start, start + self.count * self.grid_stride, self.grid_stride)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Decoded:
    """[count, S, S, 3] pictures of a piece, or why there are none."""

    pictures: Pictures | None = None
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeResult:
    """What came of one file: its row of the table `latents` without `run_id`, or an error that starts with its code."""

    row: LatentRow | None = None
    error: str = ""
    num_pictures: int = 0
    num_bytes: int = 0
    busy_s: float = 0.0  # of the encoder
    write_wait_s: float = 0.0  # in which it waited for the file to be written


def frame_chunks_of(file: PlannedLatentFile, choice: EncoderChoice, batch: int) -> list[FrameChunk]:
    """The pieces of a file; every one but the last is whole batches, so that batches do not depend on where it is cut."""
    total = file.num_pictures(choice.grid_stride)
    size = max(1, PIECE_PICTURES // batch) * batch
    return [
        FrameChunk(
            file=file,
            first=first,
            count=min(size, total - first),
            grid_stride=choice.grid_stride,
            preprocessing=choice.preprocessing,
        )
        for first in range(0, total, size)
    ]


def decode_chunk(piece: FrameChunk, disk: LocalStorage) -> Decoded:
    """The body of a decode worker."""
    try:
        path = item_within(Path(piece.file.corpus), piece.file.video)
        if piece.first == 0:
            _check_video(path, piece.file)
        return Decoded(pictures=_frames(path, piece))
    except SourceError as error:
        return Decoded(error=f"{error.code.value}: {error.where}: {error.message}")
    except TransientError as error:
        return Decoded(error=f"io_error: {error}")
    except PipelineError as error:
        return Decoded(error=f"{type(error).__name__}: {error}")
    except OSError as error:
        return Decoded(
            error=f"io_error: {piece.file.video}: {system_error_text(error, str(piece.file.video))}"
        )
    except MemoryError as error:
        return Decoded(error=f"{Code.OUT_OF_MEMORY.value}: {piece.file.video}: {error}")


def _check_video(path: Path, file: PlannedLatentFile) -> None:
    """Latents are kept with the digest of their video: a video that is not the committed one is refused. One of another size is not read."""
    committed = (
        f"the committed video has {file.video_num_bytes} bytes and sha256 {file.video_sha256}"
    )
    try:
        with path.open("rb") as opened:
            size = os.fstat(opened.fileno()).st_size
            differs = f"{size} bytes" if size != file.video_num_bytes else ""
            if not differs:
                digest = hashlib.file_digest(opened, "sha256").hexdigest()
                differs = f"sha256 {digest}" if digest != file.video_sha256 else ""
    except FileNotFoundError as error:
        where = file.video
        raise SourceError(Code.MISSING_VIDEO, "no such file", where=where) from error
    if differs:
        message = f"{differs}, but {committed}; run `eicorpus verify`"
        raise SourceError(Code.CORRUPT_VIDEO, message, where=file.video)


def _frames(path: Path, piece: FrameChunk) -> Pictures:
    side = piece.preprocessing.size_px
    out = np.empty((piece.count, side, side, 3), np.uint8)
    decoded = pictures_at(path, piece.timesteps, piece.file.rate_hz)
    for slot, picture in zip(out, decoded, strict=True):
        slot[:] = fitted(picture, piece.preprocessing)
    return out


class _EncodeError(Exception):
    """Why a file is not made; starts with its code."""


@dataclass(slots=True, kw_only=True, eq=False)
class PendingFile:
    """A file that is encoded, while the last of it is still written."""

    file: PlannedLatentFile
    written: Future[tuple[int, str]]  # its bytes and their sha256
    busy_s: float = 0.0  # of the encoder
    write_wait_s: float = 0.0


@dataclass(kw_only=True, eq=False)
class LatentMaker:
    """Encodes and writes; one for each encoder. `monotonic_s` is the caller's clock.

    The encoder stays in the thread that calls, since CUDA graphs belong to a thread; files are written in one of their own.
    """

    encoder: ImageEncoder
    monotonic_s: Callable[[], float]
    disk: LocalStorage = field(default_factory=LocalStorage)

    def make(self, file: PlannedLatentFile, decoded: Iterable[Decoded]) -> EncodeResult:
        """One file of latents out of its pieces, in order; raises what `begin` and `finished` do."""
        with ThreadPoolExecutor(max_workers=1) as writer:
            return self.finished(self.begin(file, decoded, writer))

    def begin(
        self, file: PlannedLatentFile, decoded: Iterable[Decoded], writer: ThreadPoolExecutor
    ) -> PendingFile:
        """Encode a file; `writer`, of one thread, is a piece behind and goes on. Tokens of two pieces at most are in memory.

        Raises:
            ConfigError: the device's memory does not hold a batch.
            InvariantError: these are more pictures than the file has.
            OSError: the file cannot be written.
        """
        writing = BackgroundWriter(self._writing(file), writer)
        begun = PendingFile(file=file, written=Future())
        try:
            for piece in self._encoded(decoded, begun):
                began_s = self.monotonic_s()
                writing.send(piece)
                begun.write_wait_s += self.monotonic_s() - began_s
            begun.written = writing.end()
        except BaseException as error:
            # whatever stops the encoder, Ctrl-C too, leaves no half file; an error of its own, which holds no frame with pictures
            begun.written = writing.throw(_EncodeError(str(error)))
            if not isinstance(error, _EncodeError):
                raise
        return begun

    def finished(self, begun: PendingFile) -> EncodeResult:
        """Waits until the file lies there, durable.

        Raises:
            InvariantError: the pieces were not those of the file.
            OSError: the file cannot be written.
        """
        began_s = self.monotonic_s()
        try:
            num_bytes, sha256 = begun.written.result()
        except _EncodeError as error:
            return EncodeResult(
                error=str(error), busy_s=begun.busy_s, write_wait_s=begun.write_wait_s
            )
        row = begun.file.row(self.facts(begun.file), num_bytes=num_bytes, sha256=sha256)
        return EncodeResult(
            row=row,
            num_pictures=row.num_frames,
            num_bytes=num_bytes,
            busy_s=begun.busy_s,
            write_wait_s=begun.write_wait_s + self.monotonic_s() - began_s,
        )

    def _encoded(self, decoded: Iterable[Decoded], begun: PendingFile) -> Iterator[_Stored]:
        """What is stored of each piece."""
        from ingest.models import token_storage

        for piece in decoded:
            if piece.pictures is None:
                raise _EncodeError(piece.error)
            began_s = self.monotonic_s()
            tokens = self.encoder.encode(piece.pictures)
            kept = token_storage.stored(tokens, self.encoder.choice.storage)
            is_sound = token_storage.is_finite(kept)
            tensors = token_storage.bytes_of(kept)
            begun.busy_s += self.monotonic_s() - began_s
            if not is_sound:
                wrong = "the encoder returned NaN or infinity"
                raise _EncodeError(f"{Code.NOT_FINITE.value}: {begun.file.video}: {wrong}")
            yield tensors

    def _writing(self, file: PlannedLatentFile) -> Generator[None, _Stored | None, tuple[int, str]]:
        """Takes what is stored of each piece, then None; then the file exists, and its bytes and sha256 are returned."""
        try:
            path = item_within(Path(file.corpus), file.target(self.encoder.id))
        except SourceError as error:
            raise _EncodeError(f"{error.code.value}: {error.where}: {error.message}") from error
        piece = yield  # most that fails does so before the first one, and leaves nothing behind
        try:
            self.disk.make_dir(path.parent)
            with self.disk.atomic_writer(path, is_durable=True) as opened:
                filled = TokenFile(opened, self.facts(file))
                while piece is not None:
                    filled.add(piece)
                    piece = yield
                return filled.finish()
        except OSError as error:  # a full disk does not say by itself where it is
            raise OSError(error.errno, error.strerror, str(path)) from error

    def facts(self, file: PlannedLatentFile) -> LatentFacts:
        """The page of a file."""
        choice = self.encoder.choice
        return LatentFacts(
            encoder_id=self.encoder.id,
            model=choice.model,
            weights_sha256=self.encoder.weights_sha256,
            preprocessing=choice.preprocessing,
            dtype=choice.storage,
            width=choice.spec.width,
            num_prefix=choice.num_prefix,
            grid_height=choice.spec.grid,
            grid_width=choice.spec.grid,
            grid_stride=choice.grid_stride,
            rate_hz=file.rate_hz,
            uid=file.uid,
            camera=file.camera,
            length=file.length,
            video_sha256=file.video_sha256,
        )
