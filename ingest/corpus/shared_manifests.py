"""Published manifests of a corpus in a bucket: from there to its working copy, and back, without the episodes that were erased meanwhile."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from ingest.corpus import snapshot
from ingest.corpus.commit_log import Conflict
from ingest.corpus.known_files import is_known
from ingest.corpus.manifest_folders import manifest_names
from ingest.corpus.shared_store import MOST_TRIES
from ingest.corpus.working_copy import WorkingCopy
from schemas.errors import ConfigError, SourceError, UnknownOutcome
from schemas.manifest import (
    ERASED_FILE,
    FACTS_FILE,
    NEWEST_FILE,
    REDACTION_FILE,
    ROWS_FILE,
    VERSION_NAME,
    load_facts,
)
from schemas.manifest import FOLDER as MANIFESTS
from schemas.paths import within

MOST_MANIFEST_BYTES = 4 << 30


def fetch_manifests(copy: WorkingCopy) -> None:
    """Copy published manifests, and the states that they were built from. Other objects below `manifests/` are left there."""
    for key in copy.store.list(MANIFESTS):
        path = within(copy.root, key)
        if is_known(key) and (path.name == NEWEST_FILE or not path.exists()):
            copy.disk.make_dir(path.parent)
            copy.store.get_file(key, path, max_bytes=MOST_MANIFEST_BYTES)
    for name in manifest_names(copy.root):
        with suppress(ConfigError):  # a damaged page is for those who open the manifest
            copy.keep_state(load_facts(within(copy.root, f"{MANIFESTS}/{name}")).snapshot)


def share_manifest(copy: WorkingCopy, folder: Path, built_from: int) -> None:
    """Upload a manifest that was published here. Its page comes last. It loses what was erased since the state that it was built from.

    Raises:
        Conflict: another machine has published another one of this name.
        UnknownOutcome: the store does not answer. Build it again: nothing is computed anew.
    """
    before = snapshot.load(copy.root, built_from).content("tombstones")
    page = (folder / FACTS_FILE).relative_to(copy.root).as_posix()
    is_version = VERSION_NAME.fullmatch(folder.name) is not None
    paths = sorted(folder.iterdir(), key=lambda each: (each.name == FACTS_FILE, each.name))
    # A version is named by its content. Pages of two machines differ in numbers of runs and snapshots.
    for path in () if is_version and copy.store.size(page) is not None else paths:
        key = path.relative_to(copy.root).as_posix()
        _share(copy, key, copy.disk.get(key, max_bytes=MOST_MANIFEST_BYTES))
    if (newest := folder.parent / NEWEST_FILE).exists():
        copy.store.put_file(newest.relative_to(copy.root).as_posix(), newest)
    if copy.refresh().content("tombstones") != before:
        share_redactions(copy)


def share_redactions(copy: WorkingCopy) -> None:
    """Replace manifests in the bucket that name erased episodes by those of this folder, which do not: the rows last.

    Again where an erasure has landed meanwhile: what was put may have undone its work.

    Raises:
        Conflict: others erase too fast.
    """
    for _ in range(MOST_TRIES):
        before = snapshot.load(copy.root).content("tombstones")
        _put_redactions(copy)
        if copy.refresh().content("tombstones") == before:
            return
    raise Conflict(
        f"erasures were committed meanwhile, {MOST_TRIES} times",
        remedy="run the same command again",
        where=copy.link.uri,
    )


def _put_redactions(copy: WorkingCopy) -> None:
    folders = [path.parent for path in copy.root.glob(f"{MANIFESTS}/**/{REDACTION_FILE}")]
    names = (REDACTION_FILE, FACTS_FILE, ROWS_FILE)
    paths = [folder / name for folder in sorted(folders) for name in names]
    for path in (copy.root / MANIFESTS / ERASED_FILE, *paths):
        key = path.relative_to(copy.root).as_posix()
        if not path.is_file():
            continue
        data = copy.disk.get(key, max_bytes=MOST_MANIFEST_BYTES)
        if not _has_bytes(copy, key, data):
            copy.store.put(key, data)


def _share(copy: WorkingCopy, key: str, data: bytes) -> None:
    for _ in range(MOST_TRIES):
        with suppress(UnknownOutcome):
            if copy.store.create(key, data) or _has_bytes(copy, key, data):
                return
            raise Conflict(
                "another machine has published another manifest of this name",
                remedy="choose another name",
                where=f"{copy.link.uri}/{key}",
            )
    raise UnknownOutcome(
        "the store does not say whether it took the manifest",
        remedy="run the same command again when the store answers",
        where=f"{copy.link.uri}/{key}",
    )


def _has_bytes(copy: WorkingCopy, key: str, data: bytes) -> bool:
    """Whether an object has these bytes. False for one that a sweep has deleted by now."""
    try:
        return copy.store.get(key, max_bytes=len(data) + 1) == data
    except SourceError:
        return False
