"""Raw data at a URI: a picklable description, by which every process opens the same local tree."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ingest.raw_data.object_cache import ObjectCache
from ingest.raw_data.object_parts import open_parts
from ingest.raw_data.object_tree import BucketListing, StoredObject, list_objects
from ingest.storage.object_store import ObjectStore
from schemas.errors import TransientError
from schemas.regular_file import fetching

# Read while a run is planned: fetched at once, and not one by one.
METADATA = frozenset(
    [
        *(".csv", ".json", ".jsonl", ".md", ".toml", ".tsv", ".txt", ".xml"),
        *(".yaml", ".yml"),
    ]
)
MAX_METADATA_BYTES = 8 << 20  # of one file
METADATA_SHARE = 4  # metadata takes at most this part of the cache
FETCHED_AT_ONCE = 16

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketSource:
    """The URI of raw data, and the cache of the machine that reads it."""

    uri: str
    folder: str  # of the cache
    max_bytes: int
    tree: str  # of the objects as they were listed
    root: str  # of the local tree
    is_file: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedBucket:
    """A source whose tree is there, and what was listed."""

    source: BucketSource
    num_objects: int
    num_bytes: int
    metadata: tuple[str, ...]  # keys to fetch before planning


def listed(uri: str, folder: Path, max_bytes: int) -> ListedBucket:
    """List the objects at a URI and make their tree.

    Raises:
        ConfigError: nothing is there, a key cannot be a file, or the cache folder cannot be used.
        TransientError: the store or the disk fails.
    """
    _, listing = list_objects(uri)
    own = _cache_in(str(folder.resolve()), max_bytes)
    own.add_tree(listing, uri)
    source = BucketSource(
        uri=uri,
        folder=str(own.folder),
        max_bytes=max_bytes,
        tree=listing.tree,
        root=str(own.root_of(listing)),
        is_file=listing.is_file,
    )
    return ListedBucket(
        source=source,
        num_objects=len(listing.objects),
        num_bytes=listing.num_bytes,
        metadata=tuple(each.key for each in _metadata(listing, max_bytes)),
    )


def fetch_metadata(bucket: ListedBucket, progress: Progress = lambda files: None) -> None:
    """Fetch what planning reads, several files at a time."""
    opened = _opened(bucket.source)
    with ThreadPoolExecutor(FETCHED_AT_ONCE) as pool:
        paths = [Path(bucket.source.root, key) for key in bucket.metadata]
        for done, _ in enumerate(pool.map(opened.fetch, paths), 1):
            progress(done)
    opened.cache.unpin()


@contextmanager
def reading(source: BucketSource | None) -> Iterator[None]:
    """While the block runs, a file of the source is fetched when it is opened; after it, what was used may be evicted.

    Raises:
        TransientError: the objects are not those that were listed.
    """
    if source is None:
        yield
        return
    opened = _opened(source)
    with fetching(opened):
        try:
            yield
        finally:
            opened.cache.unpin()


def let_go(source: BucketSource | None) -> None:
    """Let what this process has used be evicted, also within `reading`: it may be what worker processes need room for."""
    if source is not None:
        _opened(source).cache.unpin()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    """A source in this process."""

    source: BucketSource
    store: ObjectStore
    cache: ObjectCache
    lock: int

    def fetch(self, path: Path) -> None:
        full = os.path.abspath(path)
        key = self._key(full)
        if key is not None:
            self.cache.use(self.store, self.source.tree, Path(full), key)

    def open_parts(self, path: Path, end: int | None) -> io.RawIOBase | None:
        full = os.path.abspath(path)
        key = self._key(full)
        if key is None:
            return None
        return open_parts(self.cache, self.store, self.source.tree, Path(full), key, end)

    def _key(self, full: str) -> str | None:
        root = self.source.root
        if self.source.is_file:
            return os.path.basename(root) if full == root else None
        return full[len(root) + 1 :] if full.startswith(f"{root}{os.sep}") else None


@cache
def _cache_in(folder: str, max_bytes: int) -> ObjectCache:
    return ObjectCache(Path(folder), max_bytes)


@cache
def _opened(source: BucketSource) -> _Opened:
    own = _cache_in(source.folder, source.max_bytes)
    lock = own.hold(source.tree)
    if own.has_tree(source.tree):
        store = _store_of(source)
    else:  # another machine than the one that planned
        store, listing = list_objects(source.uri)
        if listing.tree != source.tree:
            os.close(lock)
            message = "the objects have changed since the run was planned"
            raise TransientError(message, remedy="run the same command again", where=source.uri)
        own.add_tree(listing, source.uri)
    return _Opened(source=source, store=store, cache=own, lock=lock)


def _store_of(source: BucketSource) -> ObjectStore:
    uri = source.uri.rstrip("/")
    return ObjectStore(uri.rpartition("/")[0] if source.is_file else uri)


def _metadata(listing: BucketListing, max_bytes: int) -> list[StoredObject]:
    """Small text files, where they are a small part of the cache."""
    small = [
        each
        for each in listing.objects
        if 0 < each.size <= MAX_METADATA_BYTES and Path(each.key).suffix.lower() in METADATA
    ]
    return small if sum(each.size for each in small) <= max_bytes // METADATA_SHARE else []
