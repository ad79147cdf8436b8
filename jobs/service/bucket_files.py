"""A corpus in a bucket as the service shows it: its log is read again and again, and a file is fetched when it is looked at."""

from __future__ import annotations

import hashlib
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from ingest.corpus import lerobot_meta, snapshot
from ingest.corpus.bucket_copies import DamagedCopy
from ingest.corpus.commit import datasets_without_episodes
from ingest.corpus.committed_files import CommittedFile
from ingest.corpus.dataset_info import INFO, read_info
from ingest.corpus.shared_manifests import fetch_manifests
from ingest.corpus.shared_store import MOST_PACK_BYTES
from ingest.corpus.working_copy import WorkingCopy
from ingest.storage.store import Store
from jobs.service.errors import ApiError
from schemas.errors import Code, PipelineError, SourceError
from schemas.latent_header import Span, span_of
from schemas.lerobot import Info
from schemas.paths import within

PIECE_BYTES = 8 << 20  # of one request, and in memory
REFRESH_S = 10.0  # after which a commit of another machine is in the working copy


class BucketFiles:
    """`watch` is called by one thread; everything else by any."""

    def __init__(self, copy: WorkingCopy) -> None:
        self._copy = copy  # of `watch`
        self._of_thread = threading.local()
        # Of two requests for parts of one video, one fetches it.
        self._locks = [threading.Lock() for _ in range(32)]
        self._infos: dict[str, Info] = {}

    def fetch(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Copy files that rows of `artifacts` or `latents` name.

        Raises:
            ApiError: 404, an object is missing or damaged.
            TransientError: the store does not answer.
        """
        for row in rows:
            path, is_pack = row["path"], row.get("pack_offset") is not None
            if not path or row["num_bytes"] is None:
                continue  # damaged: who opens the file says so
            file = CommittedFile(path, None if is_pack else row["num_bytes"], row["sha256"] or "")
            try:
                with self._locks[hash(path) % len(self._locks)]:
                    self._own_copy().fetch_files([file])
            except SourceError as error:
                raise ApiError(404, error.code, error.message, where=path) from error
            except DamagedCopy as error:
                raise ApiError(404, Code.UNREADABLE, error.message, where=path) from error

    @contextmanager
    def latents(self, row: Mapping[str, Any]) -> Iterator[tuple[Path, Span | None]]:
        """The file of a row of `latents` while the block runs, and where it lies in a pack: of a pack that is not here, only this file is copied.

        Raises:
            ApiError: 404, an object is missing or damaged.
            SourceError: a member of a pack is.
            TransientError: the store does not answer.
        """
        span = span_of(row["pack_offset"], row["num_bytes"])
        path = within(self._copy.root, row["path"])
        if span is None or path.is_file():
            self.fetch([row] if span is None else [])
            yield path, span
            return
        with tempfile.NamedTemporaryFile(prefix="eicorpus-latents-") as file:
            self._copy_member(row["path"], span, row["sha256"] or "", file)
            yield Path(file.name), None

    def _copy_member(self, pack: str, span: Span, sha256: str, file: IO[bytes]) -> None:
        if span.start < 0 or not 0 < span.num_bytes <= MOST_PACK_BYTES:
            problem = f"the catalog names {span.num_bytes} bytes at {span.start} of a pack"
            raise SourceError(Code.UNREADABLE, problem, where=pack)
        store, digest = cast(Store, self._copy.store), hashlib.sha256()
        for at in range(0, span.num_bytes, PIECE_BYTES):
            num_bytes = min(PIECE_BYTES, span.num_bytes - at)
            piece = store.range(pack, span.start + at, num_bytes)
            digest.update(piece)
            if len(piece) < num_bytes:
                break
            file.write(piece)
        file.flush()
        if digest.hexdigest() != sha256:
            problem = "the pack has other bytes there than were committed"
            raise SourceError(Code.UNREADABLE, problem, where=pack)

    def _own_copy(self) -> WorkingCopy:
        """Of this thread: threads may not share the disk of one."""
        if not hasattr(self._of_thread, "copy"):
            self._of_thread.copy = WorkingCopy(self._copy.root, self._copy.store)
        copy: WorkingCopy = self._of_thread.copy
        return copy

    def info(self, corpus: Path, dataset_path: str, number: int) -> Info:
        """`meta/info.json` of a dataset, by the catalog: a working copy has only those of datasets that it writes.

        Raises:
            ConfigError: the catalog does not describe it.
        """
        file = within(corpus, f"{dataset_path}/{INFO}")
        if dataset_path not in self._infos and file.is_file():
            self._infos[dataset_path] = read_info(corpus, dataset_path)
        if dataset_path not in self._infos:
            for path, dataset in datasets_without_episodes(
                corpus, snapshot.load(corpus, number or None)
            ).items():
                self._infos.setdefault(path, lerobot_meta.info_of(dataset))
        if dataset_path not in self._infos:
            raise ApiError(404, Code.UNREADABLE, "the catalog does not describe this dataset")
        return self._infos[dataset_path]

    def watch(self, stop: threading.Event, report: Callable[[str], None]) -> None:
        """Bring the working copy up to date until `stop`. What does not work is reported once, and tried again."""
        reported = ""
        while not stop.wait(REFRESH_S):
            try:
                self._copy.refresh()
                fetch_manifests(self._copy)
                reported = ""
            except Exception as error:  # noqa: BLE001  the service would show old states without this thread
                is_known = isinstance(error, PipelineError | OSError)
                text = str(error) if is_known else f"{type(error).__name__}: {error}"
                problem = f"{self._copy.link.uri}: {text}"
                if problem != reported:
                    report(problem)
                reported = problem
