"""The two halves of the work on a file of latents: decoding a piece of a video (any worker), and encoding and writing (who holds the encoder)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from io import BufferedRandom
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ingest.corpus.latent_packs import PackWriter
from ingest.latents.frame_grid import fitted
from ingest.latents.plan import LatentUnit, PlannedLatentFile
from ingest.latents.token_file import BackgroundWriter, TokenFile
from ingest.models.encoder import EncoderChoice, ImageEncoder
from ingest.storage.local import LocalStorage
from ingest.storage.rooted import item_within
from ingest.video.timestep_pictures import pictures_at
from schemas.committed_rows import LatentRow
from schemas.errors import (
    Code,
    InvariantError,
    PipelineError,
    SourceError,
    TransientError,
    system_error_text,
)
from schemas.latent_header import size_of
from schemas.latents import WITH_CHECKSUMS, LatentFacts, Preprocessing

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


DecodedChunk = tuple[FrameChunk, Decoded]


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeResult:
    """What came of one file: its row of the table `latents` without `run_id`, or an error that starts with its code."""

    row: LatentRow | None = None
    error: str = ""
    num_pictures: int = 0
    num_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitResult:
    """What came of each file of a unit, in their order."""

    files: tuple[EncodeResult, ...]
    busy_s: float = 0.0  # of the encoder
    write_wait_s: float = 0.0  # in which it waited for the file or pack to be written

    @staticmethod
    def failed(unit: LatentUnit, error: str) -> UnitResult:
        """Nothing came of any."""
        return UnitResult(files=(EncodeResult(error=error),) * len(unit.files))


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


def unit_chunks_of(unit: LatentUnit, choice: EncoderChoice, batch: int) -> list[FrameChunk]:
    """The pieces of all files of a unit, in order."""
    return [chunk for file in unit.files for chunk in frame_chunks_of(file, choice, batch)]


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
    """Why the files of a unit are not made; starts with its code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Written:
    """The file or pack that contains a latent file."""

    num_bytes: int
    sha256: str
    pack_offset: int | None


# Of some pictures of the file of this number in its unit; None: what was written of that file is to be forgotten.
_Piece = tuple[int, _Stored | None]


@dataclass(slots=True, kw_only=True, eq=False)
class PendingUnit:
    """A unit that is encoded, while the last of it is still written."""

    unit: LatentUnit
    written: Future[dict[int, _Written]]
    errors: dict[int, str] = field(default_factory=dict)  # by the number of the file
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

    def make(self, unit: LatentUnit, decoded: Iterable[DecodedChunk]) -> UnitResult:
        """The files of a unit out of their pieces, in order; raises what `begin` and `finished` do."""
        with ThreadPoolExecutor(max_workers=1) as writer:
            return self.finished(self.begin(unit, decoded, writer))

    def begin(
        self, unit: LatentUnit, decoded: Iterable[DecodedChunk], writer: ThreadPoolExecutor
    ) -> PendingUnit:
        """Encode a unit; `writer`, of one thread, is a piece behind and goes on. Tokens of two pieces at most are in memory.

        Raises:
            ConfigError: the device's memory does not hold a batch.
            InvariantError: these are other pictures than the files have.
            OSError: the file or pack cannot be written.
        """
        writing = BackgroundWriter(self._writing(unit), writer)
        begun = PendingUnit(unit=unit, written=Future())
        try:
            for pieces in self._encoded(decoded, begun):
                began_s = self.monotonic_s()
                writing.send(pieces)
                begun.write_wait_s += self.monotonic_s() - began_s
            begun.written = writing.end()
        except BaseException as error:
            # whatever stops the encoder, Ctrl-C too, leaves no half file; an error of its own, which holds no frame with pictures
            begun.written = writing.throw(_EncodeError(str(error)))
            if not isinstance(error, _EncodeError):
                raise
        return begun

    def finished(self, begun: PendingUnit) -> UnitResult:
        """Returns when the file or pack is durable under its name.

        Raises:
            InvariantError: the pieces were not those of the unit.
            OSError: it cannot be written.
        """
        began_s = self.monotonic_s()
        errors, written, why = begun.errors, {}, "not written"
        try:
            written = begun.written.result()
        except _EncodeError as error:
            why = str(error)
        waited_s = self.monotonic_s() - began_s if written else 0.0
        return UnitResult(
            files=tuple(
                self._result(begun.unit, file, written[n])
                if n in written
                else EncodeResult(error=errors.get(n, why))
                for n, file in enumerate(begun.unit.files)
            ),
            busy_s=begun.busy_s,
            write_wait_s=begun.write_wait_s + waited_s,
        )

    def _result(self, unit: LatentUnit, file: PlannedLatentFile, lies: _Written) -> EncodeResult:
        row = file.row(
            self.facts(file),
            num_bytes=lies.num_bytes,
            sha256=lies.sha256,
            pack=unit.pack,
            pack_offset=lies.pack_offset,
        )
        return EncodeResult(row=row, num_pictures=row.num_frames, num_bytes=lies.num_bytes)

    def _encoded(
        self, decoded: Iterable[DecodedChunk], begun: PendingUnit
    ) -> Iterator[list[_Piece]]:
        """What is stored of the pictures, in whole batches that do not end where a file does; but for the last one."""
        batch, errors = self.encoder.batch, begun.errors
        numbers = {file: number for number, file in enumerate(begun.unit.files)}
        waiting: list[tuple[int, Pictures]] = []
        is_sent = -1  # of this file, pieces
        for chunk, piece in decoded:
            number = numbers[chunk.file]
            if number in errors:
                continue
            if piece.pictures is None:
                errors[number] = piece.error
                waiting = [each for each in waiting if each[0] != number]
                if is_sent == number:
                    yield [(number, None)]
                continue
            if len(piece.pictures) != chunk.count:
                raise InvariantError(f"{len(piece.pictures)} pictures; expected {chunk.count}")
            waiting.append((number, piece.pictures))
            count = sum(len(pictures) for _, pictures in waiting)
            if count >= batch:
                whole, waiting = _cut(waiting, count - count % batch)
                pieces = self._stored(whole, begun)
                is_sent = pieces[-1][0]
                yield pieces
                waiting = [each for each in waiting if each[0] not in errors]
        if waiting:
            yield self._stored(waiting, begun)

    def _stored(self, segments: list[tuple[int, Pictures]], begun: PendingUnit) -> list[_Piece]:
        """What is stored of each segment: pictures of one file."""
        from ingest.models import token_storage

        began_s = self.monotonic_s()
        pictures = [each for _, each in segments]
        joined = pictures[0] if len(pictures) == 1 else np.concatenate(pictures)
        tokens = self.encoder.encode(joined, has_whole_batches=True)
        kept = token_storage.stored(tokens, self.encoder.choice.storage)
        is_sound = token_storage.is_finite(kept)
        ends = np.cumsum([len(each) for each in pictures]).tolist()
        places = list(zip([0, *ends[:-1]], ends, strict=True))
        bad = set()
        if not is_sound:
            bad = {
                number
                for (number, _), (first, end) in zip(segments, places, strict=True)
                if not token_storage.is_finite(token_storage.part_of(kept, first, end))
            }
        tensors = token_storage.bytes_of(kept)
        begun.busy_s += self.monotonic_s() - began_s
        for number in bad - begun.errors.keys():
            video = begun.unit.files[number].video
            wrong = "the encoder returned NaN or infinity"
            begun.errors[number] = f"{Code.NOT_FINITE.value}: {video}: {wrong}"
        return [
            (number, None if number in bad else _rows(tensors, first, end, len(joined)))
            for (number, _), (first, end) in zip(segments, places, strict=True)
        ]

    def _writing(
        self, unit: LatentUnit
    ) -> Generator[None, list[_Piece] | None, dict[int, _Written]]:
        """Takes what is stored of some pictures, then None; then the file or pack exists, and the place of each file is returned."""
        where = unit.pack or unit.files[0].target(self.encoder.id)
        try:
            path = item_within(Path(unit.files[0].corpus), where)
        except SourceError as error:
            raise _EncodeError(f"{error.code.value}: {error.where}: {error.message}") from error
        pieces = yield  # most that fails does so before the first one, and leaves nothing behind
        if pieces is None:
            return {}
        try:
            self.disk.make_dir(path.parent)
            with self.disk.atomic_writer(path, is_durable=True) as opened:
                filled = _Filling(opened, unit, self.facts)
                while pieces is not None:
                    for number, tensors in pieces:
                        filled.take(number, tensors)
                    pieces = yield
                return filled.finish()
        except _NothingMade:
            return {}
        except OSError as error:  # a full disk does not say by itself where it is
            raise OSError(error.errno, error.strerror, str(path)) from error

    def facts(self, file: PlannedLatentFile) -> LatentFacts:
        """The page of a file."""
        choice = self.encoder.choice
        return LatentFacts(
            latents_version=WITH_CHECKSUMS,
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


class _NothingMade(Exception):
    """No file of a unit could be made: there is to be no pack."""


class _Filling:
    """A file that is filled, or a pack, file by file. One that is given up is written over by the next."""

    def __init__(
        self,
        opened: BufferedRandom,
        unit: LatentUnit,
        facts: Callable[[PlannedLatentFile], LatentFacts],
    ) -> None:
        self._opened, self._unit, self._facts = opened, unit, facts
        self._pack = PackWriter(opened) if unit.pack else None
        self._number, self._start = -1, 0  # of the file in hand
        self._file: TokenFile | None = None
        self._done: dict[int, _Written] = {}
        self._given_up: set[int] = set()

    def take(self, number: int, tensors: _Stored | None) -> None:
        """Pictures of a file, which come one file after the other. None: it is given up.

        Raises:
            InvariantError: a file before it is not whole, or has more than all its pictures.
        """
        if tensors is None:
            self._given_up.add(number)
            if number == self._number:
                self._number, self._file = -1, None
            return
        if number in self._given_up:
            return
        if number != self._number:
            self._close()
            self._begin(number)
        assert self._file is not None
        self._file.add(tensors)

    def finish(self) -> dict[int, _Written]:
        """The place of each file.

        Raises:
            InvariantError: the last one is not whole.
            _NothingMade: there is none.
        """
        self._close()
        if not self._done:
            raise _NothingMade
        if self._pack is not None:
            self._pack.finish()
        return self._done

    def _begin(self, number: int) -> None:
        file = self._unit.files[number]
        facts = self._facts(file)
        self._number, self._start = number, 0
        if self._pack is not None:
            self._start = self._pack.begin(file.member, size_of(facts))
        self._file = TokenFile(self._opened, facts, self._start)

    def _close(self) -> None:
        if self._file is None:
            return
        num_bytes, sha256 = self._file.finish()
        if self._pack is not None:
            self._pack.keep(num_bytes)
        offset = None if self._pack is None else self._start
        self._done[self._number] = _Written(num_bytes=num_bytes, sha256=sha256, pack_offset=offset)
        self._number, self._file = -1, None


def _cut(
    segments: list[tuple[int, Pictures]], count: int
) -> tuple[list[tuple[int, Pictures]], list[tuple[int, Pictures]]]:
    """The first `count` pictures, and the others."""
    first: list[tuple[int, Pictures]] = []
    for place, (number, pictures) in enumerate(segments):
        if len(pictures) > count:
            head = [(number, pictures[:count])] if count else []
            return first + head, [(number, pictures[count:]), *segments[place + 1 :]]
        first.append((number, pictures))
        count -= len(pictures)
    return first, []


def _rows(tensors: _Stored, first: int, end: int, count: int) -> dict[str, memoryview]:
    """The bytes of pictures [first, end) of `count`."""
    size = {name: len(data) // count for name, data in tensors.items()}
    return {name: data[first * size[name] : end * size[name]] for name, data in tensors.items()}
