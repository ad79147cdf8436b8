"""`eicorpus gc`: unneeded snapshots, the parts that only they reference, latents that newer ones replaced, and abandoned staging.

A snapshot stays when it is the latest, one of the newest `keep`, younger than `older_than_s`, or one from which a published manifest was
built. Snapshots go before their parts: whatever stops it, no snapshot names a part that is not there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ingest.corpus import snapshot
from ingest.corpus.latent_packs import replaced_latents
from ingest.corpus.layout import CorpusLayout
from ingest.corpus.snapshot_list import (
    SnapshotInfo,
    list_snapshots,
    load_all,
    named_parts,
)
from ingest.executors.node_proof import PREFIX
from ingest.storage.file_tree import paths_below
from ingest.storage.local import LocalStorage


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotRetention:
    """A snapshot, and why it stays; `why` is empty for one that goes."""

    entry: SnapshotInfo
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage:
    """What `collect` removes. Paths are relative to the corpus; `num_bytes` is of parts and latents. `latents`: files and packs."""

    snapshots: tuple[SnapshotRetention, ...]
    parts: tuple[str, ...]
    latents: tuple[str, ...]
    staging: tuple[str, ...]
    num_bytes: int

    @property
    def to_remove(self) -> list[int]:
        return [each.entry.number for each in self.snapshots if not each.why]


def plan_gc(corpus: CorpusLayout, *, keep: int, older_than_s: float, now_s: float) -> Garbage:
    """What is not needed. Changes nothing.

    Args:
        keep: so many of the newest snapshots stay; at least the latest does.
        older_than_s: what is younger stays.
        now_s: seconds since 1970.

    Raises:
        ConfigError: a snapshot or a manifest cannot be read, so what it needs is unknown.
    """
    seen = list_snapshots(corpus.root)
    newest = {entry.number for entry in seen[-max(keep, 1) :]}
    kept = tuple(
        SnapshotRetention(entry=entry, why=_why(entry, newest, older_than_s, now_s))
        for entry in seen
    )
    stays = {each.entry.number for each in kept if each.why}
    every = load_all(corpus.root)
    left = [each for each in every if each.number in stays]
    named = named_parts(left)
    latents = replaced_latents(corpus, every, left)
    parts = sorted(
        path.relative_to(corpus.root).as_posix()
        for path in (corpus.root / "catalog").glob("*/*.parquet")
        if path.relative_to(corpus.root).as_posix() not in named
    )
    return Garbage(
        snapshots=kept,
        parts=tuple(parts),
        latents=tuple(latents),
        staging=tuple(_abandoned(corpus, now_s - older_than_s)),
        num_bytes=sum(corpus.path(path).lstat().st_size for path in (*parts, *latents)),
    )


def _why(entry: SnapshotInfo, newest: set[int], older_than_s: float, now_s: float) -> str:
    if entry.manifests:
        return f"manifest {', '.join(entry.manifests)}"
    if entry.number in newest:
        return "among the newest"
    return "young" if now_s - entry.published_s < older_than_s else ""


def _abandoned(corpus: CorpusLayout, before_s: float) -> Sequence[str]:
    """Staged episodes that no run has come back for; they would be ingested anew. Folders of `executor_probe` are swept there."""
    if not corpus.staging.is_dir():
        return []
    return sorted(
        path.relative_to(corpus.root).as_posix()
        for path in corpus.staging.iterdir()
        if _touched_s(path) < before_s and not path.name.startswith(PREFIX)
    )


def _touched_s(path: Path) -> float:
    return max(each.lstat().st_mtime for each in (path, *paths_below(path)))


def collect_garbage(corpus: CorpusLayout, disk: LocalStorage, garbage: Garbage) -> None:
    """Remove it, oldest snapshot first. The caller holds the writer lock and has run `recover`."""
    store = disk.at(corpus.root)
    for number in garbage.to_remove:
        store.delete(snapshot.key_of(number))
    disk.sync()
    for path in (*garbage.parts, *garbage.latents):
        disk.remove(corpus.path(path))
    for path in garbage.staging:
        disk.remove_tree(corpus.path(path))
