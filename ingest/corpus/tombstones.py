"""Erased episodes as the rest of a corpus sees them: places that stay, so that no other episode gets another number.

LeRobot v2.1 numbers episodes and timesteps without gaps, and manifests, latents and files of later episodes carry those numbers. So an
erased episode leaves its place, filled with as many timesteps of nothing: zeros that no mask calls valid, black pictures, the task text
ERASED_TASK. Only the table `tombstones` and LeRobot's `meta/` know of it. It is no row of `episodes`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow.compute as pc

from ingest.corpus.column_checks import DamagedCatalog
from ingest.corpus.snapshot import Snapshot, json_of
from schemas.catalog_rows import CatalogRow
from schemas.committed_rows import TombstoneRow

ERASED_TASK = "[erased]"
FORGOTTEN = "forgotten"  # the code under which ingestion leaves such an episode out


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasedPlace:
    """The place that an erased episode holds, for what numbers, projects and checks rows of `episodes`."""

    tombstone: TombstoneRow
    dataset_path: str
    episode_index: int
    index_from: int
    length: int
    uid: str = ""
    action_source: str = "none"
    action_coverage: float = 0.0
    recipe_digest: str = ""
    content_sha256: str = ""
    command_only: None = None

    @property
    def tasks(self) -> list[str]:
        return [ERASED_TASK]

    @property
    def task_counts(self) -> list[int]:
        return [self.length]

    @property
    def cameras(self) -> list[str]:
        return [str(file["camera"]) for file in self.tombstone.files if file["kind"] == "video"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetDetail(CatalogRow):
    """What a row of `artifacts` says of a whole dataset."""

    TABLE: ClassVar[str] = "artifacts"

    path: str
    detail_json: str


def tombstones(corpus: Path, current: Snapshot) -> list[TombstoneRow]:
    """Every erasure of a snapshot. A uid that was restored and erased again has two."""
    return current.rows(corpus, TombstoneRow)


def places(rows: Iterable[TombstoneRow], dataset_path: str | None = None) -> list[ErasedPlace]:
    """Those that hold a place, of one dataset or of all, in their order.

    Raises:
        DamagedCatalog: one names a dataset and no number in it.
    """
    every = [place for row in rows if (place := _place_of(row)) is not None]
    of_dataset = [place for place in every if dataset_path in (None, place.dataset_path)]
    return sorted(of_dataset, key=lambda place: (place.dataset_path, place.episode_index))


def _place_of(row: TombstoneRow) -> ErasedPlace | None:
    """None for an episode that was never committed."""
    if row.dataset_path is None:
        return None
    if row.episode_index is None or row.index_from is None or row.length is None:
        message = "an erased episode has no number"
        raise DamagedCatalog(message, remedy="run `eicorpus verify`", where=row.dataset_path[:200])
    return ErasedPlace(
        tombstone=row,
        dataset_path=row.dataset_path,
        episode_index=row.episode_index,
        index_from=row.index_from,
        length=row.length,
    )


def stats_of(tombstone: TombstoneRow) -> dict[str, Any]:
    """Statistics by feature: numeric columns, then videos."""
    numeric: dict[str, Any] = {}
    videos: dict[str, Any] = {}
    for file in tombstone.files:
        detail = json_of(file["detail_json"], where=file["path"])
        if file["kind"] == "data":
            numeric = detail
        else:
            videos[f"observation.images.{file['camera']}"] = detail
    return {**numeric, **videos}


def pinned_tasks(corpus: Path, current: Snapshot) -> dict[str, list[str]]:
    """Task texts by index, for datasets in which an erasure was: the order of first appearance no longer tells them.

    A dataset has one such row. What is numbered after it goes on from there.

    Raises:
        DamagedCatalog: it has two.
    """
    tasks: dict[str, list[str]] = {}
    only = pc.field("kind") == "tasks"
    for row in current.rows(corpus, DatasetDetail, only=only):
        if row.path in tasks:
            message = "its tasks are recorded twice"
            raise DamagedCatalog(message, remedy="run `eicorpus verify`", where=row.path[:200])
        tasks[row.path] = list(json_of(row.detail_json, where=row.path).get("tasks", []))
    return tasks
