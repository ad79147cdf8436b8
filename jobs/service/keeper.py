"""Which snapshot is served: the newest one that has a cache, and the one before it for requests that began there.

A newer snapshot is noticed by polling; its cache is built in a process of its own while the older one is served. A snapshot that the corpus
no longer has (`forget`, `gc`) is not served from then on, and its cache is deleted.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pyarrow as pa

from ingest.corpus import snapshot
from ingest.corpus.dataset_info import read_info
from ingest.corpus.layout import open_corpus
from ingest.corpus.snapshot_list import snapshot_path
from jobs.service.bucket_files import BucketFiles
from jobs.service.byte_cache import ByteCache
from jobs.service.cache_build import build_cache
from jobs.service.cache_key import key_of
from jobs.service.errors import ApiError
from jobs.service.selection import EpisodeMasks
from jobs.service.sheet_store import SheetStore
from jobs.service.snapshot_cache import SnapshotCache
from schemas.errors import ConfigError, PipelineError, SourceError, system_error_text
from schemas.latent_header import Span, span_of
from schemas.lerobot import Info
from schemas.paths import within

POLL_S = 2.0
HELD = 2  # caches that are open
RETRY_S = 30.0  # after which a build that failed is tried again
Stamp = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, weakref_slot=True, kw_only=True, eq=False)
class Served:
    """One snapshot that can be asked. `stamp` is of its file: another corpus at the same path has another. Its answers go with it: rows of an
    erased episode must not outlive it in them.
    """

    cache: SnapshotCache
    selection: EpisodeMasks
    stamp: Stamp | None
    answers: ByteCache = field(default_factory=ByteCache)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingState:
    """What is served and what is not yet. `problem`: why the last build failed."""

    held: tuple[Served, ...] = ()
    newest: int = 0
    is_building: bool = False
    problem: str = ""


class Keeper:
    """`refresh` is called by one thread; everything else by any."""

    def __init__(
        self,
        corpus: Path,
        state: Path,
        clock: Callable[[], float],
        files: BucketFiles | None = None,
    ) -> None:
        """
        Args:
            state: a folder outside of the corpus, of this corpus alone.
            files: of a corpus in a bucket, which `corpus` is the working copy of.
        """
        self.corpus, self.folder, self._clock, self.files = corpus, state, clock, files
        self.sheets = SheetStore(state)
        self.state = ServingState()
        self._build: _Build | None = None
        self._retry_at_s = 0.0
        self._tried: tuple[int, Stamp | None] | None = None

    def at(self, number: int | None = None) -> Served:
        """What answers a request.

        Raises:
            ApiError: 503 while there is no cache yet, 410 for a snapshot that is not held any more.
        """
        held = self.state.held
        if not held:
            detail = (
                f"; the last attempt failed: {self.state.problem}" if self.state.problem else ""
            )
            raise ApiError(
                503,
                "building",
                f"the service reads snapshot {self.state.newest} for the first time{detail}",
                remedy="try again in a few seconds",
                headers={"Retry-After": "2"},
            )
        if number is None:
            return held[0]
        for each in held:
            if each.cache.snapshot == number:
                return each
        have = ", ".join(str(each.cache.snapshot) for each in held)
        raise ApiError(410, "snapshot_gone", f"snapshot {number} is not served; it serves {have}")

    def fetch(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Have the files here that rows of the catalog name. Raises as `BucketFiles.fetch`."""
        if self.files is not None:
            self.files.fetch(rows)

    @contextmanager
    def latents(self, row: Mapping[str, Any]) -> Iterator[tuple[Path, Span | None]]:
        """As `BucketFiles.latents`; of a local corpus, the file that is there."""
        if self.files is None:
            yield within(self.corpus, row["path"]), span_of(row["pack_offset"], row["num_bytes"])
            return
        with self.files.latents(row) as held:
            yield held

    def info(self, dataset_path: str, number: int) -> Info:
        """`meta/info.json` of a dataset of a snapshot.

        Raises:
            ConfigError: it cannot be read.
        """
        if self.files is not None:
            return self.files.info(self.corpus, dataset_path, number)
        return read_info(self.corpus, dataset_path)

    def refresh(self) -> None:
        """Look at the corpus once: open, build or drop what has to be.

        Raises:
            ConfigError, OSError: the corpus cannot be read.
        """
        known = snapshot.numbers(self.corpus)
        newest = known[-1] if known else 0
        held = tuple(each for each in self.state.held if self._is_current(each))
        if len(held) < len(self.state.held):
            self._publish(held, newest)
        stamp = self._stamp(newest)
        if not held or held[0].cache.snapshot != newest:
            self._advance(newest, stamp)
        self._publish(self.state.held, newest)

    def _advance(self, newest: int, stamp: Stamp | None) -> None:
        """One step towards the cache of the newest snapshot."""
        if self._build is not None:
            if self._build.is_running:
                return
            problem = self._build.problem()
            self._build = None
            if problem:
                self.state = ServingState(held=self.state.held, newest=newest, problem=problem)
                self._retry_at_s = self._clock() + RETRY_S
                return
            built = self._tried
            if built is not None and built != (newest, stamp):
                # The corpus went on meanwhile: what was built is newer than what is served, and the newest is next.
                if self._stamp(built[0]) == built[1]:
                    self._open_of(*built, newest=newest)
                return
        if self._open_of(newest, stamp, newest=newest):
            return
        if self._tried != (newest, stamp) or self._clock() >= self._retry_at_s:
            self._tried = (newest, stamp)
            self._build = _Build(self.corpus, self.folder, newest or None)

    def _open_of(self, number: int, stamp: Stamp | None, *, newest: int) -> bool:
        """Open the cache of a snapshot if there is one. True too where the snapshot was erased: the next look finds its successor."""
        try:
            current = snapshot.load(self.corpus, number or None)
            folder = self.folder / key_of(self.corpus, current).folder
        except SourceError:
            return True
        if folder.is_dir():
            self._open(folder, newest, stamp)
            return True
        return False

    def _open(self, folder: Path, newest: int, stamp: Stamp | None) -> None:
        try:
            cache = SnapshotCache(folder)
        except ConfigError as error:
            shutil.rmtree(folder, ignore_errors=True)  # it is derived, so it is built again
            self.state = ServingState(held=self.state.held, newest=newest, problem=error.message)
            return
        served = Served(cache=cache, selection=EpisodeMasks(cache), stamp=stamp)
        self._publish((served, *self.state.held)[:HELD], newest)

    def _publish(self, held: tuple[Served, ...], newest: int) -> None:
        before = self.state.held
        is_building = self._build is not None and self._build.is_running
        problem = "" if held and held[0].cache.snapshot == newest else self.state.problem
        self.state = ServingState(
            held=held, newest=newest, is_building=is_building, problem=problem
        )
        if held != before:
            self._sweep()

    def _sweep(self) -> None:
        """Delete caches of snapshots that are not held, and contact sheets of no episode: nothing of an erased episode outlives it here."""
        kept = {each.cache.folder for each in self.state.held}
        if self.state.held:
            self.sheets.keep(pa.chunked_array([each.cache.uids for each in self.state.held]))
        for folder in self.folder.glob("[0-9]*-*"):
            if folder not in kept:
                shutil.rmtree(folder, ignore_errors=True)

    def _is_current(self, served: Served) -> bool:
        return self._stamp(served.cache.snapshot) == served.stamp

    def _stamp(self, number: int) -> Stamp | None:
        if number == 0:
            return None
        try:
            status = os.stat(snapshot_path(self.corpus, number), follow_symlinks=False)
        except FileNotFoundError:
            return (0, 0, 0, 0)
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns

    def watch(self, stop: threading.Event, report: Callable[[str], None]) -> None:
        """`refresh` until `stop`. What the corpus cannot do now is reported once, and asked again."""
        reported = ""
        while not stop.is_set():
            try:
                self.refresh()
                problem = self.state.problem
            except (PipelineError, OSError) as error:
                problem = system_error_text(error) if isinstance(error, OSError) else str(error)
                self.state = ServingState(
                    held=self.state.held, newest=self.state.newest, problem=problem
                )
            if problem and problem != reported:
                report(problem)
            reported = problem
            stop.wait(POLL_S if self._build is None else POLL_S / 10)

    def close(self) -> None:
        """End a build that runs."""
        if self._build is not None:
            self._build.stop()


class _Build:
    """The build of one cache, in a process of its own: its memory and its time are not the server's."""

    def __init__(self, corpus: Path, state: Path, number: int | None) -> None:
        context = multiprocessing.get_context("spawn")
        self._reports, other = context.Pipe(duplex=False)
        self._process: BaseProcess = context.Process(
            target=_build, args=(corpus, state, number, other), daemon=True
        )
        self._process.start()
        other.close()

    @property
    def is_running(self) -> bool:
        return self._process.is_alive()

    def problem(self) -> str:
        """Why it failed; "" where it did not."""
        self._process.join()
        if self._reports.poll():
            try:
                return str(self._reports.recv())
            except EOFError:
                pass
        return f"the process ended with exit code {self._process.exitcode}"

    def stop(self) -> None:
        self._process.terminate()
        self._process.join()


def _build(corpus: Path, state: Path, number: int | None, reports: Connection) -> None:
    """What the process does: report "" or the problem."""
    try:
        build_cache(corpus, state, number)
    except PipelineError as error:
        reports.send(error.message)
    except OSError as error:
        reports.send(system_error_text(error))
    else:
        reports.send("")


def state_folder(base: Path, corpus: Path) -> Path:
    """The folder of a corpus below the one of all.

    Raises:
        ConfigError: it would lie in the corpus.
    """
    root = corpus.resolve()
    name = hashlib.sha256(str(root).encode()).hexdigest()[:16]
    folder = base.resolve() / name
    if folder.is_relative_to(root):
        raise ConfigError(
            "is inside the corpus; expected a path outside of it", where=f"--state {base}"
        )
    open_corpus(root)
    return folder
