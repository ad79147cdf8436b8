"""The files that every v2.1 consumer reads: one Parquet file and one video of each camera an episode, and `meta/` over them.

A format of this family says which columns and cameras an episode has and adds files of its own to `meta/`. Videos are cut exactly
(`ingest.video.cut`), because these loaders take picture k for row k.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ingest.corpus.layout import CorpusLayout, data_file, video_file
from ingest.export.datasets.format import ExportUnit, Finishing
from ingest.export.datasets.plan import DatasetPlan, ExportedSegment, ExportPlan, UnfitRows
from ingest.export.datasets.quantiles import ValueCounts, value_counts
from ingest.export.datasets.rows import (
    QUANTILES,
    Columns,
    column_stats,
    default_columns,
    merged_stats,
    read_columns,
    rows_table,
    stats_of_columns,
)
from ingest.video.cut import cut_video
from schemas.lerobot import CHUNK_SIZE, DEFAULT_FEATURES, VIDEO_PATH, Info

Features = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WrittenDataset:
    """A dataset whose episodes are written: what files of `meta/` are made from."""

    dataset: DatasetPlan
    features: Features
    # "length", "text", "stats", "trained" (statistics of `trained_as`) and what `facts_of` adds, in their order
    episodes: list[dict[str, Any]]
    counts: Mapping[str, ValueCounts]  # of each column of float32

    @property
    def tasks(self) -> list[str]:
        """Texts by number."""
        return list(dict.fromkeys(episode["text"] for episode in self.episodes))

    def stats_of(self, column: str) -> dict[str, Any]:
        """Statistics of a column over all episodes; exact but for quantiles (`ingest.export.datasets.quantiles`)."""
        parts = [e["trained"].get(column, e["stats"].get(column)) for e in self.episodes]
        merged = merged_stats([part for part in parts if part is not None])
        low, high = np.array(merged["min"]), np.array(merged["max"])
        for name in ("q01", "q99"):
            merged[name] = self.counts[column].quantile(QUANTILES[name], low, high).tolist()
        return merged


class LeRobotV21(ABC):
    """A format over LeRobot v2.1 files."""

    name: ClassVar[str]

    # --- what a format says --------------------------------------------------------------------------------------------

    @abstractmethod
    def columns(self, dataset: DatasetPlan, segment: ExportedSegment, stored: Columns) -> Columns:
        """[K, n] of each column of an episode, without the five of every dataset. `stored`: those of the corpus."""

    @abstractmethod
    def numeric_features(self, dataset: DatasetPlan) -> Features:
        """The features of `columns`."""

    def cameras(self, dataset: DatasetPlan) -> Mapping[str, str]:
        """Key of a camera in the corpus -> its key in the export; cameras that are not named are left out."""
        return {key: key for key in dataset.video_keys}

    def facts_of(
        self, dataset: DatasetPlan, segment: ExportedSegment, stored: Columns, columns: Columns
    ) -> Mapping[str, Any]:
        """What `meta_files` needs of an episode besides its statistics; JSON."""
        return {}

    def trained_as(self, dataset: DatasetPlan, columns: Columns) -> Columns:
        """[N, n] float32 of columns whose statistics a trainer wants of other numbers than are stored, such as differences."""
        return {}

    def episode_lines(self, episode: Mapping[str, Any]) -> Mapping[str, Any]:
        """Further keys of its line in `episodes.jsonl`."""
        return {}

    @abstractmethod
    def meta_files(self, written: WrittenDataset) -> Mapping[str, bytes]:
        """Files of `meta/` besides LeRobot's own, and files of LeRobot's that it replaces."""

    def top_files(self, finishing: Finishing, written: list[WrittenDataset]) -> Mapping[str, bytes]:
        """Files beside the datasets: how to train on them."""
        return {}

    def page(self, written: list[WrittenDataset]) -> Mapping[str, Any]:
        """Further keys of the page of the export."""
        return {}

    # --- as `Format` ---------------------------------------------------------------------------------------------------

    def settings(self) -> Mapping[str, Any]:
        return {}

    def left_out(self, rows: pa.Table) -> Iterable[UnfitRows]:
        return ()

    def divide(self, dataset: DatasetPlan) -> Iterable[DatasetPlan]:
        return (dataset,)

    @abstractmethod
    def check(self, plan: ExportPlan) -> None:
        """
        Raises:
            ConfigError: the plan has what the format cannot hold.
        """

    def write(self, unit: ExportUnit, folder: Path) -> Mapping[str, Any]:
        dataset, episodes = unit.dataset, []
        values_of: dict[str, list[npt.NDArray[Any]]] = {}
        how: Counter[str] = Counter()
        features, cameras = self.numeric_features(dataset), self.cameras(dataset)
        for segment in unit.segments:
            stored = read_columns(unit.corpus, dataset, segment)
            columns = self.columns(dataset, segment, stored)
            defaults = default_columns(segment, dataset.fps)
            path = folder / data_file(segment.index)
            path.parent.mkdir(parents=True, exist_ok=True)
            table = rows_table({**columns, **defaults}, features)
            pq.write_table(table, path, compression="snappy")
            stats = stats_of_columns({**columns, **defaults}, {})
            trained = {n: v for n, v in self.trained_as(dataset, columns).items() if len(v)}
            for name, values in {**columns, **defaults, **trained}.items():
                if values.dtype == np.float32:
                    values_of.setdefault(name, []).append(values.reshape(len(values), -1))
            for video in segment.videos:
                if (key := cameras.get(video.key)) is None:
                    continue
                out = folder / video_file(segment.index, key)
                out.parent.mkdir(parents=True, exist_ok=True)
                how[
                    cut_video(
                        CorpusLayout(unit.corpus).path(video.place),
                        segment.row.start,
                        segment.num_frames,
                        segment.length,
                        out,
                        rate_hz=Fraction(dataset.fps),
                        sha256=video.sha256,
                    )
                ] += 1
                stats[key] = dict(video.stats)
            facts = self.facts_of(dataset, segment, stored, columns)
            episodes.append(
                {
                    "length": segment.num_frames,
                    "text": segment.row.text,
                    "stats": stats,
                    "trained": {n: column_stats(v, {}) for n, v in trained.items()},
                    **facts,
                }
            )
        of_columns = {
            name: value_counts(np.concatenate(each)).as_json() for name, each in values_of.items()
        }
        return {"episodes": episodes, "videos": how, "counts": of_columns}

    def places(self, finishing: Finishing) -> Iterator[tuple[int, str, str]]:
        for record in finishing.records():
            for name in record.files:
                yield record.number, name, f"{record.dataset}/{name}"

    def finish(self, finishing: Finishing) -> Mapping[str, Any]:
        how: Counter[str] = Counter()
        all_written = []
        for dataset in finishing.plan.datasets:
            records = [r for r in finishing.records() if r.dataset == dataset.name]
            counts: dict[str, ValueCounts] = {}
            for record in records:
                how.update(record.facts["videos"])
                for name, raw in record.facts["counts"].items():
                    counts[name] = ValueCounts.of_json(raw) + counts.get(name)
            written = WrittenDataset(
                dataset=dataset,
                features=self._features(dataset),
                episodes=[episode for record in records for episode in record.facts["episodes"]],
                counts=counts,
            )
            files = {**self._lerobot_meta(written), **self.meta_files(written)}
            for name, data in files.items():
                finishing.write(f"{dataset.name}/meta/{name}", data)
            all_written.append(written)
        for name, data in self.top_files(finishing, all_written).items():
            finishing.write(name, data)
        return {
            **self.page(all_written),
            "videos": dict(sorted(how.items())),
            "statistics": "of the data; those of pictures are of the whole episode, sampled",
        }

    def _features(self, dataset: DatasetPlan) -> Features:
        videos = {out: dataset.features[key] for key, out in self.cameras(dataset).items()}
        return {**self.numeric_features(dataset), **videos}

    def _lerobot_meta(self, written: WrittenDataset) -> Mapping[str, bytes]:
        dataset, episodes = written.dataset, written.episodes
        num_videos = sum(f["dtype"] == "video" for f in written.features.values())
        info = Info(
            robot_type=dataset.robot_type,
            total_episodes=len(episodes),
            total_frames=sum(episode["length"] for episode in episodes),
            total_tasks=len(written.tasks),
            total_videos=len(episodes) * num_videos,
            total_chunks=-(-len(episodes) // CHUNK_SIZE),
            fps=dataset.fps,
            splits=dataset.splits,
            video_path=VIDEO_PATH if num_videos else None,
            features={**{n: dict(f) for n, f in written.features.items()}, **DEFAULT_FEATURES},
        )
        tasks = ({"task_index": i, "task": text} for i, text in enumerate(written.tasks))
        lines = (
            {
                "episode_index": i,
                "tasks": [episode["text"]],
                "length": episode["length"],
                **self.episode_lines(episode),
            }
            for i, episode in enumerate(episodes)
        )
        stats = (
            {"episode_index": i, "stats": episode["stats"]} for i, episode in enumerate(episodes)
        )
        return {
            "info.json": as_json(info.model_dump()),
            "tasks.jsonl": json_lines(tasks),
            "episodes.jsonl": json_lines(lines),
            "episodes_stats.jsonl": json_lines(stats),
        }


def as_json(value: Any) -> bytes:
    """A page of `meta/`."""
    return (json.dumps(value, indent=4, ensure_ascii=False, allow_nan=False) + "\n").encode()


def json_lines(values: Iterable[Any]) -> bytes:
    """A list of `meta/`, one line each."""
    lines = (json.dumps(value, ensure_ascii=False, allow_nan=False) for value in values)
    return "".join(f"{line}\n" for line in lines).encode()
