"""`meta/` of a LeRobot dataset, made from catalog rows alone: it can be rebuilt at any time, byte for byte.

The JSON Lines files only ever grow by an episode's line, so a commit appends; `eicorpus.json`, written last, says how many
episodes the rest was written for, and a start that finds another number rebuilds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ingest.disk import Disk
from ingest.lerobot_writer import default_stats
from schemas.catalog import FORMAT_VERSION
from schemas.lerobot import CHUNK_SIZE, DEFAULT_FEATURES, VIDEO_PATH, Info

OWN = "eicorpus.json"
ERASED_KEY = "erased_episodes"  # only where there are any


@dataclass(kw_only=True)
class Dataset:
    """One LeRobot dataset of a corpus while it is being written: where the next episode goes."""

    path: str  # relative to the corpus
    robot_type: str
    fps: int
    features: dict[str, dict[str, Any]]
    spec: list[list[Any]]
    episodes: int = 0
    frames: int = 0
    tasks: dict[str, int] = field(
        default_factory=dict
    )  # text -> index, in order of first appearance; an erasure pins those there are (ingest/tombstones.py)
    erased: list[int] = field(default_factory=list)  # places that hold nothing any more

    @property
    def video_keys(self) -> list[str]:
        return [name for name, feature in self.features.items() if feature["dtype"] == "video"]

    def task_indices(self, texts: Sequence[str]) -> list[int]:
        """The dataset's numbers of an episode's tasks; new texts get the next ones."""
        return [self.tasks.setdefault(text, len(self.tasks)) for text in texts]

    def pin(self, texts: Sequence[str]) -> None:
        """Number tasks before any episode is looked at."""
        self.tasks = {text: index for index, text in enumerate(texts)}

    def grow(self, row: Mapping[str, Any]) -> None:
        """Count one episode, or the place of one that was erased."""
        if row.get("erased") is not None:
            self.erased.append(self.episodes)
        self.episodes += 1
        self.frames += row["length"]


@dataclass(frozen=True, kw_only=True)
class Lines:
    """What episodes add to each JSON Lines file."""

    tasks: list[str] = field(default_factory=list)
    episodes: list[str] = field(default_factory=list)
    stats: list[str] = field(default_factory=list)

    def files(self) -> dict[str, bytes]:
        named = {
            "tasks.jsonl": self.tasks,
            "episodes.jsonl": self.episodes,
            "episodes_stats.jsonl": self.stats,
        }
        return {
            name: "".join(f"{line}\n" for line in lines).encode() for name, lines in named.items()
        }


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def add_episode(
    lines: Lines, dataset: Dataset, row: Mapping[str, Any], stats: Mapping[str, Any]
) -> list[int]:
    """Number one episode: extend `lines` and `dataset`; returns the dataset's task indices of its tasks.

    `row` is its `episodes` row; `stats` the statistics of its numeric columns and videos by feature name.
    """
    known = len(dataset.tasks)
    indices = dataset.task_indices(row["tasks"])
    lines.tasks.extend(task_lines(dataset, known))
    number = dataset.episodes
    lines.episodes.append(
        _json({"episode_index": number, "tasks": row["tasks"], "length": row["length"]})
    )
    numbering = default_stats(
        length=row["length"],
        fps=dataset.fps,
        episode_index=number,
        index_from=dataset.frames,
        task_index_counts=list(zip(indices, row["task_counts"], strict=True)),
    )
    lines.stats.append(_json({"episode_index": number, "stats": {**stats, **numbering}}))
    dataset.grow(row)
    return indices


def task_lines(dataset: Dataset, known: int = 0) -> list[str]:
    """Lines of `tasks.jsonl` from the `known`-th on."""
    tasks = list(dataset.tasks.items())[known:]
    return [_json({"task_index": index, "task": text}) for text, index in tasks]


def info_of(dataset: Dataset) -> Info:
    """`meta/info.json` for what the dataset holds now."""
    keys = dataset.video_keys
    return Info(
        robot_type=dataset.robot_type,
        total_episodes=dataset.episodes,
        total_frames=dataset.frames,
        total_tasks=len(dataset.tasks),
        total_videos=dataset.episodes * len(keys),
        total_chunks=-(-dataset.episodes // CHUNK_SIZE),
        fps=dataset.fps,
        splits={"train": f"0:{dataset.episodes}"},
        video_path=VIDEO_PATH if keys else None,
        features={**dataset.features, **DEFAULT_FEATURES},
    )


def modality_of(dataset: Dataset) -> dict[str, Any]:
    """GR00T's `meta/modality.json`: the named slices of our vectors (format page for LeRobot, §2.1)."""
    slices = {}
    start = 0
    for name, width, _ in dataset.spec:
        is_rotation = name.endswith("rot6d_cols")
        slices[name.replace(".", "_")] = {
            "start": start,
            "end": start + width,
            "rotation_type": "rotation_6d" if is_rotation else None,
            "absolute": True,
            "dtype": "float32",
        }
        start += width
    return {
        "state": {k: {**v, "original_key": "observation.state"} for k, v in slices.items()},
        "action": {k: {**v, "original_key": "action"} for k, v in slices.items()},
        "video": {key.rsplit(".", 1)[-1]: {"original_key": key} for key in dataset.video_keys},
        "annotation": {"human.task_description": {"original_key": "task_index"}},
    }


def own_of(dataset: Dataset) -> dict[str, Any]:
    """`meta/eicorpus.json`: what LeRobot has no word for; the hand frame is null where no hand has a pose."""
    has_hand = any(name.endswith(".position_m") for name, _, _ in dataset.spec)
    erased = {ERASED_KEY: dataset.erased} if dataset.erased else {}
    return {
        "format_version": FORMAT_VERSION,
        "episodes": dataset.episodes,
        **erased,
        "vector_slices": [
            {"name": name, "width": width, "unit": unit} for name, width, unit in dataset.spec
        ],
        "vector_kind": "absolute",
        "hand_frame": "hand_xfz" if has_hand else None,
        "rotation_form": "rot6d_cols",
        "action_is_for": "timestep k + 1",
    }


def whole_files(dataset: Dataset) -> dict[str, bytes]:
    """The files that are rewritten whole at each commit."""
    info = info_of(dataset).model_dump()
    pretty = json.dumps(info, indent=4, ensure_ascii=False)
    return {
        "info.json": pretty.encode(),
        "modality.json": (json.dumps(modality_of(dataset), indent=4) + "\n").encode(),
        OWN: (json.dumps(own_of(dataset), indent=4) + "\n").encode(),
    }


def append(disk: Disk, corpus: Path, dataset: Dataset, lines: Lines) -> None:
    """Project a commit: append lines, rewrite the rest, our own file last."""
    meta = corpus / dataset.path / "meta"
    disk.make_dir(meta)
    for name, data in lines.files().items():
        if data:
            disk.append(meta / name, data)
    for name, data in whole_files(dataset).items():
        disk.write(meta / name, data)


def projection(
    dataset: Dataset, episodes: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]]
) -> dict[str, bytes]:
    """Every file of `meta/` from an EMPTY dataset (its tasks may be pinned) and its (episode row, statistics) in episode order."""
    lines = Lines(tasks=task_lines(dataset))
    for row, stats in episodes:
        add_episode(lines, dataset, row, stats)
    return {**lines.files(), **whole_files(dataset)}


def is_current(corpus: Path, dataset: Dataset) -> bool:
    """Whether the last projection was finished, for exactly the episodes the catalog has, and those it has erased."""
    path = corpus / dataset.path / "meta" / OWN
    if not path.is_file():
        return False
    try:
        said = json.loads(path.read_text())
        is_whole = said["episodes"] == dataset.episodes
        return bool(is_whole and said.get(ERASED_KEY, []) == dataset.erased)
    except (ValueError, KeyError):
        return False
