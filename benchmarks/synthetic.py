"""Synthetic catalogs of millions of episodes, seeded, with uids, digests and names as wide as real ones; and how they are timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ingest.corpus import snapshot
from ingest.corpus.publishing import publish_tables
from ingest.corpus.snapshot import Part, Snapshot
from ingest.storage.local import LocalStorage
from schemas.catalog import TABLES
from schemas.committed_rows import ROWS

SOURCES = ("agibot_world", "droid", "egodex", "ego4d", "oxe", "robocoin")
EMBODIMENTS = ("agibot_a2d", "franka_panda", "human_video", "ur5", "widowx")


def write_part(
    disk: LocalStorage, corpus: Path, table: str, rows: Iterable[Mapping[str, Any]]
) -> Part:
    """`snapshot.write_part` of rows given as dicts with all columns of their table."""
    kind = ROWS[table]
    return snapshot.write_part(disk, corpus, kind, [kind(**row) for row in rows])


def _hex(rng: np.random.Generator, count: int, width: int) -> np.ndarray:
    """[count, width] ASCII codes of random hexadecimal digits."""
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    return digits[rng.integers(0, 16, (count, width), dtype=np.uint8)]


def _strings(codes: np.ndarray) -> pa.Array:
    """[n, width] ASCII codes as n strings, without a Python object for each."""
    count, width = codes.shape
    offsets = np.arange(0, (count + 1) * width, width, dtype=np.int32)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(codes))]
    return pa.StringArray.from_buffers(count, buffers[1], buffers[2])


def _uids(rng: np.random.Generator, count: int) -> pa.Array:
    codes = _hex(rng, count, 36)
    codes[:, [8, 13, 18, 23]] = ord("-")
    return _strings(codes)


def _choice(rng: np.random.Generator, count: int, values: tuple[Any, ...]) -> pa.Array:
    index = pa.array(rng.integers(0, len(values), count).astype(np.int8))
    return pa.DictionaryArray.from_arrays(index, pa.array(values)).dictionary_decode()


def _one_each(values: pa.Array) -> pa.Array:
    """Every value as a list of one."""
    return pa.ListArray.from_arrays(np.arange(len(values) + 1, dtype=np.int32), values)


def episodes(rng: np.random.Generator, count: int, first: int) -> pa.Table:
    """`count` rows of the episodes table; lengths are log-normal around 25 s at 10 Hz."""
    length = np.clip(rng.lognormal(5.5, 0.7, count), 10, 10_000).astype(np.int64)
    numbers = pa.array(np.arange(first, first + count))
    names = pa.compute.binary_join_element_wise("task/episode", numbers.cast(pa.string()), "_")
    digest = _strings(_hex(rng, count, 64))
    raw = pa.StructArray.from_arrays(
        [names, pa.array(length * 30_000), digest],
        fields=list(TABLES["episodes"].field("raw_files").type.value_type),
    )
    columns = {
        "uid": _uids(rng, count),
        "source": _choice(rng, count, SOURCES),
        "dataset": _choice(rng, count, ("bridge", "fractal", "main", "part1")),
        "episode_id": names,
        "embodiment": _choice(rng, count, EMBODIMENTS),
        "dataset_path": _choice(rng, count, ("datasets/droid/franka_panda", "datasets/oxe/widowx")),
        "episode_index": numbers,
        "index_from": pa.array(np.cumsum(length)),
        "length": pa.array(length),
        "duration_s": pa.array(length / 10),
        "hours": pa.array(length / 36_000),
        "tasks": _one_each(_choice(rng, count, tuple(f"put object {k} away" for k in range(100)))),
        "task_counts": _one_each(pa.array(length)),
        "eef_frame": _choice(rng, count, ("hand_xfz", "source", "none")),
        "frames_verified": _choice(rng, count, (True, True, False)),
        "camera_motion_removed": _choice(rng, count, (True, False)),
        "action_source": _choice(rng, count, ("commanded", "achieved", "none")),
        "action_coverage": pa.array(rng.random(count)),
        "source_rate_hz": _choice(rng, count, (10.0, 15.0, 30.0)),
        "worst_image_skew_ms": pa.array(rng.random(count) * 30),
        "num_gaps": pa.array(rng.integers(0, 3, count).astype(np.int32)),
        "licence": _choice(rng, count, ("CC BY 4.0", "CC BY-NC-ND 4.0")),
        "licence_class": _choice(rng, count, ("permissive", "non_commercial")),
        "allows_redistribution": _choice(rng, count, (True, False)),
        "raw_files": _one_each(raw),
        "adapter_version": pa.array(np.ones(count, np.int32)),
        "recipe_digest": pa.array(["0123456789abcdef"] * count),
        "options_digest": pa.array([""] * count),
        "content_sha256": _strings(_hex(rng, count, 64)),
        "run_id": pa.array(["20250301T120000-0a1b2c3d"] * count),
    }
    return declared("episodes", columns, count)


def declared(table: str, columns: dict[str, Any], count: int) -> pa.Table:
    """`count` rows of a table; columns that are not given are NULL."""
    schema = TABLES[table]
    arrays = [columns.get(field.name, pa.nulls(count, field.type)) for field in schema]
    return pa.Table.from_arrays(
        [a if a.type == f.type else a.cast(f.type) for a, f in zip(arrays, schema, strict=True)],
        schema=schema,
    )


def publish(disk: LocalStorage, root: Path, parts: Mapping[str, Sequence[Part]]) -> None:
    """The first snapshot: of exactly these parts."""
    publish_tables(disk, root, Snapshot(), parts, "benchmark")


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
