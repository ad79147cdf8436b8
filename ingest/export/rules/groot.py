"""The rules of GR00T's loaders: N1.5 at 4af2b62, N1.6 at 7786639, N1.7 at 23ace64 (`getting_started/data_preparation.md`, `gr00t/data/`)."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from ingest.export.rules.export_files import ExportFiles, findings
from ingest.export.rules.lerobot_episode_files import (
    DatasetV21,
    EpisodeRows,
    dataset_findings,
    open_dataset,
    six_statistics,
)

MODALITY, STATS = "meta/modality.json", "meta/stats.json"
LEAST_ROWS = 16  # of an episode: a chunk of actions of N1.6 and N1.7
DEFAULT_COLUMNS = {"state": "observation.state", "action": "action"}


def groot(out: ExportFiles, folders: list[str]) -> Iterator[str]:
    """What breaks a rule of one of the three generations."""
    for folder in folders:
        yield from findings(folder, partial(_dataset, out, folder))


def _dataset(out: ExportFiles, folder: str) -> Iterator[str]:
    files = out.below(folder)
    dataset, modality = open_dataset(files), files.page(MODALITY)
    yield from _modality(dataset, modality)
    yield from dataset_findings(dataset, _episode)
    yield from _statistics(dataset, files.page(STATS))
    name = "".join(c if c.isalnum() else "_" for c in folder)
    keys_of_group = {group: sorted(modality[group]) for group in ("video", "state", "action")}
    for config, keys in ((f"n15_{name}.py", _keys_of_n15), (f"n16_{name}.py", _keys_of_n16)):
        config_keys = keys(out.program(config))
        for group, names in keys_of_group.items():
            if sorted(config_keys.get(group, ())) != names:
                yield f"{config}: its {group} keys are not those of {folder}/{MODALITY}"


def _modality(dataset: DatasetV21, modality: Mapping[str, Any]) -> Iterator[str]:
    place = f"{dataset.files.prefix}{MODALITY}"
    for group, usual in DEFAULT_COLUMNS.items():
        entries = modality[group].values()
        for column in sorted({each.get("original_key", usual) for each in entries}):
            spans = sorted(
                (each["start"], each["end"])
                for each in entries
                if each.get("original_key", usual) == column
            )
            ends = [0, *(end for _, end in spans)]
            width = dataset.numeric.get(column, {"shape": [-1]})["shape"][0]
            if [start for start, _ in spans] != ends[:-1] or ends[-1] != width:
                yield f"{place}: the slices of {column} do not tile it"
    for name, each in modality["video"].items():
        key = each.get("original_key", f"observation.images.{name}")
        if key not in dataset.video_keys:
            yield f"{place}: {key} is no video of the dataset"
    if len(modality["annotation"]) != 1:
        yield f"{place}: expected exactly one language key"
    for name, each in modality["annotation"].items():
        if each.get("original_key", f"annotation.{name}") not in dataset.numeric:
            yield f"{place}: annotation {name} names no column"


def _statistics(dataset: DatasetV21, stats: Mapping[str, Any]) -> Iterator[str]:
    """After the episodes are read: least and greatest values are those of the data."""
    place = f"{dataset.files.prefix}{STATS}"
    for name, feature in dataset.numeric.items():
        if feature["dtype"] != "float32":
            continue
        problems = list(six_statistics(name, feature["shape"][0], stats.get(name)))
        yield from (f"{place}: {problem}" for problem in problems)
        if not problems and dataset.ranges.differ(name, stats[name]):
            yield f"{place}: min and max of {name} are not those of the data"


def _episode(episode: EpisodeRows) -> Iterator[str]:
    count = len(episode.columns["index"])
    if count < LEAST_ROWS:
        yield f"{episode.place}: {count} rows, which N1.6 and N1.7 cannot read"


def _keys_of_n15(program: ast.Module) -> dict[str, list[str]]:
    """Of the class with `video_keys`, `state_keys` and `action_keys`."""
    out = {}
    for node in ast.walk(program):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            group, _, rest = node.targets[0].id.partition("_")
            if rest == "keys" and group in ("video", "state", "action"):
                names = ast.literal_eval(node.value)
                out[group] = [name.removeprefix(f"{group}.") for name in names]
    return out


def _keys_of_n16(program: ast.Module) -> dict[str, list[str]]:
    """`modality_keys` of each ModalityConfig in the dictionary."""
    out = {}
    for node in ast.walk(program):
        if not isinstance(node, ast.Dict):
            continue
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant) and isinstance(value, ast.Call):
                for word in value.keywords:
                    if word.arg == "modality_keys":
                        out[str(key.value)] = ast.literal_eval(word.value)
    return out
