"""One version directory of an RLDS set: finding it, its shards, and the record behind a reference."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from adapters.containers.rlds import DatasetInfo, Leaf, read_info, read_leaves
from adapters.containers.safe_path import inside
from adapters.containers.tfrecord import Record, walk
from schemas.errors import Code, ConfigError, SourceError
from schemas.regular_file import path_exists

MAX_NESTING = 3
METADATA = ("dataset_info.json", "features.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class RldsDir:
    """A directory with `dataset_info.json`, `features.json` and the shards they declare."""

    path: Path
    info: DatasetInfo
    leaves: dict[str, Leaf]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A declared shard: its place, and how many records its metadata promises."""

    split: str
    index: int
    name: str
    num_declared: int


def find_version_dir(root: Path) -> Path:
    """`root` itself or the one directory at most three levels below it that holds both metadata files.

    Raises:
        ConfigError: none, or several (listed): name one of them.
    """
    if not root.is_dir():
        raise ConfigError(
            "not a folder",
            remedy="pass the folder that contains dataset_info.json",
            where=str(root),
        )
    directories = sorted(_version_dirs(root, MAX_NESTING))
    if len(directories) == 1:
        return directories[0]
    expected = f"{' and '.join(METADATA)} in it or at most {MAX_NESTING} levels below"
    if not directories:
        raise ConfigError(f"no folder contains {expected}", where=str(root))
    names = ", ".join(str(path.relative_to(root)) for path in directories[:20])
    raise ConfigError(
        f"{len(directories)} datasets below it ({names})",
        remedy="pass one of them",
        where=str(root),
    )


def _version_dirs(path: Path, levels: int) -> Iterator[Path]:
    if all(path_exists(path / name) for name in METADATA):
        yield path
        return
    if levels == 0:
        return
    with os.scandir(path) as entries:
        below = sorted(e.name for e in entries if e.is_dir(follow_symlinks=False))
    for name in below:
        yield from _version_dirs(path / name, levels - 1)


def open_dir(path: Path) -> RldsDir:
    """Read both metadata files. Raises ConfigError."""
    return RldsDir(path=path, info=read_info(path), leaves=read_leaves(path))


def shards_of(info: DatasetInfo) -> list[Shard]:
    """Every declared shard, splits in the order of the metadata."""
    return [
        Shard(
            split=split.name,
            index=index,
            name=info.shard_name(split, index),
            num_declared=declared,
        )
        for split in info.splits
        for index, declared in enumerate(split.shard_lengths)
    ]


def records_of(directory: Path, shard: Shard) -> Iterator[tuple[int, Record]]:
    """(number, record) of a shard, broken ones included; the last one may stand for a lost rest.

    A shard that is not there is one record 0 with MISSING_SHARD; records that the metadata promises and the file
    lacks are one TRUNCATED record after the whole ones.
    """
    count = 0
    try:
        path = inside(directory, shard.name)
        for record in walk(path):
            if record.is_rest:
                yield count, _lost(record, shard, count)
                return
            yield count, record
            count += 1
    except SourceError as error:
        yield count, _unreadable(error, shard)
        return
    if count < shard.num_declared:
        end = f"the file ends after {count} whole records"
        broken = Record(offset=0, num_bytes=0, problem=(Code.TRUNCATED, end), is_rest=True)
        yield count, _lost(broken, shard, count)


def _unreadable(error: SourceError, shard: Shard) -> Record:
    is_missing = error.code is Code.MISSING_FILE
    code = Code.MISSING_SHARD if is_missing else error.code
    reason = "the shard is missing" if is_missing else error.message
    message = f"{shard.name}: {reason}; it should contain {shard.num_declared} episodes; download it again"
    return Record(offset=0, num_bytes=0, problem=(code, message), is_rest=True)


def _lost(record: Record, shard: Shard, count: int) -> Record:
    code, reason = record.problem or (Code.TRUNCATED, "")
    lost = max(shard.num_declared - count, 0)
    message = f"{shard.name}: {reason}; {lost} of {shard.num_declared} declared records are missing"
    return Record(
        offset=record.offset, num_bytes=record.num_bytes, problem=(code, message), is_rest=True
    )


def undeclared_files(directory: RldsDir) -> list[str]:
    """TFRecord files beside the declared shards: stale copies that are not read."""
    declared = {shard.name for shard in shards_of(directory.info)}
    with os.scandir(directory.path) as entries:
        return sorted(e.name for e in entries if ".tfrecord" in e.name and e.name not in declared)
