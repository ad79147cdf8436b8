"""RLDS: TFDS datasets (`dataset_info.json`, `features.json`, TFRecord shards) of steps, written without TensorFlow.

Facts: tensorflow/datasets `core/{dataset_info,features/*,example_serializer}.py`, and the Bridge sample. Columns keep their values and
names; a picture becomes a JPEG, so it is encoded again. A segment is one record, which a reader holds in memory as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ingest.corpus.layout import CorpusLayout
from ingest.export.datasets.camera_roles import camera_name
from ingest.export.datasets.format import ExportUnit, Finishing
from ingest.export.datasets.plan import DatasetPlan, ExportedSegment, ExportPlan, UnfitRows
from ingest.export.datasets.rows import Columns, read_columns
from ingest.export.datasets.tf_record import Values, example_bytes, record_bytes
from ingest.video.timestep_pictures import pictures_at
from schemas.errors import ConfigError

VERSION = "1.0.0"
MOST_TIMESTEPS = 6000  # of a record: ten minutes; two cameras of 224 pixels are some 200 MB
JPEG_QUALITY = 95
LEAVES = {"observation.state": "observation/state", "observation.valid": "observation/state_valid"}
FLAGS = ("is_first", "is_last", "is_terminal")
TEXTS = ("uid", "source", "embodiment", "tier", "licence_class")  # columns of the manifest
PYTHON = "tensorflow_datasets.core.features"


@dataclass(frozen=True, slots=True)
class Rlds:
    """The format `rlds`."""

    name: ClassVar[str] = "rlds"

    def settings(self) -> Mapping[str, Any]:
        return {"jpeg_quality": JPEG_QUALITY}

    def left_out(self, rows: pa.Table) -> Iterable[UnfitRows]:
        count = pc.subtract(rows["end"], rows["start"])
        too_long = pc.greater(count, MOST_TIMESTEPS).to_numpy()
        text = f"have more than {MOST_TIMESTEPS:,} timesteps, which one record cannot hold"
        yield UnfitRows(code="too_long", text=text, rows=too_long)

    def divide(self, dataset: DatasetPlan) -> Iterable[DatasetPlan]:
        return (dataset,)

    def check(self, plan: ExportPlan) -> None:
        """
        Raises:
            ConfigError: two datasets would have one name.
        """
        names = [tfds_name(dataset) for dataset in plan.datasets]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigError(
                f"two datasets would be called {twice[0]}",
                remedy="export them from a manifest each",
                where=f"manifest {plan.manifest.facts.name}",
            )

    def write(self, unit: ExportUnit, folder: Path) -> Mapping[str, Any]:
        """One shard a split: `train.tfrecord` and so on."""
        counts: dict[str, int] = {}
        sizes: dict[str, int] = {}
        for segment in unit.segments:
            stored = read_columns(unit.corpus, unit.dataset, segment)
            example = example_bytes(
                {
                    **_steps(unit.dataset, stored),
                    **_pictures(unit, segment),
                    **_texts(segment),
                }
            )
            split = segment.row.split
            with (folder / f"{split}.tfrecord").open("ab") as file:
                file.write(record_bytes(example))
            counts[split] = counts.get(split, 0) + 1
            sizes[split] = sizes.get(split, 0) + len(example)
        return {"counts": counts, "sizes": sizes}

    def places(self, finishing: Finishing) -> Iterator[tuple[int, str, str]]:
        for dataset in finishing.plan.datasets:
            name = tfds_name(dataset)
            for split, shards in _shards(finishing, dataset).items():
                for number, (unit, _, _) in enumerate(shards):
                    place = f"{name}/{VERSION}/{name}-{split}.tfrecord-{number:05d}-of-{len(shards):05d}"
                    yield unit, f"{split}.tfrecord", place

    def finish(self, finishing: Finishing) -> Mapping[str, Any]:
        for dataset in finishing.plan.datasets:
            folder = f"{tfds_name(dataset)}/{VERSION}"
            info = _info(dataset, _shards(finishing, dataset))
            for name, page in (("dataset_info", info), ("features", _features(dataset))):
                finishing.write(f"{folder}/{name}.json", _json(page))
        return {
            "tfds_names": {each.name: tfds_name(each) for each in finishing.plan.datasets},
            "videos": {"how": f"every picture encoded again, as JPEG of quality {JPEG_QUALITY}"},
            "element_names": {
                each.name: {leaf_of(n): list(each.names(n)) for n in each.numeric}
                for each in finishing.plan.datasets
            },
        }


def tfds_name(dataset: DatasetPlan) -> str:
    """The name of the TFDS dataset and of its folder: lower case, digits, underscores."""
    name = "".join(c if c.isalnum() and c.isascii() else "_" for c in dataset.name.lower())
    return name if name[:1].isalpha() else f"d_{name}"


def leaf_of(feature: str) -> str:
    """`observation/state` of `observation.state`."""
    return LEAVES.get(feature, feature.replace(".", "_"))


def _steps(dataset: DatasetPlan, stored: Columns) -> dict[str, Values]:
    """Every column, and the flags of the steps."""
    out: dict[str, Values] = {}
    for name, values in stored.items():
        is_number = values.dtype == np.float32
        out[f"steps/{leaf_of(name)}"] = values if is_number else values.astype(np.int64)
    return out


def _pictures(unit: ExportUnit, segment: ExportedSegment) -> dict[str, Values]:
    layout = CorpusLayout(unit.corpus)
    out: dict[str, Values] = {}
    steps = range(segment.row.start, segment.row.end)
    for video in segment.videos:
        pictures = pictures_at(layout.path(video.place), steps, unit.dataset.fps)
        out[f"steps/observation/{camera_name(video.key)}"] = [
            cv2.imencode(
                ".jpg",
                cv2.cvtColor(picture, cv2.COLOR_RGB2BGR),
                [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY],
            )[1].tobytes()
            for picture in pictures
        ]
    return out


def _texts(segment: ExportedSegment) -> dict[str, Values]:
    row, count = segment.row, segment.num_frames
    first, last = (np.zeros(count, np.int64) for _ in range(2))
    first[0], last[-1] = 1, 1
    ends = last * (row.end == segment.length)  # else the episode goes on
    out: dict[str, Values] = {
        f"steps/{name}": values for name, values in zip(FLAGS, (first, last, ends), strict=True)
    }
    out["steps/language_instruction"] = [row.text.encode()] * count
    for name in TEXTS:
        out[f"episode_metadata/{name}"] = [str(getattr(row, name)).encode()]
    out["episode_metadata/tasks"] = [" ".join(row.tasks).encode()]
    for name in ("start", "end"):
        out[f"episode_metadata/{name}"] = np.array([getattr(row, name)], np.int64)
    return out


def _shards(finishing: Finishing, dataset: DatasetPlan) -> dict[str, list[tuple[int, int, int]]]:
    """Split -> (unit, records, bytes of their Examples) of each shard."""
    out: dict[str, list[tuple[int, int, int]]] = {}
    for record in finishing.records():
        if record.dataset == dataset.name:
            for split, count in record.facts["counts"].items():
                shard = (record.number, count, record.facts["sizes"][split])
                out.setdefault(split, []).append(shard)
    return out


# --- metadata, as proto JSON: numbers of 64 bits are text ------------------------------------------------------------------


def _info(dataset: DatasetPlan, shards: Mapping[str, list[tuple[int, int, int]]]) -> dict[str, Any]:
    return {
        "description": f"Segments of {dataset.dataset_path}, exported by eicorpus at {dataset.fps} Hz.",
        "fileFormat": "tfrecord",
        "name": tfds_name(dataset),
        "releaseNotes": {VERSION: "Exported by eicorpus."},
        "splits": [
            {
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "name": split,
                "numBytes": str(sum(size for _, _, size in each)),
                "shardLengths": [str(count) for _, count, _ in each],
            }
            for split, each in shards.items()
        ],
        "version": VERSION,
    }


def _features(dataset: DatasetPlan) -> dict[str, Any]:
    steps: dict[str, Any] = {name: _tensor("bool", ()) for name in FLAGS}
    steps["language_instruction"] = _text()
    observation: dict[str, Any] = {}
    for name, feature in dataset.features.items():
        if feature["dtype"] == "video":
            observation[camera_name(name)] = _image(feature["shape"])
            continue
        leaf = _tensor(feature["dtype"], feature["shape"])
        group, _, key = leaf_of(name).rpartition("/")
        (observation if group else steps)[key] = leaf
    steps["observation"] = _dict(observation)
    metadata = {name: _text() for name in (*TEXTS, "tasks")}
    metadata |= {name: _tensor("int64", ()) for name in ("start", "end")}
    sequence = {"feature": _dict(steps), "length": "-1"}
    return _dict(
        {
            "steps": {"pythonClassName": f"{PYTHON}.dataset_feature.Dataset", "sequence": sequence},
            "episode_metadata": _dict(metadata),
        }
    )


def _dict(features: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "pythonClassName": f"{PYTHON}.features_dict.FeaturesDict",
        "featuresDict": {"features": dict(features)},
    }


def _tensor(dtype: str, shape: Iterable[int]) -> dict[str, Any]:
    sizes = [str(n) for n in shape]
    kind = "tensor_feature.Tensor" if sizes else "scalar.Scalar"
    return {
        "pythonClassName": f"{PYTHON}.{kind}",
        "tensor": {
            "shape": {"dimensions": sizes} if sizes else {},
            "dtype": dtype,
            "encoding": "none",
        },
    }


def _image(shape: Iterable[int]) -> dict[str, Any]:
    return {
        "pythonClassName": f"{PYTHON}.image_feature.Image",
        "image": {
            "shape": {"dimensions": [str(n) for n in shape]},
            "dtype": "uint8",
            "encodingFormat": "jpeg",
        },
    }


def _text() -> dict[str, Any]:
    return {"pythonClassName": f"{PYTHON}.text_feature.Text", "text": {}}


def _json(page: Any) -> bytes:
    return (json.dumps(page, indent=2, ensure_ascii=False) + "\n").encode()
