"""All snapshots of a corpus, what each names, and who needs it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ingest.corpus import snapshot
from ingest.corpus.manifest_folders import manifest_names
from ingest.corpus.snapshot import Snapshot
from ingest.storage.local import LocalStorage, within
from schemas.catalog import TABLES
from schemas.manifest import FOLDER as MANIFESTS
from schemas.manifest import load_facts


def load_all(corpus: Path) -> list[Snapshot]:
    """Every snapshot there is, oldest first.

    Raises:
        ConfigError: one of them cannot be read.
    """
    store = LocalStorage(corpus)
    return [
        snapshot.load_from(store, number, where=str(corpus / snapshot.key_of(number)))
        for number in snapshot.numbers(corpus)
    ]


def named_parts(snapshots: Iterable[Snapshot]) -> set[str]:
    """Paths of all parts that any of them names, relative to the corpus."""
    return {part.path for each in snapshots for table in TABLES for part in each.parts(table)}


def snapshot_path(corpus: Path, number: int) -> Path:
    """Where a snapshot lies."""
    return within(corpus, snapshot.key_of(number))


def manifests_by_snapshot(corpus: Path) -> dict[int, list[str]]:
    """Snapshot -> the published manifests that were built from it.

    Raises:
        ConfigError: a manifest cannot be read, so what it needs is not known.
    """
    by_snapshot: dict[int, list[str]] = {}
    for name in manifest_names(corpus):
        by_snapshot.setdefault(
            load_facts(within(corpus, f"{MANIFESTS}/{name}")).snapshot, []
        ).append(name)
    return by_snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotInfo:
    """One line of `eicorpus snapshot list`.

    published_s: seconds since 1970, by its file. command: the words that an ingest recorded; else the command that alone writes the tables
    that changed.
    """

    number: int
    run_id: str
    command: str
    published_s: float
    episodes: int
    rows: int
    parts: int
    num_bytes: int
    manifests: tuple[str, ...]


def list_snapshots(corpus: Path) -> list[SnapshotInfo]:
    """Every snapshot, oldest first.

    Raises:
        ConfigError: one of them, or a manifest, cannot be read.
    """
    claimed = manifests_by_snapshot(corpus)
    snapshots = load_all(corpus)
    recorded = commands_recorded(corpus, snapshots[-1]) if snapshots else {}
    out, before = [], Snapshot()
    for each in snapshots:
        command = recorded.get(each.run_id) or writer_of(
            _rows(before), _rows(each), is_rewritten=before.tables != each.tables
        )
        out.append(_entry(corpus, each, command, claimed))
        before = each
    return out


# Tables that one command alone adds to, in the order in which they decide: `forget` also rewrites what the others wrote.
WRITERS = {
    "tombstones": "eicorpus forget",
    "episodes": "eicorpus ingest",
    "verdicts": "eicorpus ingest",
    "measurements": "eicorpus measure",
    "signatures": "eicorpus measure",
    "policies": "eicorpus tier",
    "captions": "eicorpus caption",
    "dedups": "eicorpus dedup",
    "duplicates": "eicorpus dedup",
    "latents": "eicorpus latents",
    "reviews": "eicorpus review",
}


def writer_of(before: Mapping[str, int], after: Mapping[str, int], *, is_rewritten: bool) -> str:
    """The command that makes the difference of two neighbouring snapshots, by the rows of their tables; "" when an older one in between is
    gone and nothing tells."""
    grown = [t for t in WRITERS if after[t] > before[t]]
    if grown:
        return WRITERS[grown[0]]
    return "eicorpus compact" if is_rewritten and before == after else ""


def _rows(each: Snapshot) -> dict[str, int]:
    return {table: sum(part.rows for part in each.parts(table)) for table in TABLES}


def commands_recorded(corpus: Path, latest: Snapshot) -> dict[str, str]:
    """run_id -> the command of an ingest, as the latest snapshot knows it."""
    rows = latest.read(corpus, "runs", ["run_id", "command"]).to_pylist()
    return {row["run_id"]: row["command"] for row in rows}


def _entry(
    corpus: Path, each: Snapshot, command: str, claimed: dict[int, list[str]]
) -> SnapshotInfo:
    parts = [part for table in TABLES for part in each.parts(table)]
    return SnapshotInfo(
        number=each.number,
        run_id=each.run_id,
        command=command,
        published_s=snapshot_path(corpus, each.number).stat().st_mtime,
        episodes=sum(part.rows for part in each.parts("episodes")),
        rows=sum(part.rows for part in parts),
        parts=len(parts),
        num_bytes=sum(part.num_bytes for part in parts),
        manifests=tuple(claimed.get(each.number, ())),
    )
