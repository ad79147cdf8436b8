"""Files of a corpus in a bucket, copied to the folder of its working copy. Their bytes are compared with what was committed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ingest.corpus.column_checks import check_fetched
from ingest.corpus.committed_files import CommittedFile
from ingest.corpus.shared_store import MOST_PACK_BYTES, SharedStore
from ingest.corpus.transfers import each_at_once
from ingest.storage.local import LocalStorage
from schemas.errors import PipelineError
from schemas.paths import within


class DamagedCopy(PipelineError):
    """An object of a bucket is not what was committed, or is gone."""

    exit_code = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketCopies:
    """Of one folder. `uri`: of the bucket, for messages."""

    root: Path
    store: SharedStore
    uri: str
    disk: LocalStorage

    def fetch(self, files: Iterable[CommittedFile]) -> int:
        """Copy files that are not here yet. The number of those that were copied. What a corpus names is a stranger's: nothing else is written.

        Raises:
            OutsideCorpus: one is no data, video or latents of a dataset, and no catalog file; none was copied.
            DamagedCopy: an object has other bytes than were committed.
            SourceError: it is not there.
        """
        files = list(dict.fromkeys(files))
        check_fetched(file.path for file in files)
        missing = [file for file in files if not self.has(file)]
        if missing:
            for folder in sorted({within(self.root, file.path).parent for file in missing}):
                self.disk.make_dir(folder)
            each_at_once(self._get_file, missing)
        return len(missing)

    def has(self, file: CommittedFile) -> bool:
        path = within(self.root, file.path)
        return path.is_file() and (file.is_pack or path.stat().st_size == file.num_bytes)

    def _get_file(self, file: CommittedFile) -> None:
        most = MOST_PACK_BYTES if file.num_bytes is None else file.num_bytes
        sha256 = self.store.get_file(file.path, within(self.root, file.path), max_bytes=most)
        if sha256 != file.sha256 and not file.is_pack:
            self.disk.remove(within(self.root, file.path))
            raise DamagedCopy(
                "the object has other bytes than were committed",
                remedy="restore the object from a copy of the corpus",
                where=f"{self.uri}/{file.path}",
            )
