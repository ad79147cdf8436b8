"""Normalisation statistics of the trained representation over a manifest's train segments: partials on an executor, then one merge.

Only segments that may supervise an action count, each once whatever its weight, and of them only what `action.valid` holds for.
Rows are merged in the order of dataset, block, uid and start, so the bits do not depend on workers, on what was cached, or when.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from ingest.corpus.commit import datasets_without_episodes
from ingest.corpus.layout import CorpusLayout
from ingest.corpus.lerobot_meta import Dataset
from ingest.corpus.snapshot import Snapshot
from ingest.curation.manifests.action_stats_merge import Whole, by_embodiment, whole_of
from ingest.curation.manifests.action_stats_partial import (
    BLOCK_EPISODES,
    FEATURES,
    KEY,
    Block,
    DeltaResult,
    DeltaWork,
    EpisodeSpans,
    cached,
    cached_result,
    keep,
    keep_result,
    partials,
)
from ingest.curation.manifests.running_stats import QUANTILE_ERROR
from ingest.executors.inline import Executor
from ingest.executors.node_proof import sampled_files, shared
from ingest.storage.local import LocalStorage
from schemas.errors import Code, SourceError
from schemas.manifest import Statistics
from schemas.outcome import WorkerFailure
from schemas.parquet_file import columns_sha256
from schemas.supervision import Task
from schemas.trained_action import REPRESENTATION, trained_names

ACTION_TASKS = (Task.POLICY, Task.FORWARD_DYNAMICS, Task.INVERSE_DYNAMICS)
WORK_EPISODES = 64
SHOWN_ERRORS = 10


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Selection:
    """Which segments count. `frame`: embodiment, dataset_path, block, KEY, path and length, sorted; `datasets` by path."""

    corpus: Path
    frame: pl.DataFrame
    datasets: Mapping[str, Dataset]

    @property
    def digest(self) -> str:
        columns = self.frame.select("embodiment", "dataset_path", *KEY).to_arrow()
        kinds = [pa.int64() if pa.types.is_integer(f.type) else pa.string() for f in columns.schema]
        names = columns.schema.names
        schema = pa.schema(list(zip(names, kinds, strict=True)))
        return columns_sha256(columns.cast(schema))

    def blocks(self) -> Iterator[tuple[Block, pl.DataFrame]]:
        for key, frame in self.frame.group_by("dataset_path", "block", maintain_order=True):
            yield (str(key[0]), int(str(key[1]))), frame


def selection(corpus: Path, current: Snapshot, rows: pa.Table) -> Selection:
    """The rows of a manifest that statistics are of."""
    datasets = {
        path: dataset
        for path, dataset in datasets_without_episodes(corpus, current).items()
        if all(name in dataset.features for name in FEATURES) and _names(dataset)
    }
    names = ["uid", "start", "end", "embodiment", "dataset_path", "episode_index", "split", "tasks"]
    segments = pl.DataFrame(rows.select(names)).filter(
        (pl.col("split") == "train")
        & pl.any_horizontal(pl.col("tasks").list.contains(task.value) for task in ACTION_TASKS)
        & pl.col("dataset_path").is_in(list(datasets))
    )
    columns = ["uid", "path", "sha256", "num_frames"]
    data = pl.DataFrame(
        current.read(corpus, "artifacts", [*columns, "kind"], only=pc.field("kind") == "data")
    ).select("uid", "path", data_sha256="sha256", length="num_frames")
    frame = (
        segments.join(data.unique("uid", keep="last"), on="uid", how="inner")
        .with_columns(block=pl.col("episode_index") // BLOCK_EPISODES)
        .select("embodiment", "dataset_path", "block", *KEY, "path", "length")
        .sort("dataset_path", "block", "uid", "start")
    )
    return Selection(corpus=corpus, frame=frame, datasets=datasets)


def statistics(
    chosen: Selection,
    executor: Executor,
    disk: LocalStorage,
    progress: Callable[[int], None] = lambda episodes: None,
) -> Statistics:
    """Normalisation by embodiment. What is cached is not made again; what is made is cached, even when the rest fails.

    Raises:
        SourceError: data files are missing or not what was committed; the message names them.
    """
    digest = chosen.digest
    if (known := cached_result(chosen.corpus, digest)) is not None:
        return known
    if errors := _make_missing(chosen, executor, disk, progress):
        shown = "\n".join(errors[:SHOWN_ERRORS])
        more = f"\nand {len(errors) - SHOWN_ERRORS} more" if len(errors) > SHOWN_ERRORS else ""
        problem = f"{len(errors)} episodes have no statistics; run `eicorpus verify`, or build with --no-stats"
        raise SourceError(Code.UNREADABLE, f"{problem}\n{shown}{more}", where=str(chosen.corpus))
    found_statistics = Statistics(
        representation=REPRESENTATION,
        quantile_error=QUANTILE_ERROR,
        embodiments=by_embodiment(_wholes(chosen)),
    )
    keep_result(chosen.corpus, digest, found_statistics, disk)
    return found_statistics


def num_missing(chosen: Selection) -> int:
    """Episodes whose data would have to be read."""
    if cached_result(chosen.corpus, chosen.digest) is not None:
        return 0
    return sum(
        _missing_statistics(chosen, block, frame)["uid"].n_unique()
        for block, frame in chosen.blocks()
    )


def _wholes(chosen: Selection) -> Iterator[tuple[str, Whole]]:
    """What is cached of each block, by embodiment, sorted."""
    for block, frame in chosen.blocks():
        names = _names(chosen.datasets[block[0]])
        have = cached(chosen.corpus, block)
        rows = frame.join(have, on=list(KEY), how="inner", maintain_order="left")
        for (embodiment,), rows_of_body in rows.group_by("embodiment", maintain_order=True):
            yield str(embodiment), whole_of(names, rows_of_body)


def _names(dataset: Dataset) -> tuple[str, ...]:
    return trained_names(dataset.features["action"]["names"])


# --- partials ------------------------------------------------------------------------------------------------------------


def _missing_statistics(chosen: Selection, block: Block, frame: pl.DataFrame) -> pl.DataFrame:
    have = cached(chosen.corpus, block, KEY)
    return frame.join(have, on=list(KEY), how="anti", maintain_order="left")


def _work_of(chosen: Selection) -> Iterator[DeltaWork]:
    for block, frame in chosen.blocks():
        features = chosen.datasets[block[0]].features
        episodes = [
            EpisodeSpans(
                uid=uid,
                path=path,
                data_sha256=sha256,
                length=length,
                spans=tuple(zip(starts, ends, strict=True)),
            )
            for uid, path, sha256, length, starts, ends in _missing_statistics(chosen, block, frame)
            .group_by("uid", "path", "data_sha256", "length", maintain_order=True)
            .agg("start", "end")
            .iter_rows()
        ]
        for first in range(0, len(episodes), WORK_EPISODES):
            yield DeltaWork(
                corpus=str(chosen.corpus),
                names=tuple(tuple(features[name]["names"]) for name in FEATURES),
                episodes=tuple(episodes[first : first + WORK_EPISODES]),
                block=block,
            )


def _make_missing(
    chosen: Selection, executor: Executor, disk: LocalStorage, progress: Callable[[int], None]
) -> list[str]:
    """Compute and file what is not cached; what went wrong, in the order it was partial_result."""
    errors: list[str] = []
    rows: dict[Block, list[pa.Table]] = defaultdict(list)
    done = 0

    def file(block: Block) -> None:
        if tables := rows.pop(block, []):
            table = pa.concat_tables(tables).sort_by([("uid", "ascending"), ("start", "ascending")])
            if len(table):
                keep(chosen.corpus, block, table, disk)

    work = _work_of(chosen)
    data_files = partial(sampled_files, chosen.corpus / "datasets")
    try:
        with shared(executor, CorpusLayout(chosen.corpus), disk, files=data_files):
            for one, result in executor.run(lambda: next(work, None), partials):
                partial_result = _result_of(one, result)
                errors += partial_result.errors
                rows[one.block].append(partial_result.rows)
                done += len(one.episodes)
                progress(done)
                # Blocks come in order and few episodes are under way, so one before the last is complete, or
                # nearly: what comes late makes another file of the block.
                for block in [b for b in rows if b < one.block][:-1]:
                    file(block)
    finally:
        for block in list(rows):
            file(block)
    return errors


def _result_of(work: DeltaWork, result: DeltaResult | WorkerFailure) -> DeltaResult:
    if isinstance(result, WorkerFailure):
        first = work.episodes[0].path
        problem = f"{result.code.value}: {result.how}; among {len(work.episodes)} from {first}"
        return DeltaResult(rows=pa.table([]), errors=(problem,))
    return result
