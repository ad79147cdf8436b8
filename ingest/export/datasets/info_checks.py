"""Does `info.json` of a dataset tell the rate and the picture sizes that its files have, and the elements that a corpus has?

What an export says of itself rests on it.
"""

from __future__ import annotations

from collections import Counter
from itertools import zip_longest
from pathlib import Path

import numpy as np

from ingest.corpus.layout import data_file, video_file
from ingest.export.datasets.plan import DatasetPlan, ExportPlan
from ingest.storage.local import within
from ingest.video.source import open_video
from schemas.action import action_spec
from schemas.errors import ConfigError
from schemas.parquet_file import read_table

VECTORS = {"observation.state": "observation.valid", "action": "action.valid"}
REMEDY = "run `eicorpus verify`; restore meta/info.json from a copy of the corpus"


def check_infos(plan: ExportPlan) -> None:
    """Compare each dataset with the files of its first episode. Every other video is compared before its unit is written.

    Raises:
        ConfigError: another rate or another size, the times of the rows cannot be read, or a vector has elements that no corpus has.
        SourceError: a video is missing or damaged.
    """
    for dataset in plan.datasets:
        for feature, mask in VECTORS.items():
            _check_elements(dataset, feature, mask)
        number = int(dataset.rows["episode_index"][0].as_py())
        _check_times(plan.corpus, f"{dataset.dataset_path}/{data_file(number)}", dataset.fps)
        for key in dataset.video_keys:
            place = f"{dataset.dataset_path}/{video_file(number, key)}"
            check_video(within(plan.corpus, place), key, dataset)


def check_video(path: Path, key: str, dataset: DatasetPlan) -> None:
    """Compare a video with its feature. Only the header of the file is read.

    Raises:
        ConfigError: another rate or another size.
        SourceError: it is missing or damaged.
    """
    with open_video(str(path)) as video:
        width_px, height_px = video.stream.width, video.stream.height
        rate_hz = dataset.fps if video.rate_hz is None else video.rate_hz
    own = {
        "shape": [height_px, width_px, 3],
        "video.height": height_px,
        "video.width": width_px,
        "video.fps": rate_hz,
        "fps": rate_hz,
    }
    feature = dataset.features[key]
    stated = {**own, **(feature["info"] or {}), "shape": feature["shape"], "fps": dataset.fps}
    for name, value in own.items():
        if stated[name] != value:
            raise ConfigError(
                f"info.json has {name} {stated[name]} for {key}; the video has {value}",
                remedy=REMEDY,
                where=str(path),
            )


def _check_elements(dataset: DatasetPlan, feature: str, mask: str) -> None:
    """Names select columns: as a corpus writes them (schemas/action.py), or another column is exported under a name."""
    if feature not in dataset.features:
        return
    names = dataset.names(feature)
    parts = Counter(".".join(name.split(".")[:2]) for name in names)
    spec = action_spec(parts.items())
    expected = spec.names if spec else ()
    odd = [name for name, other in zip_longest(names, expected) if name != other]
    masks = dataset.names(mask)
    if not names or odd:
        problem = f"{feature} has {f'the element {odd[0]!r}' if odd else 'no names'}"
    elif not parts.keys() <= set(masks):
        problem = f"{mask} lacks {min(parts.keys() - set(masks))}"
    else:
        return
    raise ConfigError(
        f"info.json: {problem}, as no dataset of a corpus",
        remedy=REMEDY,
        where=dataset.dataset_path,
    )


def _check_times(corpus: Path, place: str, fps: int) -> None:
    times_s = read_table(within(corpus, place), ["timestamp"], remedy=REMEDY)["timestamp"]
    expected_s = np.arange(len(times_s)) / fps
    off = np.abs(np.asarray(times_s, np.float64) - expected_s) > 0.25 / fps
    if off.any():
        step = int(np.argmax(off))
        raise ConfigError(
            f"info.json has fps {fps}; timestep {step} is at {times_s[step].as_py():.3f} s",
            remedy=REMEDY,
            where=place,
        )
