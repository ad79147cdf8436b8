"""What is left of an erased episode: its tombstone, the files in its place, and the numbers of its dataset's tasks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from ingest.corpus.layout import CorpusLayout
from ingest.corpus.lerobot_meta import Dataset
from ingest.corpus.snapshot import Snapshot
from ingest.corpus.tombstones import ERASED_TASK, Row
from ingest.maintenance.erasure_plan import EpisodeSelection
from ingest.maintenance.placeholder import EpisodeSlot, PlaceholderFile, write_placeholder
from ingest.storage.local import LocalStorage

_IDENTITY = ("uid", "source", "dataset", "episode_id")
_PLACE = ("dataset_path", "episode_index", "index_from", "length")


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureRequest:
    """Who erases when and why; `run_id` names the run and its folder."""

    reason: str
    run_id: str
    at: datetime


def frozen_tasks(
    corpus: Path, current: Snapshot, selection: EpisodeSelection, datasets: Mapping[str, Dataset]
) -> dict[str, list[str]]:
    """Task texts by number of each dataset that loses an episode: a text that no episode has any more goes, its number stays."""
    left: dict[str, set[str]] = {path: set() for path in selection.datasets}
    only = pc.field("dataset_path").isin(pa.array(selection.datasets, pa.string()))
    columns = ["uid", "dataset_path", "tasks"]
    for row in current.read(corpus, "episodes", columns, only=only).to_pylist():
        if row["uid"] not in selection.episodes:
            left[row["dataset_path"]].update(row["tasks"])
    return {path: _texts(datasets[path], left[path]) for path in selection.datasets}


def _texts(dataset: Dataset, left: Iterable[str]) -> list[str]:
    kept = {*left, ERASED_TASK}
    texts: list[str] = []
    for text, index in dataset.tasks.items():
        name = text if text in kept else f"[erased task {index}]"
        while text not in kept and name in kept:  # an odd task text of somebody's
            name += "'"
        texts.append(name)
    return texts if ERASED_TASK in texts else [*texts, ERASED_TASK]


def pinned_row(dataset_path: str, texts: Sequence[str]) -> Row:
    """The row of `artifacts` that numbers a dataset's tasks."""
    empty = dict.fromkeys(("camera", "num_bytes", "sha256", "num_frames"))
    detail = json.dumps({"tasks": list(texts)})
    return {"uid": "", "kind": "tasks", "path": dataset_path, "detail_json": detail, **empty}


def write_placeholders(
    corpus: CorpusLayout,
    disk: LocalStorage,
    selection: EpisodeSelection,
    folder: Path,
    datasets: Mapping[str, tuple[Dataset, Sequence[str]]],
) -> dict[str, list[PlaceholderFile]]:
    """What shall lie in the place of each committed episode, staged in `folder`.

    Args:
        datasets: by path, with the task texts by number.

    Raises:
        ConfigError: a dataset lies outside the corpus.
    """
    out = {}
    for number, (uid, row) in enumerate(sorted(selection.episodes.items())):
        path = row["dataset_path"]
        corpus.path(path)
        dataset, texts = datasets[path]
        hole = EpisodeSlot(
            dataset=dataset,
            episode_index=row["episode_index"],
            index_from=row["index_from"],
            length=row["length"],
            task_index=texts.index(ERASED_TASK),
        )
        out[uid] = write_placeholder(hole, folder, f"{number:06d}", disk)
    return out


def tombstone(
    uid: str, selection: EpisodeSelection, lying: Sequence[PlaceholderFile], asked: ErasureRequest
) -> Row:
    """The row of `tombstones`; without a place when the episode was never committed."""
    row = selection.episodes.get(uid)
    verdicts = selection.verdicts.get(uid, ())
    known = row if row is not None else verdicts[-1]
    return {
        **{name: known[name] for name in _IDENTITY},
        **{name: None if row is None else row[name] for name in _PLACE},
        "reason": asked.reason,
        "erased_at": asked.at,
        "run_id": asked.run_id,
        "files": [each.row for each in lying],
        "ends": [{"run_id": v["run_id"], "state": v["state"]} for v in verdicts],
    }
