"""A store by its path or URI, and what it must be able to do."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from ingest.storage.local import LocalStorage
from ingest.storage.object_store import ObjectStore
from ingest.storage.store import Store
from ingest.storage.store_uri import OBJECT_SCHEMES, object_store_uri, scheme_of, schemes_remedy
from schemas.errors import ConfigError, SourceError, TransientError


def open_store(uri: str | Path) -> Store:
    """The store at a local path, a `file://` URI or the URI of a bucket. Nothing is created or requested yet.

    Raises:
        ConfigError: an unknown scheme, or a URI that names no bucket or holds a password.
    """
    scheme = scheme_of(str(uri))
    if not scheme:
        return LocalStorage(Path(uri).absolute())
    if scheme == "file":
        return LocalStorage(Path(_path_of_file_uri(str(uri))))
    if scheme not in OBJECT_SCHEMES:
        raise ConfigError(f"{scheme}:// is no known kind of store", remedy=schemes_remedy())
    return ObjectStore(object_store_uri(str(uri)))


class Creates(Protocol):
    """What a probe tries of a `Store`."""

    def create(self, key: str, data: bytes) -> bool: ...
    def get(self, key: str, *, max_bytes: int) -> bytes: ...
    def delete(self, key: str) -> None: ...


def probe(store: Creates) -> None:
    """Try what a commit relies on, before any work: of two creates of one object, the second is refused. Leaves nothing behind.

    Raises:
        ConfigError: the store replaced the object, as some that speak the protocol of S3 do, which ignore If-None-Match.
        TransientError, OSError: it cannot be written now.
    """
    key = f".probe-{secrets.token_hex(8)}"
    try:
        answers = [store.create(key, b"1"), store.create(key, b"2")]
        stored = store.get(key, max_bytes=1)
    finally:
        store.delete(key)
    if answers != [True, False] or stored != b"1":
        raise ConfigError(
            "the store replaces an object where it must refuse to (If-None-Match is ignored)",
            remedy="use a store with conditional writes: two writers would overwrite each other here",
        )


class CopiesObjects(Creates, Protocol):
    """What `probe_copies` tries of a store."""

    def create_copy(self, source_key: str, target_key: str) -> bool: ...
    def delete_all(self, keys: Sequence[str]) -> None: ...


def probe_copies(store: CopiesObjects, folder: str) -> None:
    """Try what a commit of uploaded episodes relies on: a copy within the bucket is refused where an object is. Leaves nothing behind.

    Raises:
        ConfigError: the store replaced the object, or cannot copy.
        TransientError: it does not answer.
    """
    keys = [f"{folder}/{name}" for name in ("probe", "probe-copy", "probe-other")]
    try:
        store.create(keys[0], b"1")
        store.create(keys[2], b"2")
        answers = [store.create_copy(keys[0], keys[1]), store.create_copy(keys[2], keys[1])]
        stored = store.get(keys[1], max_bytes=1)
    except SourceError as error:
        raise TransientError(
            "`eicorpus gc` has removed what was tried",
            remedy="run the same command again",
            where=folder,
        ) from error
    finally:
        store.delete_all(keys)
    if answers != [True, False] or stored != b"1":
        raise ConfigError(
            "the store replaces an object by a copy where it must refuse to",
            remedy="work without --ray: then the driver uploads, and nothing is copied",
        )


def _path_of_file_uri(uri: str) -> str:
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
        problem = "a file:// URI with a host, a query or a fragment"
        raise ConfigError(problem, remedy="use file:///PATH or a plain path")
    return unquote(parts.path)
