"""LeRobot v3.0: many episodes in one data file and in one video of each camera, with tables over them.

Facts: huggingface/lerobot v0.4.4 `src/lerobot/datasets/{utils,lerobot_dataset,video_utils}.py`; docs/how-to/export.md says what was run.
The pictures of an episode are copied as packets in whole groups between keyframes, so a video may hold a few pictures that belong to no
episode; `from_timestamp` says where each begins. Statistics of pictures are those of the whole episode.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ingest.corpus.layout import CorpusLayout
from ingest.export.datasets.format import ExportUnit, Finishing, UnitRecord
from ingest.export.datasets.plan import DatasetPlan, ExportPlan, UnfitRows
from ingest.export.datasets.quantiles import ValueCounts, value_counts
from ingest.export.datasets.rows import (
    QUANTILES,
    default_columns,
    merged_stats,
    read_columns,
    rows_table,
    stats_of_columns,
)
from ingest.video.join import VideoPart, join_videos
from schemas.lerobot import DEFAULT_FEATURES

CHUNK_FILES = 1000  # files in one folder
DATA_MB, VIDEO_MB = 100, 200  # limits that info.json states for whoever appends
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
EPISODES_ROWS = 10_000  # of one file of meta/episodes
DATA_NAME = "data.parquet"  # in the folder of a unit


@dataclass(frozen=True, slots=True)
class LeRobotV3:
    """The format `lerobot-v3`."""

    name: ClassVar[str] = "lerobot-v3"

    def settings(self) -> Mapping[str, Any]:
        return {}

    def left_out(self, rows: pa.Table) -> Iterable[UnfitRows]:
        return ()

    def divide(self, dataset: DatasetPlan) -> Iterable[DatasetPlan]:
        return (dataset,)

    def check(self, plan: ExportPlan) -> None:
        """Nothing of a corpus is beyond this format: its rate is an integer, and names have no slash."""

    def write(self, unit: ExportUnit, folder: Path) -> Mapping[str, Any]:
        numeric, fps = unit.dataset.numeric, unit.dataset.fps
        tables, episodes = [], []
        values_of: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in numeric}
        for segment in unit.segments:
            columns = read_columns(unit.corpus, unit.dataset, segment)
            defaults = default_columns(segment, fps)
            tables.append(rows_table({**columns, **defaults}, numeric))
            stats: dict[str, Mapping[str, Any]] = {}
            stats |= stats_of_columns({**columns, **defaults}, QUANTILES)
            stats |= {video.key: video.stats for video in segment.videos}
            for name, values in columns.items():
                values_of[name].append(values)
            episodes.append(
                {"length": segment.num_frames, "text": segment.row.text, "stats": stats}
            )
        seen = {name: value_counts(np.concatenate(each)) for name, each in values_of.items()}
        pq.write_table(pa.concat_tables(tables), folder / DATA_NAME, compression="snappy")
        videos = {
            key: self._join(unit, folder, key, number)
            for number, key in enumerate(unit.dataset.video_keys)
        }
        return {
            "episodes": episodes,
            "videos": videos,
            "histograms": {name: histogram.as_json() for name, histogram in seen.items()},
        }

    @staticmethod
    def _join(unit: ExportUnit, folder: Path, key: str, number: int) -> list[list[int]]:
        """[part, first picture, pictures beside its own] of each segment."""
        layout = CorpusLayout(unit.corpus)
        clips = [
            VideoPart(
                file=layout.path(segment.videos[number].place),
                first=segment.row.start,
                num_pictures=segment.num_frames,
            )
            for segment in unit.segments
        ]
        joined = join_videos(clips, folder, key, rate_hz=Fraction(unit.dataset.fps))
        return [[each.part, each.first, each.num_extra] for each in joined]

    def places(self, finishing: Finishing) -> Iterator[tuple[int, str, str]]:
        for dataset in finishing.plan.datasets:
            for number, record in enumerate(_of(finishing.records(), dataset)):
                yield record.number, DATA_NAME, f"{dataset.name}/{_file(DATA_PATH, number)}"
            for key in dataset.video_keys:
                numbers = _video_numbers(_of(finishing.records(), dataset), key)
                for (unit, part), number in numbers.items():
                    place = _file(VIDEO_PATH, number, video_key=key)
                    yield unit, f"{key}-{part}.mp4", f"{dataset.name}/{place}"

    def finish(self, finishing: Finishing) -> Mapping[str, Any]:
        num_extra = 0
        for dataset in finishing.plan.datasets:
            num_extra += _MetaFiles(finishing, dataset).write()
        return {
            "videos": {
                "how": "packets copied in whole groups between keyframes; nothing encoded again",
                "pictures_of_no_episode": num_extra,
            },
            "statistics": "of the data; those of pictures are of the whole episode, sampled",
        }


def _of(records: Iterable[UnitRecord], dataset: DatasetPlan) -> Iterator[UnitRecord]:
    return (record for record in records if record.dataset == dataset.name)


def _file(path: str, number: int, **names: str) -> str:
    chunk, file = divmod(number, CHUNK_FILES)
    return path.format(chunk_index=chunk, file_index=file, **names)


def _video_numbers(records: Iterable[UnitRecord], key: str) -> dict[tuple[int, int], int]:
    """(unit, part) -> number of the video file of a camera, without gaps."""
    parts = [
        (record.number, part)
        for record in records
        for part in range(1 + max((part for part, *_ in record.facts["videos"][key]), default=-1))
    ]
    return {place: number for number, place in enumerate(parts)}


class _MetaFiles:
    """`meta/` of one dataset."""

    def __init__(self, finishing: Finishing, dataset: DatasetPlan) -> None:
        self.finishing, self.dataset = finishing, dataset
        self.tasks: dict[str, int] = {}
        self.stats: dict[str, list[Mapping[str, Any]]] = {}
        self.histograms: dict[str, ValueCounts] = {}
        self.num_rows = self.num_episodes = self.num_extra = self.num_files = 0
        self.waiting: list[dict[str, Any]] = []
        self.numbers = {key: _video_numbers(self._records(), key) for key in dataset.video_keys}

    def _records(self) -> Iterator[UnitRecord]:
        return _of(self.finishing.records(), self.dataset)

    def write(self) -> int:
        """Returns how many pictures of videos belong to no episode."""
        for number, record in enumerate(self._records()):
            for place, facts in enumerate(record.facts["episodes"]):
                self._add(record, number, place, facts)
            for name, histogram in record.facts["histograms"].items():
                self.histograms[name] = ValueCounts.of_json(histogram) + self.histograms.get(name)
        self._flush()
        self._put("meta/tasks.parquet", _tasks_table(list(self.tasks)))
        self._json("meta/info.json", self._info())
        self._json("meta/stats.json", self._stats())
        return self.num_extra

    def _add(self, record: UnitRecord, number: int, place: int, facts: Mapping[str, Any]) -> None:
        length, text = facts["length"], facts["text"]
        self.tasks.setdefault(text, len(self.tasks))
        chunk, file = divmod(number, CHUNK_FILES)
        row: dict[str, Any] = {
            "episode_index": self.num_episodes,
            "tasks": [text],
            "length": length,
            "data/chunk_index": chunk,
            "data/file_index": file,
            "dataset_from_index": self.num_rows,
            "dataset_to_index": self.num_rows + length,
        }
        for key in self.dataset.video_keys:
            part, first, num_extra = record.facts["videos"][key][place]
            chunk, file = divmod(self.numbers[key][record.number, part], CHUNK_FILES)
            row[f"videos/{key}/chunk_index"] = chunk
            row[f"videos/{key}/file_index"] = file
            row[f"videos/{key}/from_timestamp"] = first / self.dataset.fps
            row[f"videos/{key}/to_timestamp"] = (first + length) / self.dataset.fps
            self.num_extra += num_extra
        stats = facts["stats"]
        for name, of_feature in stats.items():
            row |= {f"stats/{name}/{key}": value for key, value in of_feature.items()}
        self.waiting.append(row)
        for name, of_feature in stats.items():
            self.stats.setdefault(name, []).append(of_feature)
        self.num_episodes += 1
        self.num_rows += length
        if len(self.waiting) == EPISODES_ROWS:
            self._flush()

    def _flush(self) -> None:
        """Write the rows of meta/episodes that wait."""
        if not self.waiting:
            return
        chunk, file = divmod(self.num_files, CHUNK_FILES)
        for row in self.waiting:
            row |= {"meta/episodes/chunk_index": chunk, "meta/episodes/file_index": file}
        columns = {name: [row[name] for row in self.waiting] for name in self.waiting[0]}
        self._put(_file(EPISODES_PATH, self.num_files), pa.table(columns))
        self.num_files += 1
        self.waiting = []

    def _info(self) -> dict[str, Any]:
        dataset = self.dataset
        return {
            "codebase_version": "v3.0",
            "robot_type": dataset.robot_type,
            "total_episodes": self.num_episodes,
            "total_frames": self.num_rows,
            "total_tasks": len(self.tasks),
            "chunks_size": CHUNK_FILES,
            "data_files_size_in_mb": DATA_MB,
            "video_files_size_in_mb": VIDEO_MB,
            "fps": dataset.fps,
            "splits": dataset.splits,
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH if dataset.video_keys else None,
            "features": {**dataset.features, **DEFAULT_FEATURES},
        }

    def _stats(self) -> dict[str, Any]:
        """Exact but for quantiles, which are of a histogram (`ingest.export.datasets.quantiles`)."""
        out = {}
        for name, parts in self.stats.items():
            out[name] = merged_stats(parts)
            if name in self.histograms:
                low, high = np.array(out[name]["min"]), np.array(out[name]["max"])
                for quantile, share in QUANTILES.items():
                    out[name][quantile] = self.histograms[name].quantile(share, low, high).tolist()
        return out

    def _put(self, place: str, table: pa.Table) -> None:
        buffer = BytesIO()
        pq.write_table(table, buffer, compression="snappy")
        self.finishing.write(f"{self.dataset.name}/{place}", buffer.getvalue())

    def _json(self, place: str, value: Any) -> None:
        text = json.dumps(value, indent=4, ensure_ascii=False, allow_nan=False)
        self.finishing.write(f"{self.dataset.name}/{place}", text.encode())


def _tasks_table(texts: Sequence[str]) -> pa.Table:
    """`tasks.parquet` as pandas writes it: the text is the index, and row i is task i."""
    table = pa.table({"task_index": pa.array(range(len(texts)), pa.int64()), "task": list(texts)})
    kinds = {"task_index": ("int64", "int64"), "task": ("unicode", "object")}
    pandas = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": [
            {
                "name": name,
                "field_name": name,
                "pandas_type": kind,
                "numpy_type": of_numpy,
                "metadata": None,
            }
            for name, (kind, of_numpy) in kinds.items()
        ],
    }
    return table.replace_schema_metadata({"pandas": json.dumps(pandas)})
