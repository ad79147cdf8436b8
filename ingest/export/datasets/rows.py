"""Rows of a segment as columns of an exported dataset, and their statistics."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ingest.corpus.lerobot_writer import data_schema
from ingest.export.datasets.plan import DatasetPlan, ExportedSegment
from ingest.storage.local import within
from schemas.errors import ConfigError
from schemas.parquet_file import read_table

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
Columns = Mapping[str, npt.NDArray[Any]]


def read_columns(corpus: Path, dataset: DatasetPlan, segment: ExportedSegment) -> Columns:
    """[K, n] of every numeric feature of a segment, as stored.

    Raises:
        ConfigError: the file of the episode is missing, damaged, not the one that was committed, or has numbers that are none.
    """
    remedy = f"run `eicorpus verify {corpus}`"
    numeric = dataset.numeric
    path = within(corpus, segment.data_path)
    table = read_table(path, [*numeric], use_threads=False, remedy=remedy)
    if table.num_rows != segment.length:
        problem = f"{table.num_rows} rows; the catalog has {segment.length}"
        raise ConfigError(problem, remedy=remedy, where=segment.data_path)
    if _sha256(path) != segment.data_sha256:
        raise ConfigError("not the file that was committed", remedy=remedy, where=segment.data_path)
    own = table.slice(segment.row.start, segment.num_frames)
    out = {name: _matrix(own[name]) for name in numeric}
    for name, values in out.items():
        if values.shape[1] != numeric[name]["shape"][0]:
            problem = (
                f"{name} has {values.shape[1]} elements, info.json {numeric[name]['shape'][0]}"
            )
            raise ConfigError(problem, remedy=remedy, where=segment.data_path)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            step = int(np.argmin(np.isfinite(values).all(axis=1)))
            raise ConfigError(
                f"{name} has no finite number at timestep {segment.row.start + step}",
                remedy=f"leave episode {segment.row.uid} out of the manifest with --where",
                where=segment.data_path,
            )
    return out


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _matrix(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """[K, n]; a feature of one element is a plain column."""
    array = column.combine_chunks()
    flat = array.flatten() if pa.types.is_nested(array.type) else array
    return np.asarray(flat.to_numpy(zero_copy_only=False)).reshape(len(array), -1)


def default_columns(segment: ExportedSegment, fps: int) -> Columns:
    """The five columns of every LeRobot dataset, [K] each. Time begins at 0 with the segment."""
    count = segment.num_frames
    frame = np.arange(count, dtype=np.int64)
    return {
        "timestamp": (frame / fps).astype(np.float32),
        "frame_index": frame,
        "episode_index": np.full(count, segment.index, np.int64),
        "index": frame + segment.index_from,
        "task_index": np.full(count, segment.task_index, np.int64),
    }


def rows_table(columns: Columns, features: Mapping[str, Mapping[str, Any]]) -> pa.Table:
    """Columns as a data file of LeRobot has them. `features`: the numeric ones, without the default ones."""
    schema = data_schema(features)
    arrays = []
    for name in schema.names:
        values = columns[name]
        flat = pa.array(np.ascontiguousarray(values).reshape(-1), _scalar(schema.field(name).type))
        width = 1 if values.ndim == 1 else values.shape[1]
        arrays.append(flat if width == 1 else pa.FixedSizeListArray.from_arrays(flat, width))
    return pa.Table.from_arrays(arrays, schema=schema)


def _scalar(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_nested(kind) else kind


def column_stats(values: npt.NDArray[Any], quantiles: Mapping[str, float]) -> dict[str, Any]:
    """LeRobot's statistics of [K, n] or [K], and quantiles of the data (linear between two samples, as numpy's default)."""
    rows = values.reshape(len(values), -1).astype(np.float64)
    out: dict[str, Any] = {
        "min": rows.min(axis=0),
        "max": rows.max(axis=0),
        "mean": rows.mean(axis=0),
        "std": rows.std(axis=0),
        "count": np.array([len(rows)]),
    }
    shares = np.quantile(rows, list(quantiles.values()), axis=0) if quantiles else ()
    out.update(zip(quantiles, shares, strict=True))
    return {name: np.asarray(value).tolist() for name, value in out.items()}


def stats_of_columns(columns: Columns, quantiles: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """`column_stats` of each of several columns with the same rows, which is ten times as fast as one after the other."""
    wide = [values.reshape(len(values), -1).astype(np.float64) for values in columns.values()]
    if not wide:
        return {}
    joined = column_stats(np.concatenate(wide, axis=1), quantiles)
    ends = np.cumsum([values.shape[1] for values in wide]).tolist()
    return {
        name: {
            key: value if key == "count" else value[end - values.shape[1] : end]
            for key, value in joined.items()
        }
        for name, values, end in zip(columns, wide, ends, strict=True)
    }


def merged_stats(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """min, max, mean, std and count of several statistics together, of any shape; quantiles are not merged.

    Chan, Golub & LeVeque 1983, eq. 2.1: the sum of squares of all is that of each about its own mean, and what the means differ by.
    """
    counts = np.array([part["count"][0] for part in parts], dtype=np.float64)
    means = np.array([part["mean"] for part in parts], dtype=np.float64)
    stds = np.array([part["std"] for part in parts], dtype=np.float64)
    weight = counts.reshape(-1, *[1] * (means.ndim - 1)) / counts.sum()
    mean = (weight * means).sum(axis=0)
    variance = (weight * (stds**2 + (means - mean) ** 2)).sum(axis=0)
    return {
        "min": np.min([part["min"] for part in parts], axis=0).tolist(),
        "max": np.max([part["max"] for part in parts], axis=0).tolist(),
        "mean": mean.tolist(),
        "std": np.sqrt(variance).tolist(),
        "count": [int(counts.sum())],
    }
