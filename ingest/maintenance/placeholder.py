"""What lies in the place of an erased episode: as many timesteps of nothing, in files of the same shape.

Every number is zero, every mask false, every picture black, and the task says that it was erased. So readers of LeRobot v2.1 still find
every number where it was, and whoever looks at masks or at `meta/eicorpus.json` learns nothing from it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from av.video.frame import VideoFrame

from ingest.corpus.layout import data_file, video_file
from ingest.corpus.lerobot_meta import Dataset
from ingest.corpus.lerobot_writer import (
    column_stats,
    data_schema,
    numbered,
    parquet_bytes,
    staged_table,
)
from ingest.recipe import VideoSettings
from ingest.storage.local import LocalStorage
from ingest.video.encode import Encoder, seal, x264_options
from ingest.video.scale import colour_of
from ingest.video.stats import ImageStatistics, sampled_frames

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
    row: dict[str, Any]


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
    row = {
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
    row = {
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
