"""LeRobot v2.1 files from canonical episodes, by pyarrow alone (rules: `schemas/lerobot.py` and its sources).

A worker stages an episode's rows without the numbers only the committer knows; `numbered` adds them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.lerobot import DEFAULT_FEATURES

TASK_COLUMN = "task_of_episode"  # staged only: index into the episode's own list of tasks
_ARROW = {"float32": pa.float32(), "bool": pa.bool_(), "int64": pa.int64()}


def arrow_schema(features: Mapping[str, Mapping[str, Any]]) -> pa.Schema:
    """Arrow schema of a data file: vectors as fixed-size lists, shape [1] as plain scalars.

    The Hugging Face metadata says `Sequence`, which datasets < 4 and >= 4 both read (`List` is refused by the former).
    """
    fields, declared = [], {}
    for name, feature in features.items():
        if feature["dtype"] == "video":
            continue
        kind, width = _ARROW[feature["dtype"]], feature["shape"][0]
        value = {"dtype": feature["dtype"], "_type": "Value"}
        if width == 1:
            fields.append(pa.field(name, kind))
            declared[name] = value
        else:
            fields.append(pa.field(name, pa.list_(kind, width)))
            declared[name] = {"feature": value, "length": width, "_type": "Sequence"}
    metadata = {"huggingface": json.dumps({"info": {"features": declared}})}
    return pa.schema(fields, metadata=metadata)


def data_schema(features: Mapping[str, Mapping[str, Any]]) -> pa.Schema:
    """Schema of a whole data file: the user's features, then the five default ones."""
    return arrow_schema({**features, **DEFAULT_FEATURES})


def arrow_column(values: npt.NDArray[Any]) -> pa.Array:
    """[K, n] as a fixed-size list column, [K, 1] and [K] as a scalar column."""
    if values.ndim == 1 or values.shape[1] == 1:
        return pa.array(values.reshape(-1))
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def staged_table(
    columns: Mapping[str, npt.NDArray[Any]], task_of_timestep: npt.NDArray[np.int64]
) -> pa.Table:
    """The rows of an episode before it has a number."""
    arrays = {name: arrow_column(values) for name, values in columns.items()}
    return pa.table({**arrays, TASK_COLUMN: pa.array(task_of_timestep)})


def numbered(
    staged: pa.Table,
    schema: pa.Schema,
    *,
    fps: int,
    episode_index: int,
    index_from: int,
    task_indices: Sequence[int],
) -> pa.Table:
    """The final data file: staged columns plus the five default ones, as `schema` (from `data_schema`) has them.

    `task_indices[i]` is the dataset's number for the episode's i-th task. Timestamps are `frame_index / fps` computed in
    float64 and rounded once to float32.
    """
    count = staged.num_rows
    frame, frame_index, timestamp = _clock(count, fps)
    local = staged.column(TASK_COLUMN).to_numpy()
    defaults = {
        "timestamp": timestamp,
        "frame_index": frame_index,
        "episode_index": pa.array(np.full(count, episode_index, dtype=np.int64)),
        "index": pa.array(frame + index_from),
        "task_index": pa.array(np.asarray(task_indices, dtype=np.int64)[local]),
    }
    arrays = [
        defaults[name] if name in defaults else _whole(staged.column(name)) for name in schema.names
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


@lru_cache(maxsize=1024)
def _clock(count: int, fps: int) -> tuple[npt.NDArray[np.int64], pa.Array, pa.Array]:
    """Numbers of the timesteps and their instants, cached because lengths recur in a corpus. Callers must not change the result."""
    frame = np.arange(count, dtype=np.int64)
    return frame, pa.array(frame), pa.array((frame / fps).astype(np.float32))


def _whole(column: pa.ChunkedArray) -> pa.Array:
    """A worker stages one batch."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def parquet_bytes(table: pa.Table) -> bytes:
    """One row group, snappy: what `datasets.Dataset.to_parquet` of lerobot 0.3.3 writes."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema, compression="snappy") as writer:
        writer.write_table(table, row_group_size=max(table.num_rows, 1))
    data: bytes = sink.getvalue().to_pybytes()
    return data


def column_stats(values: npt.NDArray[Any]) -> dict[str, Any]:
    """LeRobot's statistics of one numeric feature [K, n]: over axis 0, population std, count [K]."""
    rows = values.reshape(len(values), -1)
    wide = rows.astype(np.float64)
    return {
        "min": rows.min(axis=0).tolist(),
        "max": rows.max(axis=0).tolist(),
        "mean": wide.mean(axis=0).tolist(),
        "std": wide.std(axis=0).tolist(),
        "count": [len(rows)],
    }


def default_stats(
    *,
    length: int,
    fps: int,
    episode_index: int,
    index_from: int,
    task_index_counts: Sequence[tuple[int, int]],
) -> dict[str, dict[str, Any]]:
    """Statistics of the five default columns from the numbers alone; `task_index_counts` pairs (index, timesteps)."""
    return {
        "timestamp": _stamp_stats(length, fps),
        "frame_index": _counting_stats(0, length),
        "episode_index": _constant_stats(episode_index, length),
        "index": _counting_stats(index_from, length),
        "task_index": _task_stats(task_index_counts),
    }


@lru_cache(maxsize=4096)
def _stamp_stats(length: int, fps: int) -> dict[str, Any]:
    """Statistics of the timestamps, cached because lengths recur in a corpus. Callers must not change the result."""
    # float32, because the rounding of the stored stamps is part of their statistics
    return column_stats((np.arange(length) / fps).astype(np.float32))


def _task_stats(task_index_counts: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """Most episodes have one task."""
    if len(task_index_counts) == 1:
        return _constant_stats(*task_index_counts[0])
    return column_stats(np.repeat(*np.array(task_index_counts, dtype=np.int64).T))


def _constant_stats(value: int, count: int) -> dict[str, Any]:
    return {
        "min": [value],
        "max": [value],
        "mean": [float(value)],
        "std": [0.0],
        "count": [count],
    }


def _counting_stats(start: int, length: int) -> dict[str, Any]:
    """Statistics of start, start + 1, ... without making them: the variance of n consecutive integers is (n^2 - 1) / 12."""
    return {
        "min": [start],
        "max": [start + length - 1],
        "mean": [start + (length - 1) / 2],
        "std": [math.sqrt((length * length - 1) / 12)],
        "count": [length],
    }
