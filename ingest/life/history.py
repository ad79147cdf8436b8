"""All snapshots of a corpus, what each names, and who needs it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ingest import snapshot
from ingest.curation.manifest.store import manifest_names
from ingest.snapshot import FOLDER, Snapshot
from schemas.catalog import TABLES
from schemas.manifest import FOLDER as MANIFESTS
from schemas.manifest import load_facts


def every(corpus: Path) -> list[Snapshot]:
    """Every snapshot there is, oldest first.

    Raises:
        ConfigError: one of them cannot be read.
    """
    return [snapshot.load(corpus, number) for number in snapshot.numbers(corpus)]


def named_parts(snapshots: Iterable[Snapshot]) -> set[str]:
    """Paths of all parts that any of them names, relative to the corpus."""
    return {part.path for each in snapshots for table in TABLES for part in each.parts(table)}


def file_of(corpus: Path, number: int) -> Path:
    """Where a snapshot lies."""
    return corpus / FOLDER / f"{number:08d}.json"


def claims(corpus: Path) -> dict[int, list[str]]:
    """Snapshot -> the published manifests that were built from it.

    Raises:
        ConfigError: a manifest cannot be read, so what it needs is not known.
    """
    found: dict[int, list[str]] = {}
    for name in manifest_names(corpus):
        found.setdefault(load_facts(corpus / MANIFESTS / name).snapshot, []).append(name)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of `eicorpus snapshot list`. `published_s`: seconds since 1970, by its file."""

    number: int
    run_id: str
    published_s: float
    episodes: int
    rows: int
    parts: int
    num_bytes: int
    manifests: tuple[str, ...]


def entries(corpus: Path) -> list[Entry]:
    """Every snapshot, oldest first.

    Raises:
        ConfigError: one of them, or a manifest, cannot be read.
    """
    claimed = claims(corpus)
    return [_entry(corpus, each, claimed) for each in every(corpus)]


def _entry(corpus: Path, each: Snapshot, claimed: dict[int, list[str]]) -> Entry:
    parts = [part for table in TABLES for part in each.parts(table)]
    return Entry(
        number=each.number,
        run_id=each.run_id,
        published_s=file_of(corpus, each.number).stat().st_mtime,
        episodes=sum(part.rows for part in each.parts("episodes")),
        rows=sum(part.rows for part in parts),
        parts=len(parts),
        num_bytes=sum(part.num_bytes for part in parts),
        manifests=tuple(claimed.get(each.number, ())),
    )
