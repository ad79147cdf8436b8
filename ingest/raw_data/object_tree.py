"""The objects below a URI, and a local tree with a placeholder of the true size for each."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingest.storage.file_tree import MAX_DEPTH
from ingest.storage.object_store import ObjectStore
from ingest.storage.store_uri import StoreUri, object_store_uri
from schemas.errors import ConfigError, SourceError
from schemas.paths import OutsideCorpus, key_names
from schemas.regular_file import PLACEHOLDER_MTIME_NS, is_placeholder

MAX_OBJECTS = 5_000_000
MAX_NAME_BYTES = 255  # of one name on the file systems of Linux


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object as it was listed."""

    key: str  # below the root
    size: int
    e_tag: str  # "" where the store gives none


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketListing:
    """The objects of one raw dataset. `tree` names their contents: the same objects have the same one."""

    tree: str
    name: str  # of the root: the last name of the URI
    objects: Sequence[StoredObject]
    is_file: bool = False  # the URI names one object

    @property
    def num_bytes(self) -> int:
        return sum(each.size for each in self.objects)


def list_objects(uri: str) -> tuple[ObjectStore, BucketListing]:
    """The store at the root of a tree, and what is there.

    Raises:
        ConfigError: nothing is there, or a key cannot be the name of a local file.
        TransientError: the store does not respond.
    """
    place = object_store_uri(uri)
    store = ObjectStore(place)
    try:
        objects = [
            StoredObject(each["key"], each["size"], each["e_tag"] or "")
            for each in _at_most(store.entries())
        ]
    except SourceError as error:
        raise ConfigError(
            f"the bucket holds a key that is no path: {error.message}",
            remedy="rename or delete the object",
            where=str(place),
        ) from error
    if not objects and place.prefix:
        return _one_object(place)
    files = _files(objects, place)
    if not files:
        raise ConfigError("no object is there", remedy="correct the URI", where=str(place))
    name = place.prefix.rpartition("/")[2] or place.bucket
    return store, BucketListing(tree=_digest(place, files), name=name, objects=files)


def make_tree(root: Path, objects: Sequence[StoredObject], *, is_file: bool) -> None:
    """Placeholders of all objects below a new folder, or one at the path itself.

    Raises:
        ConfigError: the file system cannot hold them.
    """
    if is_file:
        make_placeholder(root, objects[0].size)
        return
    folders: set[str] = set()
    for each in objects:
        folder, _, _ = each.key.rpartition("/")
        if folder not in folders:
            (root / folder).mkdir(parents=True, exist_ok=True)
            folders.add(folder)
        make_placeholder(root / each.key, each.size)


def make_placeholder(path: Path, size: int) -> None:
    """A sparse file of this size that only `schemas.regular_file` opens, by fetching it. An empty object is an empty file.

    Raises:
        ConfigError: the file system cannot hold it.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            if size == 0:
                return
            os.truncate(handle, size)
            os.utime(handle, ns=(PLACEHOLDER_MTIME_NS, PLACEHOLDER_MTIME_NS))
            os.chmod(handle, 0)
            if not is_placeholder(os.fstat(handle)):
                raise OSError(errno.EOPNOTSUPP, "it keeps no nanoseconds of modification times")
        finally:
            os.close(handle)
    except FileExistsError as error:
        problem = "two keys differ in case only, which this file system ignores"
        raise ConfigError(problem, remedy="use another cache folder", where=str(path)) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        problem = f"the cache cannot hold a file of {size} bytes: {error.strerror}"
        raise ConfigError(problem, remedy="use another cache folder", where=str(path)) from error


def _at_most(entries: Iterable[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    for number, entry in enumerate(entries):
        if number >= MAX_OBJECTS:
            message = f"more than {MAX_OBJECTS:,} objects"
            raise ConfigError(message, remedy="name a folder with fewer of them")
        yield entry


def _one_object(place: StoreUri) -> tuple[ObjectStore, BucketListing]:
    above, _, name = place.prefix.rpartition("/")
    store = ObjectStore(
        StoreUri(scheme=place.scheme, bucket=place.bucket, prefix=above, account=place.account)
    )
    entry = store.entry(name)
    if entry is None:
        raise ConfigError("no object is there", remedy="correct the URI", where=str(place))
    objects = [StoredObject(name, entry["size"], entry["e_tag"] or "")]
    listing = BucketListing(tree=_digest(place, objects), name=name, objects=objects, is_file=True)
    return store, listing


def _files(objects: Sequence[StoredObject], place: StoreUri) -> list[StoredObject]:
    """Objects that are files. Consoles mark a folder by an empty object of its name."""
    folders: set[str] = set()
    for each in objects:
        parts = _checked(each.key, place)
        folders.update("/".join(parts[:depth]) for depth in range(1, len(parts)))
    for each in objects:
        if each.key in folders and each.size:
            message = f"{each.key!r} is an object and a folder"
            raise ConfigError(message, remedy="rename or delete the object", where=str(place))
    kept = (each for each in objects if each.key not in folders)
    return sorted(kept, key=lambda each: each.key)


def _checked(key: str, place: StoreUri) -> list[str]:
    try:
        names = key_names(key, where=str(place))
    except OutsideCorpus as error:
        raise ConfigError(error.message, where=str(place)) from error
    too_long = any(len(name.encode()) > MAX_NAME_BYTES for name in names)
    if too_long or len(names) > MAX_DEPTH:
        message = f"{key[:200]!r} is no path of this machine: its names are too long or too many"
        raise ConfigError(message, remedy="rename or delete the object", where=str(place))
    return names


def _digest(place: StoreUri, objects: Sequence[StoredObject]) -> str:
    digest = hashlib.sha256(f"{place}\n".encode())
    for each in objects:
        digest.update(f"{each.key}\0{each.size}\0{each.e_tag}\n".encode())
    return digest.hexdigest()[:32]
