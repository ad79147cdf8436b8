"""Where partial statistics are kept: `CORPUS/manifests/_cache/<representation>/`. It can be removed at any time.

Files beside the manifests, not a table of the catalog, for three reasons: building a manifest stays a reader, which needs no lock and publishes no
snapshot; a partial is derived from one data file alone and can be made again, so it is no fact; and to forget a person it is
enough to remove the folder.

Episodes of a dataset are filed in blocks of 1024 by their number. A block's rows lie in one or more Parquet files named by their
content; the key of a row is (uid, start, end, sha256 of the data file), so a changed tier or a grown corpus makes only what is new. Beside the
blocks, `merged/` keeps the result of a whole selection: the same manifest again reads one file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ingest.curation.manifests.action_stats_partial import PARTIAL
from ingest.storage.local import LocalStorage, within
from schemas.errors import SourceError, TransientError
from schemas.json_text import read_json
from schemas.manifest import FACTS_LIMITS, FOLDER, Statistics
from schemas.parquet_file import DamagedParquet, read_table
from schemas.trained_action import REPRESENTATION

BLOCK_EPISODES = 1024
KEY = ("uid", "start", "end", "data_sha256")
Block = tuple[str, int]  # dataset path, episode_index // BLOCK_EPISODES


def cache_folder(corpus: Path) -> Path:
    return corpus / FOLDER / "_cache" / REPRESENTATION


def cached(corpus: Path, block: Block, columns: Sequence[str] = PARTIAL.names) -> pl.DataFrame:
    """What is kept of a block, each key once."""
    schema = pa.schema([PARTIAL.field(name) for name in columns])
    tables = [schema.empty_table()]
    for path in sorted(_folder(corpus, block).glob(f"{block[1]:06d}-*.parquet")):
        within(corpus, path.relative_to(corpus).as_posix())
        try:
            tables.append(read_table(path, columns, schema=schema))
        except (OSError, DamagedParquet):
            continue  # a damaged cache is an empty one: its rows are made again
    return pl.DataFrame(pa.concat_tables(tables)).unique(list(KEY), keep="first")


def keep(corpus: Path, block: Block, rows: pa.Table, disk: LocalStorage) -> None:
    """File rows of PARTIAL under a block."""
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, compression="zstd")
    data = sink.getvalue().to_pybytes()
    folder = _folder(corpus, block)
    disk.make_dir(folder)
    name = f"{block[1]:06d}-{hashlib.sha256(data).hexdigest()[:32]}.parquet"
    disk.write(folder / name, data)


def _folder(corpus: Path, block: Block) -> Path:
    return cache_folder(corpus) / hashlib.sha256(block[0].encode()).hexdigest()[:16]


def cached_result(corpus: Path, digest: str) -> Statistics | None:
    """The statistics of a whole selection, if it was ever made."""
    relative = _result(corpus, digest).relative_to(corpus).as_posix()
    try:
        kept = read_json(within(corpus, relative), limits=FACTS_LIMITS)
        return Statistics.model_validate(kept)
    except (SourceError, TransientError, ValueError):
        return None  # absent or damaged: made again


def keep_result(corpus: Path, digest: str, statistics: Statistics, disk: LocalStorage) -> None:
    path = _result(corpus, digest)
    disk.make_dir(path.parent)
    disk.write(path, statistics.model_dump_json().encode())


def _result(corpus: Path, digest: str) -> Path:
    return cache_folder(corpus) / "merged" / f"{digest}.json"
