"""Where every file of a corpus lies (design §4), and the check at opening that nothing but plain files and folders lies there."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingest.storage.file_tree import entries_below
from ingest.storage.local import LocalStorage, within
from ingest.storage.lock_file import open_lock
from ingest.storage.store import get_json
from ingest.storage.write_refusal import refused_write
from schemas.catalog import FORMAT_VERSION
from schemas.errors import ConfigError, SourceError
from schemas.json_text import JsonLimits
from schemas.lerobot import CHUNK_SIZE, DATA_PATH, VIDEO_PATH
from schemas.paths import refused

MARKER = "corpus.json"
LOCK = ".writer"
LINK = ".remote.json"  # of a working copy: ingest/corpus/working_copy.py
BUILD, BUILD_LOCK = (
    "build",
    ".builder",
)  # records of `eicorpus build`, and the lock of the one that runs
REPORT = "report.html"  # of `eicorpus report`; `forget` deletes it
MARKER_LIMITS = JsonLimits(max_bytes=1 << 16, max_elements=100)


@dataclass(frozen=True, slots=True)
class CorpusLayout:
    """Paths of one corpus."""

    root: Path

    @property
    def staging(self) -> Path:
        return self.root / "staging"

    @property
    def ledger(self) -> Path:
        return self.root / "ledger"

    @property
    def quarantine(self) -> Path:
        return self.root / "quarantine"

    def staging_dir(self, uid: str, work_digest: str) -> Path:
        """Where a worker puts an episode. The digest keeps two recipes apart."""
        return Path(f"{self.root}/staging/{uid}.{work_digest}")

    def path(self, relative: str) -> Path:
        """Where something lies that a catalog, a manifest or a folder's list names. Looked at now, so use it now.

        Raises:
            OutsideCorpus: it leads out of the corpus.
        """
        return within(self.root, relative)


def data_file(episode_index: int) -> str:
    """Path of an episode's rows inside its LeRobot dataset."""
    return DATA_PATH.format(episode_chunk=episode_index // CHUNK_SIZE, episode_index=episode_index)


def video_file(episode_index: int, video_key: str) -> str:
    """Path of one camera of an episode inside its LeRobot dataset."""
    return VIDEO_PATH.format(
        episode_chunk=episode_index // CHUNK_SIZE, episode_index=episode_index, video_key=video_key
    )


def open_corpus(path: Path) -> CorpusLayout:
    """An existing corpus: the one door, which decides what is inside. Everything below takes its paths from the `CorpusLayout`.

    Raises:
        ConfigError: `path` is no corpus, or one of a newer format.
        OutsideCorpus: something in it leads out of it.
    """
    marker = path / MARKER
    if not marker.is_file():
        raise ConfigError(
            f"not a corpus (no {MARKER})",
            remedy="pass a folder that `eicorpus ingest --out` created",
            where=str(path),
        )
    check_rooms(path)
    try:
        version = int(_created(path)["format_version"])
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            f"cannot be read: {error!r}",
            remedy="restore the file from a copy of the corpus",
            where=str(marker),
        ) from error
    if version > FORMAT_VERSION:
        problem = f"format {version}; this eicorpus reads up to format {FORMAT_VERSION}"
        raise ConfigError(problem, remedy="install a newer eicorpus", where=str(marker))
    return CorpusLayout(path)


def uid_of(corpus: CorpusLayout) -> str:
    """The identity of a corpus, by its marker; "" for one without.

    Raises:
        ConfigError: the marker cannot be read.
    """
    return str(_created(corpus.root).get("uid", ""))


def _created(root: Path) -> dict[str, Any]:
    """What the marker says."""
    try:
        return dict(get_json(LocalStorage(root), MARKER, limits=MARKER_LIMITS))
    except (ValueError, TypeError, SourceError) as error:
        raise ConfigError(
            f"cannot be read: {error!r}",
            remedy="restore the file from a copy of the corpus",
            where=str(root / MARKER),
        ) from error


def open_or_create(path: Path, *, uid: str, recipe_digest: str, disk: LocalStorage) -> CorpusLayout:
    """The corpus at `path`, made if the folder is absent or empty; `uid` names a new one.

    Raises:
        ConfigError: the folder holds something else, or cannot be written.
        TransientError: the disk is full.
    """
    if (path / MARKER).is_file():
        return open_corpus(path)
    try:
        disk.make_dir(path)
        if any(not entry.name.startswith(".") for entry in path.iterdir()):
            problem = f"the folder contains other files and no {MARKER}"
            raise ConfigError(problem, remedy="choose an empty or a new folder", where=str(path))
        marker = {"format_version": FORMAT_VERSION, "uid": uid, "created_by_recipe": recipe_digest}
        text = json.dumps(marker, indent=2) + "\n"
        # Nobody could go on from a corpus whose marker a power cut has emptied.
        disk.at(path).put(MARKER, text.encode(), is_durable=True)
    except OSError as error:
        raise refused_write(error, path) from error
    return CorpusLayout(path)


@contextmanager
def writer_lock(corpus: CorpusLayout) -> Iterator[None]:
    """Hold the corpus for one writer on this machine. The kernel lets go when the process dies, however it dies.

    It does not reach other machines: do not write to one corpus from two of them (docs/adr/020-one-writer-per-corpus.md).

    Raises:
        ConfigError: another process is writing.
    """
    handle = open_lock(corpus.root / LOCK)
    with _held(corpus, handle, "another eicorpus command is writing to this corpus"):
        yield


@contextmanager
def build_lock(corpus: CorpusLayout) -> Iterator[None]:
    """Hold the corpus for one `eicorpus build`, from its first target to its last; each stage also takes the writer's lock. The folder of
    the records exists.

    Raises:
        ConfigError: another build is running.
    """
    handle = open_lock(corpus.root / BUILD / BUILD_LOCK)
    with _held(corpus, handle, "another eicorpus build is running in this corpus"):
        yield


@contextmanager
def _held(corpus: CorpusLayout, handle: int, problem: str) -> Iterator[None]:
    with os.fdopen(handle, "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            holder = file.read(100).strip() or "unknown"
            raise ConfigError(
                f"{problem} (process {holder})",
                remedy="wait until it ends, or stop it",
                where=str(corpus.root),
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


# Folders that are not looked into, by their depth below the corpus: `*` any name.
_LEAVES = (
    "datasets/*/*/data/*",
    "datasets/*/*/videos/*/*",
    "datasets/*/*/latents/*/*/*",
    "staging/*",
    "cache/*/*",
    "manifests/_cache/*/*",
)


def check_rooms(root: Path) -> None:
    """Refuse a corpus in which a room is something else than a plain file or folder.

    Raises:
        OutsideCorpus: a link, a pipe, a socket or a device; or folders lie deeper in each other than any corpus has them.
    """
    for entry in entries_below(root, _is_leaf):
        if not (entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)):
            raise refused(Path(entry.path), entry.stat(follow_symlinks=False).st_mode)


def _is_leaf(relative: str) -> bool:
    parts = relative.split("/")
    return any(
        len(parts) == len(pattern)
        and all(want in ("*", part) for want, part in zip(pattern, parts, strict=True))
        for pattern in (leaf.split("/") for leaf in _LEAVES)
    )
