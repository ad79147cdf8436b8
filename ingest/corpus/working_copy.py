"""A corpus in a bucket as one machine works on it: a local corpus whose commits go to the bucket's commit log first.

The working copy is an ordinary corpus folder with the file `.remote.json`, which names the bucket. Its catalog is brought up to date from the
log (`refresh`), so every command that reads SQL works as on a local corpus. Media of episodes are copied when they are asked for (`fetch`).
`bucket_commit` commits from it, and `lanes` lets a session add episodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ingest.corpus import snapshot
from ingest.corpus.bucket_copies import BucketCopies
from ingest.corpus.bucket_marker import marker_made, marker_of, refuse_others, uid_in
from ingest.corpus.commit_log import CommitLog
from ingest.corpus.committed_files import CommittedFile, committed_files
from ingest.corpus.erasure import erase_copies
from ingest.corpus.kept_states import collect_states, remove_older_states
from ingest.corpus.layout import LINK, MARKER, MARKER_LIMITS, CorpusLayout
from ingest.corpus.remote_link import Link, read_link
from ingest.corpus.shared_store import SharedStore
from ingest.corpus.snapshot import Part, Snapshot
from ingest.corpus.tombstones import tombstones
from ingest.storage.local import LocalStorage
from ingest.storage.lock_file import held_with_others
from ingest.storage.open_store import probe
from schemas.catalog import TABLES
from schemas.errors import Code, ConfigError, InvariantError, SourceError

ERASING = ".erasing"  # what the folder has of erased episodes is not all removed
COPYING = ".copying"  # lock: who copies files here holds it with others, who removes unnamed files holds it alone


class WorkingCopy:
    """One per command and corpus. The command that writes holds the writer lock of the folder."""

    def __init__(self, root: Path, store: SharedStore) -> None:
        link = read_link(root)
        if link is None:
            raise InvariantError(f"{root} is not a working copy")
        self.root, self.store, self.link = root, store, link
        self.log = CommitLog(store=store)
        self.disk = LocalStorage(root)
        self.copies = BucketCopies(root=root, store=store, uri=link.uri, disk=self.disk)

    def refresh(self) -> Snapshot:
        """The newest snapshot of the bucket, with its catalog here.

        Raises:
            ConfigError: the bucket holds another corpus, or a newer format.
            TransientError: the store does not answer.
        """
        self._check_uid()
        with self._copying():
            current = snapshot.load(self.root)
            state = self.log.latest(current)
            while True:
                try:
                    # All parts are looked for: a folder that a backup restored may lack some.
                    self.keep(state, Snapshot(), last=current, is_new=state is not current)
                    break
                except SourceError as error:  # an erasure that followed may have deleted it
                    newer = self.log.latest(state)
                    if error.code is not Code.MISSING_FILE or newer is state:
                        raise
                    state = newer
        if state is not current:
            self.collect_states()
        return state

    def keep_state(self, number: int) -> None:
        """Make a state of any commit a snapshot of the folder, which a later `refresh` may remove.

        Raises:
            ConfigError: there is no such commit.
            TransientError: the store does not answer.
        """
        if number in snapshot.numbers(self.root):
            return
        with self._copying():
            state = self.log.state(number, snapshot.load(self.root))
            self.get_parts(part for table in TABLES for part in state.parts(table))
            self.disk.sync()
            self.disk.put(snapshot.key_of(number), snapshot.text_of(state).encode())

    def collect_states(self) -> None:
        """Remove snapshots that nothing here needs, unless another process copies files now."""

        def sweep() -> None:
            collect_states(self.root, self.disk)

        with held_with_others(self.root / COPYING, sweep):
            pass

    def _copying(self) -> AbstractContextManager[None]:
        """While the block runs, recovery removes no file that is copied and not yet named by a snapshot of the folder."""
        return held_with_others(self.root / COPYING, sweep=lambda: None)

    def _check_uid(self) -> None:
        self.make_corpus()
        marker = marker_of(self.store)
        if marker is None:
            raise ConfigError(
                f"the corpus is gone (no {MARKER}): it was deleted, or the bucket was restored to a time before it",
                remedy="restore the bucket, or remove the working copy",
                where=f"{self.link.uri}; its working copy is {self.root}",
            )
        if uid_in(marker) != self.link.corpus_uid:
            raise ConfigError(
                "this address holds another corpus than the working copy was made of",
                remedy="remove the working copy, and run the command again",
                where=str(self.root),
            )

    def keep(
        self,
        state: Snapshot,
        before: Snapshot,
        *,
        last: Snapshot | None = None,
        is_new: bool = True,
    ) -> None:
        """Make a state a snapshot of the folder, with the catalog files that one before it lacks.

        Args:
            last: the newest snapshot of the folder, where that is another one than `before`.
        """
        last = before if last is None else last
        known = {part.path for table in TABLES for part in before.parts(table)}
        new = (p for table in TABLES for p in state.parts(table) if p.path not in known)
        self.get_parts(new)
        has_erased = state.content("tombstones") != last.content("tombstones")
        if has_erased:
            self.disk.put(ERASING, b"", is_durable=True)
        if is_new:
            self.disk.sync()
            text = snapshot.text_of(state)
            self.disk.put(snapshot.key_of(state.number), text.encode(), is_durable=True)
        if has_erased or (self.root / ERASING).exists():
            self.erase_copies(state)

    def erase_copies(self, state: Snapshot) -> None:
        """Remove what the folder has of erased episodes, and states that have them. Older states come again without them."""
        erase_copies(CorpusLayout(self.root), self.disk, tombstones(self.root, state))
        remove_older_states(self.root, self.disk, state)
        self.disk.sync()
        self.disk.remove(self.root / ERASING)

    def get_parts(self, parts: Iterable[Part]) -> None:
        self.copies.fetch(CommittedFile(part.path, part.num_bytes, part.sha256) for part in parts)

    def fetch(self, current: Snapshot, *, without_images: bool = False) -> int:
        """Copy every file of every episode, and latents. The number of files that were copied.

        Args:
            without_images: neither videos nor latents of images.
        """
        with self._copying():
            files = committed_files(self.root, current.tables, without_images=without_images)
            return self.copies.fetch(files)

    def fetch_files(self, files: Sequence[CommittedFile]) -> int:
        """Copy files that are not here yet, while recovery removes none of them. The number of those that were copied."""
        missing = [file for file in files if not self.copies.has(file)]
        if not missing:
            return 0
        with self._copying():
            return self.copies.fetch(missing)

    def relink(self, **changes: Any) -> None:
        self.link = replace(self.link, **changes)
        self.disk.put(LINK, self.link.data, is_durable=True)

    def check_writes(self) -> None:
        """
        Raises:
            ConfigError: the folder is a copy that `eicorpus pull` has not finished.
        """
        if self.link.is_pull:
            raise ConfigError(
                "a copy that `eicorpus pull` has not finished",
                remedy="run the same `eicorpus pull` again",
                where=str(self.root),
            )

    def make_corpus(self) -> None:
        """Make the corpus in the bucket, if it is not there yet: by the marker of this folder, or that of another job that was first.

        Raises:
            ConfigError: other objects are at this address, or the store cannot hold a corpus.
        """
        if self.link.corpus_uid:
            return
        probe(self.store)
        marker = self.disk.get(MARKER, max_bytes=MARKER_LIMITS.max_bytes)
        stored = marker_made(self.store, self.link.uri, marker)
        self.disk.put(MARKER, stored, is_durable=True)
        self.relink(corpus_uid=uid_in(stored))


def attach(
    root: Path,
    uri: str,
    store: SharedStore,
    *,
    may_be_absent: bool = False,
    is_pull: bool = False,
) -> WorkingCopy:
    """The working copy at `root` of the corpus in a bucket. Made where it is absent, without its catalog. Nothing is written to the bucket.

    Args:
        may_be_absent: the corpus may not be there yet: its first commit makes it. `layout.open_or_create` makes its marker here.
        is_pull: see `Link`.

    Raises:
        ConfigError: no corpus is there, something else is, or `root` is something else.
        TransientError: the store does not answer.
    """
    link = read_link(root)
    if link is not None and (link.uri != uri or link.is_pull != is_pull):
        raise ConfigError(
            f"is a working copy of {link.uri}", remedy="use another folder", where=str(root)
        )
    if link is not None and link.corpus_uid and (root / MARKER).is_file():
        return WorkingCopy(root, store)
    marker = marker_of(store)
    if marker is None:
        if not may_be_absent:
            raise ConfigError(
                f"not a corpus (no {MARKER})",
                remedy="correct the address, or make the corpus with `eicorpus ingest --out`",
                where=uri,
            )
        refuse_others(store, uri)
    disk = LocalStorage(root)
    disk.make_dir(root)
    link = read_link(root) or link  # another command may have made it while the store was asked
    if link is None:
        if any(not entry.name.startswith(".") for entry in root.iterdir()):
            raise ConfigError(
                "the folder is not empty, and no working copy",
                remedy="use an empty or a new folder",
                where=str(root),
            )
        link = Link(uri=uri, corpus_uid="", is_pull=is_pull)
        disk.put(LINK, link.data, is_durable=True)
    if marker is not None:  # last: a stop before it is completed by the next command
        disk.put(LINK, replace(link, corpus_uid=uid_in(marker)).data, is_durable=True)
        disk.put(MARKER, marker, is_durable=True)
    return WorkingCopy(root, store)
