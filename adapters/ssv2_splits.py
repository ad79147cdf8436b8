"""Which split Something-Something V2 publishes a clip in: train.json, validation.json and test.json list ids."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from adapters.containers.json_rows import members
from schemas.source_split import source_split_of, strictest


def source_splits(files: Mapping[str, Path]) -> dict[str, str]:
    """Split by id from the files by split, those of splits that are not read too; the strictest where several list a clip."""
    splits: dict[str, str] = {}
    for name, path in files.items():
        split = source_split_of(name)
        for _, row in members(path, inside=()):
            uid = row.get("id") if isinstance(row, dict) else None
            if isinstance(uid, str):
                splits[uid] = strictest((splits.get(uid, ""), split))
    return splits
