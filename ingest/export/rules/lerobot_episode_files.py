"""What every reader of LeRobot v2.1 takes for granted: `meta/`, one data file and one video of each camera an episode.

Source: huggingface/lerobot v0.3.3 `src/lerobot/datasets/{lerobot_dataset,utils,video_utils}.py`. LDA, GR00T, openpi and LingBot-VA read it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import ValidationError

from ingest.export.rules.export_files import BrokenFile, ExportFiles, Ranges, matrix
from schemas.invalid import invalid
from schemas.lerobot import CHUNK_SIZE, DATA_PATH, DEFAULT_FEATURES, VIDEO_PATH, Info

INFO, TASKS, EPISODES, EPISODES_STATS = (
    "meta/info.json",
    "meta/tasks.jsonl",
    "meta/episodes.jsonl",
    "meta/episodes_stats.jsonl",
)
TOLERANCE_S = 1e-4  # of a timestamp, in LeRobot's reader


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EpisodeRows:
    """One episode. `columns`: [K, n] of each feature that could be read."""

    number: int
    line: Mapping[str, Any]  # of episodes.jsonl
    columns: Mapping[str, npt.NDArray[Any]]
    place: str  # of its data file, for findings


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DatasetV21:
    """One dataset of an export."""

    files: ExportFiles
    info: Info
    texts: Mapping[int, str]
    ranges: Ranges = field(default_factory=Ranges)  # filled while episodes are read

    @property
    def video_keys(self) -> list[str]:
        return [n for n, feature in self.info.features.items() if feature["dtype"] == "video"]

    @property
    def numeric(self) -> dict[str, dict[str, Any]]:
        return {n: f for n, f in self.info.features.items() if f["dtype"] != "video"}


def open_dataset(files: ExportFiles) -> DatasetV21:
    """
    Raises:
        BrokenFile: `info.json` or `tasks.jsonl` cannot be read.
    """
    place = f"{files.prefix}{INFO}"
    try:
        info = Info.model_validate(files.page(INFO))
    except ValidationError as error:
        raise BrokenFile(f"{place}: {invalid(error, Info)}") from error
    if (info.data_path, info.video_path or VIDEO_PATH, info.chunks_size) != (
        DATA_PATH,
        VIDEO_PATH,
        CHUNK_SIZE,
    ):
        raise BrokenFile(f"{place}: other paths than LeRobot's")
    texts = {}
    for number, line in enumerate(files.lines(TASKS)):
        if line.get("task_index") != number or not isinstance(line.get("task"), str):
            raise BrokenFile(f"{files.prefix}{TASKS}: line {number + 1} is not task {number}")
        texts[number] = line["task"]
    return DatasetV21(files=files, info=info, texts=texts)


def dataset_findings(
    dataset: DatasetV21, of_episode: Callable[[EpisodeRows], Iterator[str]]
) -> Iterator[str]:
    """The rules of all v2.1 readers, and those of a consumer for each episode."""
    files, info = dataset.files, dataset.info
    place = f"{files.prefix}{INFO}"
    if any(info.features.get(name) != feature for name, feature in DEFAULT_FEATURES.items()):
        yield f"{place}: the five columns of every dataset are not declared"
    num_frames = num_episodes = 0
    for number, line in enumerate(files.lines(EPISODES)):
        where = f"{files.prefix}{EPISODES}: line {number + 1}"
        if line.get("episode_index") != number:
            yield f"{where} is not episode {number}: episodes are not in order"
        length = line.get("length")
        if not isinstance(length, int) or length < 1:
            yield f"{where}: length {length!r}"
            continue
        episode = _rows(dataset, number, line)
        yield from _row_findings(dataset, episode, length, num_frames)
        yield from _video_findings(dataset, number, length)
        yield from of_episode(episode)
        num_episodes, num_frames = num_episodes + 1, num_frames + length
    counted = (num_episodes, num_frames, len(dataset.texts))
    if counted != (info.total_episodes, info.total_frames, info.total_tasks):
        yield f"{place}: {counted} episodes, timesteps and tasks are there, not what it says"
    num_stats = sum(1 for _ in files.lines(EPISODES_STATS))
    if num_stats != num_episodes:
        yield f"{files.prefix}{EPISODES_STATS}: {num_stats} lines for {num_episodes} episodes"


def _rows(dataset: DatasetV21, number: int, line: Mapping[str, Any]) -> EpisodeRows:
    place = DATA_PATH.format(episode_chunk=number // CHUNK_SIZE, episode_index=number)
    table = dataset.files.table(place)
    shown = f"{dataset.files.prefix}{place}"
    absent = set(dataset.numeric) ^ set(table.column_names)
    if absent:
        raise BrokenFile(f"{shown}: other columns than info.json: {', '.join(sorted(absent))}")
    columns = {}
    for name, feature in dataset.numeric.items():
        columns[name] = column_of(table, name, feature, shown)
    return EpisodeRows(number=number, line=line, columns=columns, place=shown)


def column_of(
    table: pa.Table, name: str, feature: Mapping[str, Any], place: str
) -> npt.NDArray[Any]:
    """[K, n] of a feature, of its width and type.

    Raises:
        BrokenFile: it is another one than `info.json` says.
    """
    try:
        values = matrix(table[name])
    except ValueError as error:
        raise BrokenFile(f"{place}: {name}: {error}") from error
    if values.dtype != np.dtype(feature["dtype"]) or [values.shape[1]] != list(feature["shape"]):
        stored, declared = (
            f"{values.dtype} [{values.shape[1]}]",
            f"{feature['dtype']} {feature['shape']}",
        )
        raise BrokenFile(f"{place}: {name} is {stored}, in info.json {declared}")
    return values


def _row_findings(
    dataset: DatasetV21, episode: EpisodeRows, length: int, before: int
) -> Iterator[str]:
    own, place = episode.columns, episode.place
    count = len(next(iter(own.values())))
    if count != length:
        yield f"{place}: {count} rows of an episode with another length, {length}"
        return
    steps = np.arange(count)
    numbers = {"frame_index": steps, "index": steps + before, "episode_index": episode.number}
    for name, values in numbers.items():
        if (own[name][:, 0] != values).any():
            yield f"{place}: {name} is not contiguous"
    if (np.abs(own["timestamp"][:, 0] - steps / dataset.info.fps) > TOLERANCE_S).any():
        yield f"{place}: timestamp is not frame_index / fps"
    unknown = set(own["task_index"][:, 0].tolist()) - set(dataset.texts)
    if unknown:
        yield f"{place}: task {min(unknown)} is one that tasks.jsonl lacks"
    for name, values in own.items():
        if values.dtype == np.float32:
            if not np.isfinite(values).all():
                yield f"{place}: {name} has a number that is not finite"
            dataset.ranges.add(name, values)


def _video_findings(dataset: DatasetV21, number: int, length: int) -> Iterator[str]:
    for key in dataset.video_keys:
        place = VIDEO_PATH.format(
            episode_chunk=number // CHUNK_SIZE, video_key=key, episode_index=number
        )
        times_s = dataset.files.picture_times(place)
        if len(times_s) < length:
            yield f"{dataset.files.prefix}{place}: fewer pictures than rows, {len(times_s)} < {length}"
            continue
        late = [
            k
            for k, time_s in enumerate(times_s[:length])
            if abs(float(time_s) - k / dataset.info.fps) > TOLERANCE_S
        ]
        if late:
            yield f"{dataset.files.prefix}{place}: picture {late[0]} is not shown at k / fps"


def six_statistics(name: str, width: int, stats: Any) -> Iterator[str]:
    """LDA and GR00T slice every statistic like the vector, for which `count` is too short: exactly six statistics are allowed."""
    names = {"mean", "std", "min", "max", "q01", "q99"}
    if not isinstance(stats, dict) or set(stats) != names:
        yield f"{name} has not exactly the six statistics {', '.join(sorted(names))}"
        return
    for key, value in stats.items():
        if np.shape(value) != (width,) or not np.isfinite(np.array(value, float)).all():
            yield f"{name}: {key} has another width than {width}, or no finite number"
