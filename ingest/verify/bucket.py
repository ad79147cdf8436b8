"""Objects of a bucket as files for as long as one check needs them. A cached copy does not prove that the object is sound."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ingest.corpus.shared_store import MOST_PACK_BYTES, SharedStore
from ingest.storage.local import within
from schemas.errors import Code, SourceError


@dataclass(frozen=True, slots=True)
class FetchedObjects:
    """Where `verify` of a bucket reads. `folder`: on a disk with room for what the threads look at, one episode or file each."""

    store: SharedStore
    folder: Path

    @contextmanager
    def files(self, sizes: Iterable[tuple[str, int | None]]) -> Iterator[Path]:
        """A folder with these objects, by their keys, and nothing else. One that is missing is missing there. One that is larger than it should
        be is as large there, without its bytes.

        Args:
            sizes: what they should have; None where that is not known.

        Raises:
            OutsideCorpus: a key leads out.
            TransientError: the store does not answer.
        """
        with tempfile.TemporaryDirectory(prefix="verify-", dir=self.folder) as name:
            root = Path(name)
            for key, num_bytes in sizes:
                self._fetch(root, key, num_bytes)
            yield root

    def _fetch(self, root: Path, key: str, num_bytes: int | None) -> None:
        path = within(root, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            most = MOST_PACK_BYTES if num_bytes is None else num_bytes
            self.store.get_file(key, path, max_bytes=most)
        except SourceError as error:
            if error.code is Code.TOO_LARGE:
                path.touch()
                os.truncate(path, self.store.size(key) or 0)
            elif error.code is not Code.MISSING_FILE:
                raise
