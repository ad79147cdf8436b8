"""Latents that are read by ranges out of a store (a bucket, or a network file system) through a block cache of this machine.

A block is one picture, or the head of a file with the checksums of its pictures. A block is compared with its checksum when it is fetched,
and again whenever it is read from the cache. One that differs is fetched again, at most `TRIES` times; then its sample is broken.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from schemas.catalog import MOST_FRAMES
from schemas.errors import ConfigError, SourceError
from schemas.latent_header import Header, Span, picture_crc, span_of, tensors_within
from schemas.latents import PICTURE_CRC, facts_of
from schemas.manifest import Latent
from schemas.paths import within
from training.data.block_cache import BlockCache, key_of_block
from training.data.broken import TRIES
from training.data.latent_reader import REPAIR, Bytes, LatentFile, LatentShape, Parts
from training.data.recording import PositionalFile, inside
from training.recipe import LatentCacheSettings

HEAD_BYTES = 8192  # of a file, that are fetched at first: its header is a tenth of that
SMALLEST_BLOCK = 16384  # so that a head fits
GAP = 1  # unrequested pictures between two that are fetched in one request


class RangeStore(Protocol):
    """Where files lie, by their path in the corpus. `ingest.storage.object_store.ObjectStore` is one."""

    def range(self, key: str, start: int, length: int) -> bytes:
        """At most `length` bytes from `start` on; fewer where the object ends.

        Raises:
            SourceError: there is no such object. OSError, TransientError: it cannot be read now.
        """
        ...

    def size(self, key: str) -> int | None:
        """Of an object, None where there is none."""
        ...


@dataclass(frozen=True, slots=True)
class FolderStore:
    """A corpus on a file system that is slower than a disk of this machine."""

    corpus: Path

    def range(self, key: str, start: int, length: int) -> bytes:
        """As `RangeStore.range`."""
        path = inside(self.corpus, key)
        out = np.empty(max(0, min(length, path.stat().st_size - start)), np.uint8)
        PositionalFile(path, where=key, repair=REPAIR).fill(out, start)
        return out.tobytes()

    def size(self, key: str) -> int | None:
        """As `RangeStore.size`."""
        return inside(self.corpus, key).stat().st_size


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentPlace:
    """Where a run reads latents. `store`: None for the folder of the corpus. `name`: of the store, in keys of the cache. `folder`: of the cache, where
    the recipe names none. `copies`: a folder that may have whole files of the store; they are read there.
    """

    store: RangeStore | None = None
    name: str = ""
    folder: Path | None = None
    copies: Path | None = None


CORPUS_FOLDER = LatentPlace()


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLatents:
    """Opens files of a store. `name`: of the store, in keys of the cache. Without a cache every picture is fetched when it is read."""

    store: RangeStore
    name: str
    cache: BlockCache | None = None
    copies: Path | None = None

    def open(self, latent: Latent) -> LatentFile:
        """
        Raises:
            ConfigError: it is missing or damaged.
            OSError, TransientError: it cannot be read now.
        """
        if self.copies is not None and (path := within(self.copies, latent.path)).is_file():
            return LatentFile(path, latent.path, span_of(latent.pack_offset, latent.num_bytes))
        return StoredLatentFile(self, latent)

    def range(self, key: str, start: int, length: int) -> Bytes:
        """All these bytes of an object. The reader of a sample tries again (`patiently`)."""
        try:
            data = self.store.range(key, start, length)
        except SourceError as error:
            raise _damaged(f"{error.message}", key) from error
        if len(data) != length:
            raise _damaged(f"the object ends at byte {start + len(data)}", key)
        return np.frombuffer(data, np.uint8)


def _damaged(why: str, where: str) -> ConfigError:
    return ConfigError(f"damaged ({why})", remedy=REPAIR, where=where)


def block_bytes_of(shape: LatentShape, num_tokens: int) -> int:
    """The largest block of files of this shape."""
    size = 2 * shape.width if shape.dtype == "bf16" else shape.width + 4
    return max(SMALLEST_BLOCK, num_tokens * size)


class StoredLatentFile(LatentFile):
    """A file of a store. It keeps no connection: only where its tensors lie, and checksums."""

    def __init__(self, source: StoredLatents, latent: Latent) -> None:
        self._source, self._where = source, latent.path
        span = span_of(latent.pack_offset, latent.num_bytes)
        self._place = f"{latent.path}:{'' if span is None else span.start}"
        self._sha256 = latent.sha256
        if span is not None and min(span.start, span.num_bytes) < 0:  # a manifest is a stranger's
            raise self.damaged(f"bytes {span.start} to {span.start + span.num_bytes} of a pack")
        head = None if source.cache is None else source.cache.get(self._key("head"))
        if head is None or not self._begin_with(head, span):
            for left in reversed(range(TRIES)):
                try:
                    head = self._fetched_head(span or self._whole())
                    break
                except ConfigError:  # of a damaged answer: the store may have the right bytes
                    if not left:
                        raise
            assert head is not None
            if source.cache is not None:
                source.cache.write(self._key("head"), head)

    def _whole(self) -> Span:
        try:
            size = self._source.store.size(self._where)
        except SourceError as error:
            raise _damaged(error.message, self._where) from error
        if size is None:
            raise _damaged("the object is missing", self._where)
        return Span(start=0, num_bytes=size)

    def _key(self, what: str) -> bytes:
        return key_of_block(self._source.name, self._place, self._sha256, what)

    def damaged(self, why: str) -> ConfigError:
        return _damaged(why, self._where)

    # --- the head -----------------------------------------------------------------------------------------------------

    def _fetched_head(self, span: Span) -> Bytes:
        """What the cache keeps of it: where the file lies, its header, and the checksums of its pictures.

        Raises:
            ConfigError: it is damaged.
        """
        first = self._source.range(self._where, span.start, min(HEAD_BYTES, span.num_bytes))

        def read(start: int, length: int) -> bytes:
            at = start - span.start
            if at + length <= len(first):
                return first[at : at + length].tobytes()
            return self._source.range(self._where, start, length).tobytes()

        def fill(out: npt.NDArray[Any], start: int) -> None:
            out.reshape(-1).view(np.uint8)[...] = np.frombuffer(read(start, out.nbytes), np.uint8)

        header = self._header(read, span)
        if header.facts.length > MOST_FRAMES:  # no size of a pack bounds it here
            raise self.damaged(f"it states {header.facts.length} timesteps")
        self._adopt(header)
        self._check_frames(header.tensors, fill)
        crc = np.empty(0, "<u4")
        if self.facts.has_checksums:
            crc = np.empty(self.facts.num_frames, "<u4")
            fill(crc, header.tensors[PICTURE_CRC].start)
            self._crc = crc
        length = int.from_bytes(read(span.start, 8), "little")
        place = np.array([span.start, span.num_bytes], "<i8")
        text = np.frombuffer(read(span.start, 8 + length), np.uint8)
        return np.concatenate([place.view(np.uint8), text, crc.view(np.uint8)])

    def _header(self, read: Any, span: Span) -> Header:
        try:
            tensors, metadata = tensors_within(read, span, where=self._where)
            return Header(tensors=tensors, facts=facts_of(metadata, where=self._where))
        except ConfigError as error:
            raise self.damaged(str(error)) from error

    def _begin_with(self, head: Bytes, span: Span | None) -> bool:
        """Whether the cache has kept the head of this file; its frames were looked at when it was fetched. What is none is a miss."""
        data = head.tobytes()
        if len(data) < 16:
            return False
        start, num_bytes = (int(each) for each in np.frombuffer(data[:16], "<i8"))
        kept = Span(start=start, num_bytes=num_bytes)
        if span is not None and kept != span:
            return False
        text = data[16:]

        def read(at: int, length: int) -> bytes:
            return text[at - start : at - start + length]

        try:
            self._adopt(self._header(read, kept))
        except ConfigError:
            return False
        if not self.facts.has_checksums:
            return True
        num = self.facts.num_frames
        self._crc = crc = np.frombuffer(text[-4 * num :] if num else b"", "<u4")
        return len(crc) == num

    # --- pictures -----------------------------------------------------------------------------------------------------

    def _fill(self, pictures: Sequence[int], parts: Sequence[Parts]) -> None:
        cache = self._source.cache
        if cache is None:
            self._take(self._fetched(sorted({*pictures})), pictures, parts)
            return
        left = [k for k, n in enumerate(pictures) if not self._is_cached(cache, n, parts[k])]
        keys = {self._picture_key(pictures[k]): k for k in left}
        with cache.claimed([*keys]) as own:
            fetched = self._kept(cache, sorted(pictures[keys[key]] for key in own))
        for key, k in keys.items():
            if pictures[k] not in fetched:  # another thread has fetched it meanwhile
                cache.wait(key)
                if not self._is_cached(cache, pictures[k], parts[k]):
                    fetched |= self._kept(cache, [pictures[k]])
        done = [k for k in left if pictures[k] in fetched]
        self._take(fetched, [pictures[k] for k in done], [parts[k] for k in done])

    def warm(self, timesteps: Iterable[int]) -> None:
        """Have the cache fetch pictures that will be read. Raises as `read`."""
        cache = self._source.cache
        if cache is None:
            return
        pictures = sorted({at // self.facts.grid_stride for at in timesteps})
        absent = {self._picture_key(n): n for n in pictures}
        absent = {key: n for key, n in absent.items() if not cache.has(key)}
        with cache.claimed([*absent]) as own:
            self._kept(cache, sorted(absent[key] for key in own))

    def _picture_key(self, picture: int) -> bytes:
        return self._key(str(picture))

    def _is_cached(self, cache: BlockCache, picture: int, part: Parts) -> bool:
        crc = cache.read(self._picture_key(picture), part.all)
        return crc is not None and (self._crc is None or crc == int(self._crc[picture]))

    def _kept(self, cache: BlockCache, pictures: Sequence[int]) -> dict[int, Bytes]:
        """Fetched, and those between them; all are kept in the cache."""
        fetched = self._fetched(pictures)
        for picture, block in fetched.items():
            cache.write(self._picture_key(picture), block)
        return fetched

    def _fetched(self, pictures: Sequence[int]) -> dict[int, Bytes]:
        """Blocks of these pictures, in increasing order, and of those that lie between two in one request.

        Raises:
            ConfigError: one has another checksum each time, or the file ends before it.
            OSError, TransientError: it cannot be read now.
        """
        out: dict[int, Bytes] = {}
        first = 0
        for k in range(1, len(pictures) + 1):
            if k == len(pictures) or pictures[k] > pictures[k - 1] + 1 + GAP:
                out |= self._range_of(pictures[first], pictures[k - 1] + 1)
                first = k
        return out

    def _range_of(self, first: int, end: int) -> dict[int, Bytes]:
        for left in reversed(range(TRIES)):
            tokens = self._side_by_side(self._latents, self.token_bytes, first, end)
            scales = self._side_by_side(self._scale, self.scale_bytes, first, end)
            blocks = dict(zip(range(first, end), np.hstack([tokens, scales]), strict=True))
            bad = self._other_checksums(blocks)
            if not bad:
                return blocks
            if not left:
                raise self.other_checksum(*next(iter(bad.items())))
        raise AssertionError("not reached")

    def _side_by_side(self, start: int, size: int, first: int, end: int) -> npt.NDArray[np.uint8]:
        """[end - first, size] bytes of pictures in one tensor."""
        if not size:
            return np.empty((end - first, 0), np.uint8)
        data = self._source.range(self._where, start + first * size, (end - first) * size)
        return data.reshape(end - first, size)

    def _other_checksums(self, blocks: dict[int, Bytes]) -> dict[int, int]:
        if self._crc is None:
            return {}
        computed = {picture: picture_crc(block) for picture, block in blocks.items()}
        return {n: crc for n, crc in computed.items() if crc != int(self._crc[n])}

    @staticmethod
    def _take(blocks: dict[int, Bytes], pictures: Sequence[int], parts: Sequence[Parts]) -> None:
        for picture, part in zip(pictures, parts, strict=True):
            at = 0
            for each in part.all:
                each[...] = blocks[picture][at : at + each.nbytes]
                at += each.nbytes


def stored_latents(
    corpus: Path, place: LatentPlace, settings: LatentCacheSettings | None
) -> tuple[StoredLatents, LatentCacheSettings] | None:
    """What opens the latents of a run, without its cache, and the settings of that. None where files of the corpus's folder are read directly."""
    if place.store is not None:
        source = StoredLatents(store=place.store, name=place.name, copies=place.copies)
        return source, settings or LatentCacheSettings()
    if settings is None:
        return None
    real = corpus.resolve()
    return StoredLatents(store=FolderStore(real), name=str(real)), settings


def with_cache(
    source: StoredLatents, settings: LatentCacheSettings, place: LatentPlace, shape: LatentShape
) -> StoredLatents:
    """
    Raises:
        ConfigError: no folder is named, or see `BlockCache`.
    """
    folder = place.folder if settings.folder is None else Path(settings.folder).expanduser()
    if folder is None:
        raise ConfigError(
            "no folder for the cache of latents",
            remedy="set data.latent_cache.folder",
            where="recipe key data.latent_cache.folder",
        )
    num_tokens = shape.num_prefix + shape.num_patches
    cache = BlockCache(
        folder,
        max_bytes=int(settings.max_gb * 1e9),
        block_bytes=block_bytes_of(shape, num_tokens),
    )
    return replace(source, cache=cache)
