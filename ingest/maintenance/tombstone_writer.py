"""What is left of an erased episode: its tombstone and placeholder files with as many empty timesteps, so that no other episode is renumbered."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from av.video.frame import VideoFrame

from ingest.corpus.layout import CorpusLayout, data_file, video_file
from ingest.corpus.lerobot_meta import Dataset
from ingest.corpus.lerobot_writer import (
    column_stats,
    data_schema,
    numbered,
    parquet_bytes,
    staged_table,
)
from ingest.corpus.snapshot import Snapshot
from ingest.corpus.tombstones import ERASED_TASK
from ingest.maintenance.erasure_plan import EpisodeSelection
from ingest.recipe import VideoSettings
from ingest.storage.local import LocalStorage
from ingest.video.encode import Encoder, seal, x264_options
from ingest.video.scale import colour_of
from ingest.video.stats import ImageStatistics, sampled_frames
from schemas.catalog_rows import CatalogRow
from schemas.committed_rows import ArtifactRow, ErasedFileValue, TombstoneRow

_BLACK_Y, _NO_COLOUR = 16, 128  # limited range


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeSlot:
    """A place in a dataset. `task_index` is the number of ERASED_TASK there."""

    dataset: Dataset
    episode_index: int
    index_from: int
    length: int
    task_index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceholderFile:
    """`row`: the file as `tombstones.files` has it; `name`: where it is staged."""

    name: str
    row: ErasedFileValue


def write_placeholder(
    hole: EpisodeSlot, folder: Path, stem: str, disk: LocalStorage
) -> list[PlaceholderFile]:
    """Write the files of a hole into `folder` under names that begin with `stem`.

    Raises:
        TransientError: a video could not be written.
    """
    files = [_rows(hole, folder, stem, disk)]
    for number, key in enumerate(hole.dataset.video_keys):
        files.append(_video(hole, folder, f"{stem}.{number}.mp4", key))
    return files


def _rows(hole: EpisodeSlot, folder: Path, stem: str, disk: LocalStorage) -> PlaceholderFile:
    columns = {
        name: np.zeros((hole.length, feature["shape"][0]), dtype=feature["dtype"])
        for name, feature in hole.dataset.features.items()
        if feature["dtype"] != "video"
    }
    table = numbered(
        staged_table(columns, np.zeros(hole.length, dtype=np.int64)),
        data_schema(hole.dataset.features),
        fps=hole.dataset.fps,
        episode_index=hole.episode_index,
        index_from=hole.index_from,
        task_indices=[hole.task_index],
    )
    data = parquet_bytes(table)
    name = f"{stem}.parquet"
    disk.write(folder / name, data)
    row: ErasedFileValue = {
        "kind": "data",
        "camera": None,
        "path": f"{hole.dataset.path}/{data_file(hole.episode_index)}",
        "num_bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "detail_json": json.dumps({n: column_stats(values) for n, values in columns.items()}),
    }
    return PlaceholderFile(name=name, row=row)


def _video(hole: EpisodeSlot, folder: Path, name: str, key: str) -> PlaceholderFile:
    height, width, _ = hole.dataset.features[key]["shape"]
    recipe = VideoSettings()
    options = x264_options(crf=recipe.crf, preset=recipe.preset, gop=recipe.gop)
    black = _black(width, height)
    colour = colour_of(black, key)
    rate_hz = Fraction(hole.dataset.fps)
    with Encoder(folder / name, (width, height), colour, rate_hz, options) as encoder:
        for step in range(hole.length):
            encoder.write(black, step)
    sha256, num_bytes = seal(folder / name)
    stats = ImageStatistics()
    stats.add(np.zeros((height, width, 3), dtype=np.uint8), len(sampled_frames(hole.length)))
    row: ErasedFileValue = {
        "kind": "video",
        "camera": key.removeprefix("observation.images."),
        "path": f"{hole.dataset.path}/{video_file(hole.episode_index, key)}",
        "num_bytes": num_bytes,
        "sha256": sha256,
        "detail_json": json.dumps({n: value.tolist() for n, value in stats.result().items()}),
    }
    return PlaceholderFile(name=name, row=row)


def _black(width: int, height: int) -> VideoFrame:
    planes = np.full((height * 3 // 2, width), _NO_COLOUR, dtype=np.uint8)
    planes[:height] = _BLACK_Y
    return VideoFrame.from_ndarray(planes, format="yuv420p")


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
    for row in current.rows(corpus, _EpisodeTasks, only=only):
        if row.uid not in selection.episodes:
            left[row.dataset_path].update(row.tasks)
    return {path: _texts(datasets[path], left[path]) for path in selection.datasets}


@dataclass(frozen=True, slots=True, kw_only=True)
class _EpisodeTasks(CatalogRow):
    TABLE: ClassVar[str] = "episodes"

    uid: str
    dataset_path: str
    tasks: list[str]


def _texts(dataset: Dataset, left: Iterable[str]) -> list[str]:
    kept = {*left, ERASED_TASK}
    texts: list[str] = []
    for text, index in dataset.tasks.items():
        name = text if text in kept else f"[erased task {index}]"
        while text not in kept and name in kept:  # an odd task text of somebody's
            name += "'"
        texts.append(name)
    return texts if ERASED_TASK in texts else [*texts, ERASED_TASK]


def pinned_row(dataset_path: str, texts: Sequence[str]) -> ArtifactRow:
    """The row of `artifacts` that numbers a dataset's tasks."""
    return ArtifactRow(
        uid="",
        kind="tasks",
        camera=None,
        path=dataset_path,
        num_bytes=None,
        sha256=None,
        num_frames=None,
        detail_json=json.dumps({"tasks": list(texts)}),
    )


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
        path = row.dataset_path
        corpus.path(path)
        dataset, texts = datasets[path]
        hole = EpisodeSlot(
            dataset=dataset,
            episode_index=row.episode_index,
            index_from=row.index_from,
            length=row.length,
            task_index=texts.index(ERASED_TASK),
        )
        out[uid] = write_placeholder(hole, folder, f"{number:06d}", disk)
    return out


def tombstone(
    uid: str, selection: EpisodeSelection, lying: Sequence[PlaceholderFile], asked: ErasureRequest
) -> TombstoneRow:
    """The row of `tombstones`; without a place when the episode was never committed."""
    row = selection.episodes.get(uid)
    verdicts = selection.verdicts.get(uid, ())
    known = row if row is not None else verdicts[-1]
    return TombstoneRow(
        uid=known.uid,
        source=known.source,
        dataset=known.dataset,
        episode_id=known.episode_id,
        reason=asked.reason,
        erased_at=asked.at,
        run_id=asked.run_id,
        dataset_path=None if row is None else row.dataset_path,
        episode_index=None if row is None else row.episode_index,
        index_from=None if row is None else row.index_from,
        length=None if row is None else row.length,
        files=[each.row for each in lying],
        ends=[{"run_id": each.run_id, "state": each.state} for each in verdicts],
    )
