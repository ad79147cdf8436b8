"""The content digest of an episode and of a corpus: independent of the order of work, machine, executor and numbering.

An episode's content is its numeric columns but for the five that number it, the task text of every timestep, the bytes of
its videos, and its catalog facts but for position, run and root. Parquet bytes do not count: they change with the writer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

import pyarrow as pa

from schemas.catalog import ADDED_COLUMNS
from schemas.catalog_rows import CatalogRow, EpisodeFacts, MeasurementRow, SegmentRow, as_dict
from schemas.lerobot import DEFAULT_FEATURES

# Columns of `episodes` that depend on when and where an episode was committed, not on what it is.
POSITIONAL = frozenset({"dataset_path", "episode_index", "index_from", "run_id", "content_sha256"})


def rows_digest(table: pa.Table, tasks: Sequence[str]) -> str:
    """sha256 of the numeric columns by name and of the task text of every timestep (`tasks`, one per row)."""
    sha = hashlib.sha256()
    for name in sorted(set(table.column_names) - set(DEFAULT_FEATURES)):
        column = table.column(name).combine_chunks()
        width = column.type.list_size if pa.types.is_fixed_size_list(column.type) else 1
        flat = column.flatten() if width > 1 else column
        values = flat.to_numpy(zero_copy_only=False)
        sha.update(f"{name}|{values.dtype.str}|{width}|{len(column)}|".encode())
        sha.update(values.tobytes())
    sha.update(json.dumps(list(tasks)).encode())
    return sha.hexdigest()


def content_digest(
    *,
    rows_sha256: str,
    videos: Mapping[str, str],
    episode: EpisodeFacts,
    segments: Sequence[SegmentRow],
    measurements: Sequence[MeasurementRow],
) -> str:
    """sha256 of one episode: rows, videos by camera, and its facts."""
    silent = {name for name in ADDED_COLUMNS["episodes"] if not getattr(episode, name)}
    facts = _without(POSITIONAL | silent, episode)
    content = {
        "rows": rows_sha256,
        "videos": dict(videos),
        "episode": facts,
        "segments": [_without({"uid"}, row) for row in segments],
        "measurements": [_without({"uid"}, row) for row in measurements],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _without(columns: Set[str], row: CatalogRow) -> dict[str, Any]:
    return {name: value for name, value in as_dict(row).items() if name not in columns}


def corpus_digest(episodes: Iterable[tuple[str, str]]) -> str:
    """sha256 over (uid, content digest), sorted by uid."""
    sha = hashlib.sha256()
    for uid, content in sorted(episodes):
        sha.update(f"{uid} {content}\n".encode())
    return sha.hexdigest()
