"""The rules of openpi's loader, `src/openpi/{training/config,training/data_loader,shared/normalize,transforms}.py` at 15a9616."""

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
)

STATE, ACTIONS = "state", "actions"  # plural: its usual `action_sequence_keys`
VIEWS = ("image", "wrist_image", "right_wrist_image")
SLOTS = ("base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb")
MOST_NUMBERS = 32
STATISTICS = ("mean", "std", "q01", "q99")


def openpi(out: ExportFiles, folders: list[str]) -> Iterator[str]:
    """What breaks a rule, in each dataset, its statistics and its config."""
    for folder in folders:
        yield from findings(folder, partial(_dataset, out, folder))


def _dataset(out: ExportFiles, folder: str) -> Iterator[str]:
    files = out.below(folder)
    dataset = open_dataset(files)
    place = f"{folder}/meta/info.json"
    views = dataset.video_keys
    if VIEWS[0] not in views or not set(views) <= set(VIEWS):
        yield f"{place}: views {', '.join(views) or 'none'}; expected image and its wrists"
    for name in (STATE, ACTIONS):
        feature = dataset.numeric.get(name, {"dtype": "", "shape": [0]})
        if feature["dtype"] != "float32" or not 1 <= feature["shape"][0] <= MOST_NUMBERS:
            yield f"{place}: {name} has not 1 to {MOST_NUMBERS} numbers of float32"
    yield from dataset_findings(dataset, partial(_episode, dataset))
    stats = f"assets/{folder}/norm_stats.json"
    yield from findings(stats, partial(_statistics, out, stats, dataset))
    config = f"openpi_{''.join(c if c.isalnum() else '_' for c in folder)}.py"
    yield from findings(config, partial(_config, out, config, dataset))


def _episode(dataset: DatasetV21, episode: EpisodeRows) -> Iterator[str]:
    indices = set(episode.columns["task_index"][:, 0].tolist())
    if any(not dataset.texts.get(index, "").strip() for index in indices):
        yield f"{episode.place}: no text, which is its prompt"


def _statistics(out: ExportFiles, place: str, dataset: DatasetV21) -> Iterator[str]:
    """After the episodes are read. Chunks repeat rows, so least and greatest values of chunks are those of rows."""
    norm: Mapping[str, Any] = out.page(place)["norm_stats"]
    if set(norm) != {STATE, ACTIONS}:
        yield f"{place}: statistics of {', '.join(norm)}; expected state and actions"
    for name in sorted({STATE, ACTIONS} & set(norm)):
        stats = norm[name]
        width = dataset.numeric.get(name, {"shape": [0]})["shape"][0]
        arrays = {key: np.array(stats.get(key, ()), dtype=float) for key in STATISTICS}
        if set(stats) != set(STATISTICS) or any(a.shape != (width,) for a in arrays.values()):
            yield f"{place}: {name} has not exactly mean, std, q01 and q99 of its {width} numbers"
            continue
        if not all(np.isfinite(array).all() for array in arrays.values()):
            yield f"{place}: {name} has a number that is not finite"
        low, high = dataset.ranges.low.get(name), dataset.ranges.high.get(name)
        if low is None or high is None:
            continue
        reach = 1e-5 + 1e-3 * (high - low)
        for key in ("mean", "q01", "q99"):
            if (arrays[key] < low - reach).any() or (arrays[key] > high + reach).any():
                yield f"{place}: {key} of {name} is outside of the data"
        if (arrays["std"] < 0).any() or (arrays["q01"] > arrays["q99"]).any():
            yield f"{place}: {name} has a negative std, or q01 above q99"


def _config(out: ExportFiles, place: str, dataset: DatasetV21) -> Iterator[str]:
    named = literals(out.program(place))
    slots = dict(zip(VIEWS, SLOTS, strict=True))
    if named.get("VIEWS") != {slots[v]: v for v in dataset.video_keys if v in slots}:
        yield f"{place}: VIEWS are not the views of the dataset"
    if named.get("NAMES") != dataset.numeric.get(ACTIONS, {}).get("names"):
        yield f"{place}: NAMES are not the elements of actions"
