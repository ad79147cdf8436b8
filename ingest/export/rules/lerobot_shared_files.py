"""The rules of LeRobot v3.0, huggingface/lerobot v0.4.4 `src/lerobot/datasets/{utils,lerobot_dataset,video_utils,compute_stats}.py`.

A reader takes rows by `index` and a picture by `from_timestamp` plus the timestamp of its row, so both are followed to the files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ingest.export.rules.export_files import BrokenFile, ExportFiles, Ranges, findings
from ingest.export.rules.lerobot_episode_files import TOLERANCE_S, column_of
from schemas.lerobot import DEFAULT_FEATURES

INFO, TASKS, STATS = "meta/info.json", "meta/tasks.parquet", "meta/stats.json"
CHUNK_FILES = 1000
DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
BASE_STATS = {"min", "max", "mean", "std", "count"}
OF_STATS = {*BASE_STATS, "q01", "q10", "q50", "q90", "q99"}
MOST_INDEX = 10**6
Columns = Mapping[str, npt.NDArray[Any]]


def lerobot_v3(out: ExportFiles, folders: list[str]) -> Iterator[str]:
    """What breaks a rule, in each dataset."""
    for folder in folders:
        yield from findings(folder, _Dataset(out.below(folder)).problems)


class _Dataset:
    def __init__(self, files: ExportFiles) -> None:
        self.files, self.prefix = files, files.prefix
        self.ranges = Ranges()
        self.info: dict[str, Any] = {}
        self.is_counted = False  # whether the episode has as many rows as it says
        # An episode is in the file of the one before it, or in the next.
        self.table = lru_cache(maxsize=1)(files.table)
        self.shown = lru_cache(maxsize=16)(self._shown)

    def problems(self) -> Iterator[str]:
        self.info = self.files.page(INFO)
        yield from self._info()
        features: Mapping[str, Mapping[str, Any]] = self.info["features"]
        self.videos = [n for n, feature in features.items() if feature["dtype"] == "video"]
        self.numeric = {n: f for n, f in features.items() if f["dtype"] != "video"}
        self.texts = self.files.table(TASKS)["task"].to_pylist()
        yield from self._tasks()
        num_rows = num_episodes = 0
        for row in self._episodes():
            place = f"{self.prefix}meta/episodes: episode {num_episodes}"
            if row["episode_index"] != num_episodes:
                yield f"{place} is numbered {row['episode_index']}: not numbered 0 to N - 1"
            self.is_counted = False
            yield from findings(place, partial(self._rows, row, num_rows, place))
            for key in self.videos if self.is_counted else ():
                yield from findings(place, partial(self._pictures, row, key, place))
            num_episodes, num_rows = num_episodes + 1, num_rows + row["length"]
        for name, counted in (("total_episodes", num_episodes), ("total_frames", num_rows)):
            if self.info[name] != counted:
                yield f"{self.prefix}{INFO}: {name} is {self.info[name]}, and {counted} are there"
        yield from findings(f"{self.prefix}{STATS}", self._stats)

    def _info(self) -> Iterator[str]:
        info, place = self.info, f"{self.prefix}{INFO}"
        if info["codebase_version"] != "v3.0":
            yield f"{place}: codebase_version {info['codebase_version']!r}; expected v3.0"
        if info["data_path"] != DATA or info["video_path"] not in (VIDEO, None):
            raise BrokenFile(f"{place}: other paths than LeRobot's")
        if type(info["fps"]) is not int or info["fps"] < 1:
            raise BrokenFile(f"{place}: fps {info['fps']!r} is no whole number")
        if info["chunks_size"] != CHUNK_FILES:
            yield f"{place}: chunks_size {info['chunks_size']!r}; expected {CHUNK_FILES}"
        for name, feature in info["features"].items():
            if "/" in name:
                yield f"{place}: the name {name!r} has a slash"
            if "image" in name and feature["dtype"] != "video":
                yield f"{place}: {name}: names with image are of pictures"
        if any(info["features"].get(n) != feature for n, feature in DEFAULT_FEATURES.items()):
            yield f"{place}: the five columns of every dataset are not declared"

    def _tasks(self) -> Iterator[str]:
        place = f"{self.prefix}{TASKS}"
        if self.files.table(TASKS)["task_index"].to_pylist() != list(range(len(self.texts))):
            yield f"{place}: row i is not task i"
        if self.info["total_tasks"] != len(self.texts):
            yield f"{place}: {len(self.texts)} tasks; info.json says {self.info['total_tasks']}"

    def _episodes(self) -> Iterator[dict[str, Any]]:
        """Rows of all files of `meta/episodes`, which are numbered without a gap."""
        number = 0
        while number == 0 or self.files.has(_file(EPISODES, number)):
            for batch in self.files.table(_file(EPISODES, number)).to_batches(max_chunksize=256):
                yield from batch.to_pylist()
            number += 1

    def _rows(self, row: Mapping[str, Any], before: int, place: str) -> Iterator[str]:
        data = _named(DATA, row["data/chunk_index"], row["data/file_index"])
        end = before + row["length"]
        if (row["dataset_from_index"], row["dataset_to_index"]) != (before, end):
            yield f"{place}: from and to are not its rows, {before} to {end}"
        own = self._own(self.table(data), row["episode_index"], data)
        if len(own["index"]) != row["length"]:
            yield f"{place}: {len(own['index'])} rows in {data}; its length is {row['length']}"
            return
        self.is_counted = True
        yield from self._numbers(row, own, before, place)
        for name, values in own.items():
            if values.dtype.kind == "f":
                if not np.isfinite(values).all():
                    yield f"{place}: {name} has a number that is not finite"
                self.ranges.add(name, values)
            yield from self._of_episode(row, name, values, place)

    def _numbers(
        self, row: Mapping[str, Any], own: Columns, before: int, place: str
    ) -> Iterator[str]:
        """The five columns of every dataset."""
        steps = np.arange(row["length"])
        for name, numbers_of_rows in (("index", steps + before), ("frame_index", steps)):
            if (own[name][:, 0] != numbers_of_rows).any():
                yield f"{place}: {name} is not contiguous"
        if (np.abs(own["timestamp"][:, 0] - steps / self.info["fps"]) > TOLERANCE_S).any():
            yield f"{place}: timestamp is not frame_index / fps"
        numbers = np.unique(own["task_index"]).tolist()
        if not all(0 <= n < len(self.texts) for n in numbers):
            yield f"{place}: a task that tasks.parquet lacks"
        elif {self.texts[n] for n in numbers} != set(row["tasks"]):
            yield f"{place}: its rows have other texts than it"

    def _own(self, table: pa.Table, number: int, data: str) -> Columns:
        """Columns of an episode in its data file.

        Raises:
            BrokenFile: other columns than `info.json` declares.
        """
        shown = f"{self.prefix}{data}"
        if set(table.column_names) != set(self.numeric):
            raise BrokenFile(f"{shown}: other columns than info.json")
        place = np.flatnonzero(table["episode_index"].to_numpy() == number)
        start, stop = (int(place[0]), int(place[-1]) + 1) if len(place) else (0, 0)
        own = table.slice(start, stop - start)
        return {n: column_of(own, n, feature, shown) for n, feature in self.numeric.items()}

    def _of_episode(
        self, row: Mapping[str, Any], name: str, values: npt.NDArray[Any], place: str
    ) -> Iterator[str]:
        if row.get(f"stats/{name}/count") != [len(values)]:
            yield f"{place}: stats/{name}/count is not its number of rows"
            return
        for key, bound in (("min", values.min(axis=0)), ("max", values.max(axis=0))):
            stated: Any = row.get(f"stats/{name}/{key}")
            if np.shape(stated) != bound.shape or not np.allclose(
                np.array(stated, dtype=float), bound.astype(float), rtol=1e-5, atol=1e-6
            ):
                yield f"{place}: stats/{name}/{key} is not that of its rows"

    def _pictures(self, row: Mapping[str, Any], key: str, place: str) -> Iterator[str]:
        file = _named(VIDEO, row[f"videos/{key}/chunk_index"], row[f"videos/{key}/file_index"], key)
        fps, length = self.info["fps"], row["length"]
        begins = row[f"videos/{key}/from_timestamp"] * fps
        if abs(begins - round(begins)) > TOLERANCE_S * fps:
            yield f"{place}: {key} begins between two pictures"
            return
        lasts = (row[f"videos/{key}/to_timestamp"] - row[f"videos/{key}/from_timestamp"]) * fps
        if abs(lasts - length) > TOLERANCE_S * fps:
            yield f"{place}: {key} lasts {lasts:.3g} pictures, not {length}"
        first, shown = round(begins), self.shown(file)
        missing = next((n for n in range(first, first + length) if n not in shown), None)
        if missing is not None:
            yield f"{place}: {file} has no picture {missing}"
        mean: Any = row.get(f"stats/{key}/mean")
        if np.shape(mean) != (3, 1, 1) or not 0 <= np.min(mean) <= np.max(mean) <= 1:
            yield f"{place}: {key} has no statistics of three colours, [3][1][1] in [0, 1]"

    def _shown(self, file: str) -> frozenset[int]:
        """Numbers k of the pictures of a video that are shown at k / fps."""
        fps = self.info["fps"]
        numbers = (float(time_s) * fps for time_s in self.files.picture_times(file))
        return frozenset(round(n) for n in numbers if abs(n - round(n)) <= TOLERANCE_S * fps)

    def _stats(self) -> Iterator[str]:
        """After the episodes are read: least and greatest values are those of the data."""
        stats, place = self.files.page(STATS), f"{self.prefix}{STATS}"
        for name in self.numeric:
            statistics = OF_STATS if name not in DEFAULT_FEATURES else BASE_STATS
            if absent := sorted(statistics - set(stats.get(name, ()))):
                yield f"{place}: {name} lacks {', '.join(absent)}"
            elif self.ranges.differ(name, stats[name]):
                yield f"{place}: min and max of {name} are not those of the data"
        for name in self.videos:
            if np.shape(stats.get(name, {}).get("mean")) != (3, 1, 1):
                yield f"{place}: {name} has no statistics of three colours"


def _file(path: str, number: int) -> str:
    return path.format(chunk_index=number // CHUNK_FILES, file_index=number % CHUNK_FILES)


def _named(path: str, chunk: int, file: int, key: str = "") -> str:
    """
    Raises:
        ValueError: a number that no file has.
    """
    if not all(type(n) is int and 0 <= n < MOST_INDEX for n in (chunk, file)):
        raise ValueError(f"chunk {chunk!r}, file {file!r}")
    return path.format(chunk_index=chunk, file_index=file, video_key=key)
