"""`meta/` of a LeRobot dataset, made from catalog rows alone: it can be rebuilt at any time, byte for byte.

The JSON Lines files only ever grow by an episode's line, so a commit appends; `eicorpus.json`, written last and when the rest is durable,
has their sizes and digests. A writer that finds anything else in `meta/` than that and the catalog say rebuilds it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from ingest.corpus.column_checks import check_place
from ingest.corpus.lerobot_writer import default_stats
from ingest.corpus.tombstones import ErasedPlace
from ingest.storage.local import LocalStorage, within
from schemas.catalog import FORMAT_VERSION
from schemas.committed_rows import EpisodeRow
from schemas.json_text import JsonLimits, parse_json
from schemas.lerobot import CHUNK_SIZE, DEFAULT_FEATURES, VIDEO_PATH, Info

SIDECAR = "eicorpus.json"
ERASED_KEY = "erased_episodes"  # only where there are any
LINES_KEY = "line_files"  # absent from what was written before it existed
# Of the files that are rewritten whole: `eicorpus.json` lists what was erased, four million episodes at most.
WHOLE_LIMITS = JsonLimits(max_bytes=128 << 20, max_elements=1 << 22)
TASKS, EPISODES, STATS = LINE_FILES = ("tasks.jsonl", "episodes.jsonl", "episodes_stats.jsonl")


class LineFile:
    """Size and digest of a JSON Lines file, which go on as it grows."""

    def __init__(self, existing: BinaryIO | None = None) -> None:
        """Of a file that is there, or of an empty one."""
        self._sha256, self.num_bytes = hashlib.sha256(), 0
        while existing is not None and (piece := existing.read(2**20)):
            self._sha256.update(piece)
            self.num_bytes += len(piece)

    def add(self, lines: Iterable[str]) -> None:
        for line in lines:
            data = f"{line}\n".encode()
            self._sha256.update(data)
            self.num_bytes += len(data)

    def as_row(self) -> dict[str, Any]:
        return {"num_bytes": self.num_bytes, "sha256": self._sha256.hexdigest()}


def _empty_files() -> dict[str, LineFile]:
    return {name: LineFile() for name in LINE_FILES}


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
    )  # text -> index, in order of first appearance; an erasure pins those there are (ingest/corpus/tombstones.py)
    erased: list[int] = field(default_factory=list)  # places that hold nothing any more
    # What the JSON Lines files hold after `add_episode` of every episode, or by `is_current`.
    files: dict[str, LineFile] = field(default_factory=_empty_files, compare=False)

    def __post_init__(self) -> None:
        check_place(self.path, "dataset")

    @property
    def video_keys(self) -> list[str]:
        return [name for name, feature in self.features.items() if feature["dtype"] == "video"]

    def task_indices(self, texts: Sequence[str]) -> list[int]:
        """The dataset's numbers of an episode's tasks. New texts get the next ones."""
        return [self.tasks.setdefault(text, len(self.tasks)) for text in texts]

    def pin(self, texts: Sequence[str]) -> None:
        """Number tasks before any episode is looked at."""
        self.tasks = {text: index for index, text in enumerate(texts)}
        self.files = _empty_files()
        self.files[TASKS].add(task_lines(self))

    def grow(self, length: int, *, is_erased: bool = False) -> None:
        """Count one episode, or the place of one that was erased."""
        if is_erased:
            self.erased.append(self.episodes)
        self.episodes += 1
        self.frames += length


@dataclass(frozen=True, kw_only=True)
class JsonlAppends:
    """What episodes add to each JSON Lines file."""

    tasks: list[str] = field(default_factory=list)
    episodes: list[str] = field(default_factory=list)
    stats: list[str] = field(default_factory=list)

    def named(self) -> dict[str, list[str]]:
        return {TASKS: self.tasks, EPISODES: self.episodes, STATS: self.stats}

    def files(self) -> dict[str, bytes]:
        return {
            name: "".join(f"{line}\n" for line in lines).encode()
            for name, lines in self.named().items()
        }


# `json.dumps` makes an encoder for each call.
_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def add_episode(
    lines: JsonlAppends,
    dataset: Dataset,
    row: EpisodeRow | ErasedPlace,
    stats: Mapping[str, Any],
) -> list[int]:
    """Number one episode: extend `lines` and `dataset`. Returns the dataset's task indices of its tasks.

    `stats` are the statistics of its numeric columns and videos by feature name.
    """
    known = len(dataset.tasks)
    indices = dataset.task_indices(row.tasks)
    number = dataset.episodes
    about = {"episode_index": number, "tasks": row.tasks, "length": row.length}
    numbering = default_stats(
        length=row.length,
        fps=dataset.fps,
        episode_index=number,
        index_from=dataset.frames,
        task_index_counts=list(zip(indices, row.task_counts, strict=True)),
    )
    added = JsonlAppends(
        tasks=task_lines(dataset, known),
        episodes=[_json(about)],
        stats=[_json({"episode_index": number, "stats": {**stats, **numbering}})],
    )
    for name, new in added.named().items():
        lines.named()[name].extend(new)
        dataset.files[name].add(new)
    dataset.grow(row.length, is_erased=isinstance(row, ErasedPlace))
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


def sidecar_of(dataset: Dataset) -> dict[str, Any]:
    """`meta/eicorpus.json`: what LeRobot has no word for. The hand frame is null where no hand has a pose."""
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
        LINES_KEY: {name: file.as_row() for name, file in dataset.files.items()},
    }


def older_sidecar(own: bytes) -> bytes:
    """The bytes of `eicorpus.json` as they were before it had digests."""
    sidecar = parse_json(own, limits=WHOLE_LIMITS)
    del sidecar[LINES_KEY]
    return _pretty(sidecar)


def _pretty(value: Any) -> bytes:
    return (json.dumps(value, indent=4) + "\n").encode()


def whole_files(dataset: Dataset) -> dict[str, bytes]:
    """The files that are rewritten whole at each commit."""
    info = info_of(dataset).model_dump()
    pretty = json.dumps(info, indent=4, ensure_ascii=False)
    return {
        "info.json": pretty.encode(),
        "modality.json": _pretty(modality_of(dataset)),
        SIDECAR: _pretty(sidecar_of(dataset)),
    }


def append(disk: LocalStorage, corpus: Path, grown: Iterable[tuple[Dataset, JsonlAppends]]) -> None:
    """Project a commit: append lines and rewrite the rest. What vouches for it last, when it is durable."""
    store, vouching = disk.at(corpus), {}
    for dataset, lines in grown:
        meta = f"{dataset.path}/meta"
        files = whole_files(dataset)
        vouching[f"{meta}/{SIDECAR}"] = files.pop(SIDECAR)
        for name, data in files.items():
            store.put(f"{meta}/{name}", data)
        for name, data in lines.files().items():
            if data:
                store.append(store.local_path(f"{meta}/{name}"), data)
    disk.sync()
    for key, data in vouching.items():
        store.put(key, data)


def replace(disk: LocalStorage, corpus: Path, dataset: Dataset, lines: JsonlAppends) -> None:
    """Write all of `meta/`, from an `empty` dataset and the lines of all its episodes."""
    store, meta = disk.at(corpus), f"{dataset.path}/meta"
    store.delete(f"{meta}/{SIDECAR}")
    disk.sync()  # before anything that it vouches for changes
    for name, data in lines.files().items():
        store.put(f"{meta}/{name}", data)
    append(disk, corpus, [(dataset, JsonlAppends())])


def project(
    dataset: Dataset, episodes: Iterable[tuple[EpisodeRow | ErasedPlace, Mapping[str, Any]]]
) -> JsonlAppends:
    """All lines of an EMPTY dataset (its tasks may be pinned), which grows, by its (episode row, statistics) in episode order."""
    lines = JsonlAppends(tasks=task_lines(dataset))
    for row, stats in episodes:
        add_episode(lines, dataset, row, stats)
    return lines


def is_current(disk: LocalStorage, corpus: Path, dataset: Dataset) -> bool:
    """Whether `meta/` is whole, for exactly the episodes the catalog has and those it has erased. Then `dataset` goes on from there.

    All of it is read (0.6 s of CPU a GB): a file that lost its bytes to a power cut may have the size of before. A file of another size
    is not: it may be of any size.
    """
    if not has_sizes(disk, corpus, dataset.path):
        return False
    meta = within(corpus, f"{dataset.path}/meta")
    try:
        for name in LINE_FILES:
            with disk.reading(meta / name) as file:
                dataset.files[name] = LineFile(file)
        return all(
            disk.read(meta / name, most=len(data) + 1) == data
            for name, data in whole_files(dataset).items()
        )
    except FileNotFoundError:
        return False


def has_sizes(disk: LocalStorage, corpus: Path, dataset_path: str) -> bool:
    """Whether the JSON Lines files have the sizes that were vouched for: what a start can afford where nothing was left unfinished."""
    meta = within(corpus, f"{dataset_path}/meta")
    try:
        sidecar = parse_json(
            disk.read(meta / SIDECAR, most=WHOLE_LIMITS.max_bytes + 1), limits=WHOLE_LIMITS
        )[LINES_KEY]
        sizes = {name: (meta / name).lstat().st_size for name in LINE_FILES}
        return sizes == {name: row["num_bytes"] for name, row in sidecar.items()}
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return False
