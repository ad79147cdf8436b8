"""A corpus or an export that is pushed to a bucket. A corpus there is one that several machines may write to (`ingest.corpus.working_copy`)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ingest.export.hub import Progress, Stored
from ingest.storage.local import LocalStorage
from ingest.storage.object_store import ObjectStore
from ingest.storage.open_store import probe
from schemas.errors import InvariantError

AT_ONCE = 16  # uploads


class Bucket:
    """A place below a bucket, as a `Hub`. Rights are the bucket's own, so `is_private` says nothing."""

    def __init__(self, store: ObjectStore) -> None:
        self.store, self.address = store, str(store.uri)
        self._tags: Mapping[str, str] = {}

    def look(self) -> Stored | None:
        entries = list(self.store.entries(""))
        self._tags = {each["key"]: str(each["e_tag"] or "").strip('"') for each in entries}
        files = {each["key"]: each["size"] for each in entries}
        return Stored(files=files, is_private=True) if files else None

    def create(self, *, is_private: bool) -> None:
        probe(self.store)

    def upload(self, folder: Path, names: Sequence[str], progress: Progress) -> None:
        """Files whose MD5 is that of the object, which S3 says of objects that were sent in one request, are there already."""
        disk = LocalStorage(folder.absolute())

        def send(name: str) -> None:
            path = disk.local_path(name)
            if self._tags.get(name) != _md5(disk, path):
                self.store.put_file(name, path)

        with ThreadPoolExecutor(AT_ONCE) as pool:
            for done, sent in enumerate([pool.submit(send, name) for name in names], 1):
                sent.result()
                progress(done)

    def finish(self, folder: Path, marker: str, card: str, deleted: Sequence[str]) -> None:
        for name in deleted:
            self.store.delete(name)
        self.store.put_file(marker, LocalStorage(folder.absolute()).local_path(marker))

    def download(
        self, stored: Stored, names: Sequence[str], marker: str, folder: Path, progress: Progress
    ) -> None:
        raise InvariantError("a corpus in a bucket is copied by its commit log")

    def read(self, stored: Stored, name: str) -> bytes:
        return self.store.get(name, max_bytes=stored.files[name])

    def differing(self, stored: Stored, names: Sequence[str], folder: Path) -> list[str]:
        return list(names)


def _md5(disk: LocalStorage, path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with disk.reading(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
