"""Objects of a corpus that last, by key: what code sees that reads and writes small ones whole.

A key is a path relative to the corpus, with `/` between names. An object appears whole or not at all. Nothing half written has a key.
`ingest.storage.local.LocalStorage` keeps them on a local disk, `ingest.storage.object_store.ObjectStore` in a bucket, and
`tests/ingest/test_store.py` states what any other one must do. What a library opens itself (videos, Parquet, memory maps) is a local
file: `LocalStorage.local_path`, or a copy by `Store.get_file`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from schemas.json_text import JsonLimits, parse_json


class Store(Protocol):
    """Every method raises `OutsideCorpus` for a key that leads out, or that names something other than an object."""

    def get(self, key: str, *, max_bytes: int) -> bytes:
        """All bytes of an object.

        Raises:
            SourceError: MISSING_FILE, or TOO_LARGE over `max_bytes`.
            TransientError: reading failed.
        """
        ...

    def range(self, key: str, start: int, length: int) -> bytes:
        """The bytes from `start` on, at most `length`. Fewer where the object ends. Raises as `get`."""
        ...

    def put(self, key: str, data: bytes, *, is_durable: bool = False) -> None:
        """Make or replace an object: readers see the old one or the new one.

        It survives a power cut after the next `sync`, or with `is_durable` when this returns.
        """
        ...

    def create(self, key: str, data: bytes) -> bool:
        """Make an object only if there is none. False when there is one. It survives a power cut when this returns.

        Raises:
            UnknownOutcome: no answer came, so the object may be there with these bytes.
        """
        ...

    def size(self, key: str) -> int | None:
        """Bytes of an object, None where there is none."""
        ...

    def copy(self, source_key: str, target_key: str) -> None:
        """Make or replace an object by the bytes of another, without moving them through this machine where the store can.

        Survives as `put`.

        Raises:
            SourceError: MISSING_FILE for the source.
            TransientError: copying failed.
        """
        ...

    def put_file(self, key: str, path: Path) -> None:
        """As `put`, of a local file of any size. Raises as `open_regular` for the file."""
        ...

    def get_file(self, key: str, path: Path, *, max_bytes: int | None = None) -> str:
        """Make or replace a local file by the bytes of an object. Returns their SHA-256.

        The file appears whole or not at all, also where several processes make the same one. Its folder exists.

        Raises:
            SourceError: MISSING_FILE, or TOO_LARGE over `max_bytes`.
            TransientError: reading failed, or the object was replaced meanwhile.
        """
        ...

    def list(self, prefix: str, *, after: str | None = None) -> Sequence[str]:
        """Keys of the objects below the folder `prefix`, at any depth, sorted. All keys for "".

        Args:
            after: only keys that sort behind this one, which need not exist.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove an object. One that is not there is no error. Survives as `put`."""
        ...

    def sync(self) -> None:
        """Make everything done so far survive a power cut.

        Raises:
            OSError: some of it is lost. Nothing that relies on it may be published.
        """
        ...


class Gettable(Protocol):
    """What gives an object by its key, as `Store.get`."""

    def get(self, key: str, *, max_bytes: int) -> bytes: ...


def get_json(store: Gettable, key: str, *, limits: JsonLimits) -> Any:
    """The value of a JSON object.

    Raises:
        DocumentError: as `parse_json`.
        OutsideCorpus, SourceError, TransientError: as `Store.get`.
    """
    data = store.get(key, max_bytes=limits.max_bytes)
    try:
        return parse_json(data, limits=limits)
    except MemoryError as error:
        error.add_note(f"reading {key}")
        raise
