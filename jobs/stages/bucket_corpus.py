"""A corpus that a command names by the URI of a bucket: its working copy on this machine, brought up to date."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from ingest.corpus import snapshot
from ingest.corpus.layout import LINK, open_or_create
from ingest.corpus.publishing import store_of, working_copy
from ingest.corpus.shared_manifests import fetch_manifests
from ingest.corpus.working_copy import COPYING, WorkingCopy, attach
from ingest.corpus.writer import complete, writing
from ingest.storage.file_tree import paths_below
from ingest.storage.local import LocalStorage
from ingest.storage.object_store import ObjectStore
from ingest.storage.store_uri import object_store_uri
from jobs.run_context import new_corpus_uid, new_run_id
from jobs.stages.hub_pull import Pulled
from jobs.stages.verify import run_verify
from jobs.ui.options import BucketUse, cache_folder
from jobs.ui.output import progress_of
from schemas.errors import ConfigError
from schemas.manifest import FOLDER as MANIFESTS
from schemas.paths import within

ROOM = "corpora"  # of the cache


def opened(uri: str, use: BucketUse, cache: Path, states: Sequence[int] = ()) -> Path:
    """The folder of the working copy, or in it the manifest that the URI names.

    Args:
        states: older ones that the command reads.

    Raises:
        ConfigError: no corpus is there, the store cannot hold one, or its URI is not one.
        TransientError: the store does not answer.
    """
    corpus, _, manifest = uri.partition(f"/{MANIFESTS}/")
    if bool(manifest) != (use is BucketUse.MANIFEST):
        raise ConfigError(
            f"expected the URI of a {'manifest' if use is BucketUse.MANIFEST else 'corpus'}",
            remedy=f"a manifest is at CORPUS/{MANIFESTS}/NAME",
            where=uri,
        )
    copy = _attached(corpus, cache, may_be_absent=use in (BucketUse.CREATES, BucketUse.BUILDS))
    _bring(copy, use, states)
    return within(copy.root, f"{MANIFESTS}/{manifest}") if manifest else copy.root


def opened_folder(root: Path, use: BucketUse, states: Sequence[int] = ()) -> Path:
    """As `opened`, of a working copy that a command names by its folder. A pull that has not finished stays as it is.

    Raises:
        TransientError: the store does not answer.
    """
    copy = working_copy(root)
    if copy is not None and not copy.link.is_pull:
        _bring(copy, use, states)
    return root


def _bring(copy: WorkingCopy, use: BucketUse, states: Sequence[int]) -> None:
    """Bring a working copy up to date, with what a command needs of it."""
    if not copy.link.corpus_uid:
        return
    with progress_of("reading the commit log"):
        current = copy.refresh()
    if use is BucketUse.CREATES:
        return
    with_files = use not in (BucketUse.CATALOG, BucketUse.BUILDS)
    fetch_manifests(copy)
    for number in states:
        copy.keep_state(number)
    if with_files:
        with progress_of("copying files of the corpus"):
            complete(copy, current, without_images=use is BucketUse.MANIFEST)


def with_videos(root: Path) -> None:
    """Copy all files of the corpus into a working copy: a language model is shown images of its videos.

    Raises:
        TransientError: the store does not answer, or the disk is full.
    """
    copy = working_copy(root)
    if copy is not None:
        with progress_of("copying files of the corpus"):
            complete(copy, copy.refresh())


def copied(uri: str, folder: Path, threads: int, *, dry_run: bool) -> Pulled:
    """Copy the corpus of a bucket to a folder, as a corpus of this machine alone, and verify it. Run it again to resume.

    Raises:
        ConfigError: no corpus is there, or the folder is something else.
        TransientError: the store does not answer, or the disk is full.
    """
    store = ObjectStore(object_store_uri(uri))
    if dry_run:
        sizes = [each["size"] for each in store.entries("")]
        return Pulled(
            kind="corpus",
            num_files=len(sizes),
            num_bytes=sum(sizes),
            revision="",
            findings=None,
        )
    copy = attach(folder, str(store.uri), store, is_pull=True)
    with progress_of("copying the corpus"):
        complete(copy, copy.refresh())
        fetch_manifests(copy)
    disk = LocalStorage(folder)
    pulled = _pulled(folder, threads, "corpus")
    if not pulled.findings:
        disk.delete(COPYING)
        disk.delete(LINK)
        disk.sync()
    return pulled


def _pulled(folder: Path, threads: int, kind: str) -> Pulled:
    """What is there now, and what is wrong with it."""
    findings = [f"{each.path}: {each.message}" for each in run_verify(folder, threads).findings]
    files = [path for path in paths_below(folder) if path.is_file()]
    return Pulled(
        kind=kind,
        num_files=len(files),
        num_bytes=sum(path.stat().st_size for path in files),
        revision="",
        findings=findings,
    )


def copied_part(
    uri: str, folder: Path, threads: int, *, manifest: str, where: str, dry_run: bool
) -> Pulled:
    """Copy some episodes of the corpus of a bucket to a folder, as a corpus of this machine, and verify it. Run it again to resume.

    Raises:
        ConfigError: no corpus is there, nothing is chosen, or the folder is something else.
        TransientError: the store does not answer, or the disk is full.
    """
    from ingest.export.part import part_of, write_part_of

    copy = WorkingCopy(root := opened(uri, BucketUse.CATALOG, cache_folder()), store_of(uri))
    part = part_of(copy, snapshot.load(root), manifest=manifest, where=where)
    if dry_run:
        return Pulled(
            kind="part of a corpus",
            num_files=len(part.uids),
            num_bytes=part.num_bytes,
            revision="",
            findings=None,
        )
    disk = LocalStorage(folder)
    if (folder / LINK).exists():
        raise ConfigError(
            "is a copy of a whole corpus", remedy="use a new folder", where=str(folder)
        )
    corpus = open_or_create(folder, uid=new_corpus_uid(), recipe_digest="", disk=disk)
    with writing(corpus, disk), progress_of("episodes", len(part.uids)) as progress:
        write_part_of(part, corpus, disk, run_id=new_run_id(), progress=progress)
    return _pulled(folder, threads, "part of a corpus")


def folder_of(uri: str, cache: Path) -> Path:
    """The folder of the working copy of a corpus, whether it is there or not.

    Raises:
        ConfigError: the URI is not that of a bucket.
    """
    place = object_store_uri(uri)
    if place.scheme == "memory":
        raise ConfigError("memory:// is gone when the command ends", where=uri)
    digest = hashlib.sha256(str(place).encode()).hexdigest()[:12]
    name = f"{(place.prefix or place.bucket).rpartition('/')[2]}-{digest}"
    return within(cache, f"{ROOM}/{name}")


def _attached(uri: str, cache: Path, *, may_be_absent: bool) -> WorkingCopy:
    root, place = folder_of(uri, cache), object_store_uri(uri)
    return attach(root, str(place), ObjectStore(place), may_be_absent=may_be_absent)
