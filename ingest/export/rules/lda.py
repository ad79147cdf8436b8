"""The rules of LDA-1B's loader, `lda/dataloader/gr00t_lerobot/{data_config,datasets,schema,embodiment_tags}.py` at 2d72cf8 and 68753d1."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from ingest.export.rules.export_files import ExportFiles, findings, literals
from ingest.export.rules.lerobot_episode_files import (
    DatasetV21,
    EpisodeRows,
    dataset_findings,
    open_dataset,
    six_statistics,
)

MIXTURE = "lda_mixture.py"
# Names of its main branch, of its newest branch, and of its first version.
MODALITY = ("meta/modality.json", "meta/modality_eef.json")
STATS = ("meta/stats.json", "meta/stats_eef.json", "meta/stats_gr00t.json")
MASKS = {"left": "left_wrist_mask", "right": "right_wrist_mask"}
CAMERA, TEXT_KEY = "top_head", "language.action_text"
# Its padding goes by parts of a key: position and rotation 3 numbers, a gripper 1.
WIDTHS = {"eef_position": 3, "eef_rotation": 3, "gripper": 1}
EULER = "euler_angles_rpy"
SCALAR_COLUMNS = ("eef.left.hand", "eef.right.hand")  # every other column must be a vector


def lda(out: ExportFiles, folders: list[str]) -> Iterator[str]:
    """What breaks a rule, in each dataset and in the mixture."""
    for folder in folders:
        yield from findings(folder, partial(_dataset, out, folder))
    yield from findings(MIXTURE, partial(_mixture, out, folders))


def _mixture(out: ExportFiles, folders: list[str]) -> Iterator[str]:
    named = literals(out.program(MIXTURE))
    if named.get("VIDEO_BACKEND") != "decord":
        yield f"{MIXTURE}: the video backend is not decord; torchvision_av returns other pictures"
    if [entry[0] for entry in named["MIXTURE"]] != folders:
        yield f"{MIXTURE}: names other folders than the export has"


def _dataset(out: ExportFiles, folder: str) -> Iterator[str]:
    files = out.below(folder)
    if "test" in folder.rpartition("/")[2]:
        yield f'{folder}: the loader skips folders with "test" in their name'
    if any(path.name.startswith("steps_") for path in files.path("meta").iterdir()):
        yield f"{folder}/meta: has a cache of the loader, whose key is the stride alone"
    for first, *others in (MODALITY, STATS):
        for name in others:
            if files.bytes_of(name) != files.bytes_of(first):
                yield f"{folder}/{name}: differs from {first}"
    dataset, modality = open_dataset(files), files.page(MODALITY[0])
    yield from _modality(dataset, modality)
    yield from _statistics(dataset, files.page(STATS[0]), modality)
    yield from dataset_findings(dataset, partial(_episode, dataset))


def _entries(modality: Mapping[str, Any], group: str) -> dict[str, Mapping[str, Any]]:
    entries: dict[str, Mapping[str, Any]] = modality[group]
    return entries


def _modality(dataset: DatasetV21, modality: Mapping[str, Any]) -> Iterator[str]:
    place = f"{dataset.files.prefix}{MODALITY[0]}"
    state, action = _entries(modality, "state"), _entries(modality, "action")
    shared = {e["original_key"] for e in state.values()} & {
        e["original_key"] for e in action.values()
    }
    if shared:
        yield f"{place}: state and action share a column, {min(shared)}, which has statistics of motions"
    for key, entry in (*state.items(), *action.items()):
        column, (start, end) = entry["original_key"], (entry["start"], entry["end"])
        side, _, part = key.partition("_")
        if side not in MASKS or end - start != WIDTHS.get(part):
            yield f"{place}: {key} [{start}, {end}) is no stock key of its width"
        if part == "eef_rotation" and entry.get("rotation_type") != EULER:
            yield f"{place}: {key} is no roll, pitch and yaw"
        if column not in dataset.numeric or end > dataset.numeric[column]["shape"][0]:
            yield f"{place}: {key} is outside of the column {column}"
        elif dataset.numeric[column]["shape"] == [1] and column not in SCALAR_COLUMNS:
            yield f"{place}: {column} is no vector"
    video = modality["video"].get(CAMERA, {}).get("original_key", CAMERA)
    if video not in dataset.video_keys:
        yield f"{place}: video {video} is none of the dataset"
    if modality["annotation"].get(TEXT_KEY, {}).get("original_key") != "task_index":
        yield f"{place}: the text is not named by task_index"


def _statistics(
    dataset: DatasetV21, stats: Mapping[str, Any], modality: Mapping[str, Any]
) -> Iterator[str]:
    place = f"{dataset.files.prefix}{STATS[0]}"
    entries = (*_entries(modality, "state").values(), *_entries(modality, "action").values())
    for column in sorted({entry["original_key"] for entry in entries} & set(dataset.numeric)):
        width = dataset.numeric[column]["shape"][0]
        for problem in six_statistics(column, width, stats.get(column)):
            yield f"{place}: {problem}"


def _episode(dataset: DatasetV21, episode: EpisodeRows) -> Iterator[str]:
    text = dataset.texts.get(int(episode.columns["task_index"][0, 0]), "")
    if not text.strip():
        yield f"{episode.place}: no text in its first row, so the loader drops the episode"
    for side, mask in MASKS.items():
        column = f"eef.{side}.wrist"
        if column not in dataset.numeric:
            continue
        if mask not in episode.columns:
            yield f"{episode.place}: no {mask}, so rows past the end would train as rest"
            continue
        angles = np.abs(episode.columns[column][:, 3:])
        if (angles > np.pi + 1e-4).any():
            yield f"{episode.place}: {column} has angles beyond half a turn; expected radians"
    for side in MASKS:
        hand = episode.columns.get(f"eef.{side}.hand")
        if hand is not None and (hand.min() < -1e-4 or hand.max() > 1 + 1e-4):
            yield f"{episode.place}: a gripper outside of [0, 1]"
