"""Erased episodes as the rest of a corpus sees them: places that stay, so that no other episode gets another number.

LeRobot v2.1 numbers episodes and timesteps without gaps, and manifests, latents and files of later episodes carry those numbers. So an
erased episode leaves its place, filled with as many timesteps of nothing: zeros that no mask calls valid, black pictures, the task text
ERASED_TASK. Only the table `tombstones` and LeRobot's `meta/` know of it. It is no row of `episodes`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from ingest.corpus.column_checks import DamagedCatalog
from ingest.corpus.snapshot import Snapshot, json_of

ERASED_TASK = "[erased]"
FORGOTTEN = "forgotten"  # the code under which ingestion leaves such an episode out
Row = dict[str, Any]


def tombstones(corpus: Path, current: Snapshot) -> list[Row]:
    """Every erasure of a snapshot. A uid that was restored and erased again has two."""
    return list(current.read(corpus, "tombstones").to_pylist())


def places(rows: Sequence[Mapping[str, Any]], dataset_path: str | None = None) -> list[Row]:
    """Those that hold a place, of one dataset or of all, in their order, as rows of `episodes` that say nothing."""
    of_dataset = [
        as_episode(row)
        for row in rows
        if row["dataset_path"] is not None and dataset_path in (None, row["dataset_path"])
    ]
    return sorted(of_dataset, key=lambda row: (row["dataset_path"], row["episode_index"]))


def as_episode(tombstone: Mapping[str, Any]) -> Row:
    """What numbering, projection and checks ask of an episode's row. `erased` is the tombstone itself."""
    length = tombstone["length"]
    cameras = [file["camera"] for file in tombstone["files"] if file["kind"] == "video"]
    return {
        "uid": "",
        "dataset_path": tombstone["dataset_path"],
        "episode_index": tombstone["episode_index"],
        "index_from": tombstone["index_from"],
        "length": length,
        "tasks": [ERASED_TASK],
        "task_counts": [length],
        "cameras": [{"name": camera} for camera in cameras],
        "action_source": "none",
        "action_coverage": 0.0,
        "recipe_digest": "",
        "content_sha256": None,
        "erased": tombstone,
    }


def stats_of(tombstone: Mapping[str, Any]) -> Row:
    """Statistics by feature: numeric columns, then videos."""
    numeric: Row = {}
    videos: Row = {}
    for file in tombstone["files"]:
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
    for row in current.read(corpus, "artifacts", ["path", "detail_json"], only=only).to_pylist():
        if row["path"] in tasks:
            message = "its tasks are pinned twice; run eicorpus verify"
            raise DamagedCatalog(message, where=row["path"][:200])
        tasks[row["path"]] = list(json_of(row["detail_json"], where=row["path"]).get("tasks", []))
    return tasks
