"""Making a commit: the next snapshot of a local corpus, or the next entry of the commit log of a corpus in a bucket."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from ingest.corpus import bucket_commit, snapshot
from ingest.corpus.remote_link import read_link
from ingest.corpus.shared_store import SharedStore
from ingest.corpus.snapshot import Part, Snapshot
from ingest.corpus.working_copy import WorkingCopy
from ingest.storage.local import LocalStorage
from ingest.storage.object_store import ObjectStore
from ingest.storage.store_uri import object_store_uri
from schemas.catalog import TABLES
from schemas.errors import ConfigError, InvariantError, TransientError


def working_copy(corpus: Path) -> WorkingCopy | None:
    """The corpus as a working copy of one in a bucket; None for a corpus of this machine alone.

    Raises:
        ConfigError: its link cannot be read, or names a store that cannot be used here.
    """
    link = read_link(corpus)
    return None if link is None else WorkingCopy(corpus, store_of(link.uri))


def store_of(uri: str) -> SharedStore:
    """The bucket that a link names. Raises as `object_store_uri`."""
    return ObjectStore(object_store_uri(uri))


def publish(
    disk: LocalStorage,
    corpus: Path,
    parent: Snapshot,
    added: Mapping[str, Part],
    run_id: str,
    *,
    copies: Mapping[str, str] = MappingProxyType({}),
) -> Snapshot:
    """Commit: the parent's parts plus `added`. In a bucket they follow what others committed since `parent`.

    Args:
        copies: files of episodes that are in the bucket under another key, by their path.

    Raises:
        TransientError: someone else committed in between; staged work is kept, run again.
        InvariantError: a part is already in the parent (the same rows would count twice).
    """
    tables = {name: list(parent.parts(name)) for name in TABLES}
    for name, part in added.items():
        if part in tables[name]:
            raise InvariantError(f"{part.path} is already part of snapshot {parent.number}")
        tables[name].append(part)
    return publish_tables(disk, corpus, parent, tables, run_id, copies=copies)


def publish_tables(
    disk: LocalStorage,
    corpus: Path,
    parent: Snapshot,
    tables: Mapping[str, Sequence[Part]],
    run_id: str,
    *,
    copies: Mapping[str, str] = MappingProxyType({}),
) -> Snapshot:
    """Commit exactly these parts as the successor of `parent`. For what rewrites parts; `publish` appends.

    Everything written so far is made durable first, so that no snapshot outlives what it names.

    Raises:
        ConfigError: more parts than a snapshot may have.
        TransientError: someone else committed in between.
        OSError: the disk has lost something that this snapshot would name.
    """
    if (num_parts := sum(map(len, tables.values()))) > snapshot.MAX_PARTS:
        problem = f"{num_parts} catalog files; a snapshot can have at most {snapshot.MAX_PARTS}"
        raise ConfigError(problem, remedy="run `eicorpus compact` first", where=str(corpus))
    disk.sync()
    copy = working_copy(corpus)
    if copy is not None:
        return bucket_commit.commit(copy, parent, tables, run_id, copies=copies)
    published = Snapshot(
        number=parent.number + 1,
        run_id=run_id,
        tables={name: tuple(parts) for name, parts in tables.items()},
    )
    key, text = snapshot.key_of(published.number), snapshot.text_of(published)
    if not disk.at(corpus).create(key, text.encode()):
        raise overtaken(published.number, corpus)
    return published


def newest(corpus: Path, parent: Snapshot) -> Snapshot:
    """What a commit on top of `parent` follows: `parent`, or in a bucket what others committed since.

    Raises:
        TransientError: another process has committed to this folder.
    """
    copy = working_copy(corpus)
    if copy is not None:
        return bucket_commit.behind(copy, parent)
    if parent.number + 1 in snapshot.numbers(corpus):
        raise overtaken(parent.number + 1, corpus)
    return parent


def overtaken(number: int, corpus: Path) -> TransientError:
    """What the slower of two writers gets."""
    return TransientError(
        f"another writer published snapshot {number} first; no data is lost",
        remedy="run the same command again",
        where=str(corpus / snapshot.FOLDER),
    )
