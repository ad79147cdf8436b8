"""Partial normalisation statistics: one row for each segment, computed by workers from data files and cached in `CORPUS/manifests/_cache/<representation>/`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ingest.curation.manifests.running_stats import histogram, running_stats
from ingest.storage.local import LocalStorage, within
from ingest.storage.rooted import item_within
from ingest.storage.store import get_json
from schemas.errors import Code, SourceError, TransientError
from schemas.manifest import FACTS_LIMITS, FOLDER, Statistics
from schemas.parquet_file import DamagedParquet, open_parquet, read_table
from schemas.regular_file import read_regular
from schemas.trained_action import REPRESENTATION, Named, trained_action

MAX_DATA_BYTES = 1 << 30  # of the data file of one episode
FEATURES = ("action", "action.valid", "observation.state", "observation.valid")
PARTIAL = pa.schema(
    [
        ("uid", pa.string()),
        ("start", pa.int64()),
        ("end", pa.int64()),
        ("data_sha256", pa.string()),  # of the data file: other rows, other partial
        ("count", pa.list_(pa.int64())),  # E each
        ("mean", pa.list_(pa.float64())),
        ("m2", pa.list_(pa.float64())),
        ("low", pa.list_(pa.float64())),
        ("high", pa.list_(pa.float64())),
        ("bins", pa.list_(pa.int32())),  # filled bins of the histogram, and the samples in each
        ("bin_counts", pa.list_(pa.int32())),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeSpans:
    """One episode's data file and its segments [start, end)."""

    uid: str
    path: str  # relative to the corpus
    data_sha256: str
    length: int
    spans: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaWork:
    """Some episodes of one dataset. `names`: element names of each of FEATURES. `block`: what the driver files it under."""

    corpus: str
    names: tuple[tuple[str, ...], ...]
    episodes: tuple[EpisodeSpans, ...]
    block: tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaResult:
    """Rows of PARTIAL, and what could not be read."""

    rows: pa.Table
    errors: tuple[str, ...]


def partials(work: DeltaWork, disk: LocalStorage) -> DeltaResult:
    """The worker body."""
    rows: list[dict[str, object]] = []
    errors: list[str] = []
    for episode in work.episodes:
        try:
            rows += _rows(work, episode)
        except SourceError as error:
            errors.append(str(error))
    return DeltaResult(rows=pa.Table.from_pylist(rows, schema=PARTIAL), errors=tuple(errors))


def _rows(work: DeltaWork, episode: EpisodeSpans) -> Iterator[dict[str, object]]:
    features = _read(Path(work.corpus), episode, work.names)
    for start, end in episode.spans:
        action, action_valid, state, state_valid = (
            Named(values=feature.values[start:end], names=feature.names) for feature in features
        )
        target = trained_action(
            action=action, action_valid=action_valid, state=state, state_valid=state_valid
        )
        whole = running_stats(target.values, target.valid)
        bins, counts = histogram(target.values, target.valid)
        yield {
            "uid": episode.uid,
            "start": start,
            "end": end,
            "data_sha256": episode.data_sha256,
            **{name: getattr(whole, name) for name in ("count", "mean", "m2", "low", "high")},
            "bins": bins,
            "bin_counts": counts,
        }


def _read(
    corpus: Path, episode: EpisodeSpans, names: Sequence[tuple[str, ...]]
) -> tuple[Named, ...]:
    """The four features of an episode.

    Raises:
        SourceError: the file is missing, lies elsewhere, or is not what was committed.
    """
    file_path = item_within(corpus, episode.path)
    data = read_regular(file_path, max_bytes=MAX_DATA_BYTES, where=episode.path)
    if hashlib.sha256(data).hexdigest() != episode.data_sha256:
        problem = "the file differs from the committed one; run `eicorpus verify`"
        raise SourceError(Code.UNREADABLE, problem, where=episode.path)
    with open_parquet(data, episode.path) as file:
        table = file.read(columns=[*FEATURES], use_threads=False)
    if len(table) != episode.length:
        problem = f"the file has {len(table)} rows, the catalog states {episode.length}; run `eicorpus verify`"
        raise SourceError(Code.SHAPE_MISMATCH, problem, where=episode.path)
    return tuple(
        Named(values=_matrix(table[name]), names=element_names)
        for name, element_names in zip(FEATURES, names, strict=True)
    )


def _matrix(column: pa.ChunkedArray) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    """[K, n]; a feature of one element is a plain column, not one of lists."""
    array = column.combine_chunks()
    flat = array.flatten() if pa.types.is_nested(array.type) else array
    return np.asarray(flat.to_numpy(zero_copy_only=False)).reshape(len(array), -1)


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
    name = f"{block[1]:06d}-{hashlib.sha256(data).hexdigest()[:32]}.parquet"
    disk.at(corpus).put(f"{_folder(corpus, block).relative_to(corpus).as_posix()}/{name}", data)


def _folder(corpus: Path, block: Block) -> Path:
    return cache_folder(corpus) / hashlib.sha256(block[0].encode()).hexdigest()[:16]


def cached_result(corpus: Path, digest: str) -> Statistics | None:
    """The statistics of a whole selection, if it was ever made."""
    try:
        kept = get_json(LocalStorage(corpus), _result(corpus, digest), limits=FACTS_LIMITS)
        return Statistics.model_validate(kept)
    except (SourceError, TransientError, ValueError):
        return None  # absent or damaged: made again


def keep_result(corpus: Path, digest: str, statistics: Statistics, disk: LocalStorage) -> None:
    disk.at(corpus).put(_result(corpus, digest), statistics.model_dump_json().encode())


def _result(corpus: Path, digest: str) -> str:
    return f"{cache_folder(corpus).relative_to(corpus).as_posix()}/merged/{digest}.json"
