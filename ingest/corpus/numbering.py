"""Which number the next episode of every dataset gets, from the columns of the catalog, without an object for each episode."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ingest.corpus.column_checks import DamagedCatalog
from ingest.corpus.lerobot_meta import Dataset
from ingest.corpus.snapshot import Snapshot
from ingest.corpus.tombstones import ErasedPlace, places, tombstones

_COLUMNS = ["dataset_path", "episode_index", "length", "tasks"]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NumberedEpisodes:
    """[n] the episodes of one dataset and the places of erased ones, in order of their number."""

    episode_index: Ints
    length: Ints
    is_erased: npt.NDArray[np.bool_]
    tasks: list[str]  # every text once, in order of its first appearance


def count_episodes(dataset: Dataset, numbered: NumberedEpisodes) -> None:
    """Count episodes and erased places into their dataset, which has none yet.

    Raises:
        DamagedCatalog: they do not number it from 0 without a gap.
    """
    count = len(numbered.episode_index)
    wrong = np.flatnonzero(numbered.episode_index != np.arange(count))
    if len(wrong):
        problem = f"episode number {numbered.episode_index[wrong[0]]}; expected {wrong[0]}"
        raise DamagedCatalog(problem, remedy="run `eicorpus verify`", where=dataset.path)
    dataset.task_indices(numbered.tasks)
    dataset.episodes, dataset.frames = count, int(numbered.length.sum())
    dataset.erased = np.flatnonzero(numbered.is_erased).tolist()


def by_dataset(corpus: Path, current: Snapshot) -> Iterator[tuple[str, NumberedEpisodes]]:
    """(path, episodes) of each dataset that has any, by path.

    Raises:
        DamagedCatalog: a row lacks one of the columns, or a text of its tasks.
    """
    rows = current.read(corpus, "episodes", _COLUMNS)
    for name in _COLUMNS:
        if rows[name].null_count or (name == "tasks" and pc.list_flatten(rows[name]).null_count):
            problem = f"column {name} of an episode is empty"
            raise DamagedCatalog(problem, remedy="run `eicorpus verify`", where="table episodes")
    erased = places(tombstones(corpus, current))
    table = pa.concat_tables([rows, _as_rows(erased, rows.schema)])
    is_erased = np.arange(len(table)) >= len(rows)
    coded = table["dataset_path"].combine_chunks().dictionary_encode()
    dataset, index = coded.indices.to_numpy(), table["episode_index"].to_numpy()
    order = np.lexsort((index, dataset))
    ends = np.cumsum(np.bincount(dataset, minlength=len(coded.dictionary)))
    tasks = _first_tasks(table["tasks"].combine_chunks(), dataset, order)
    paths = coded.dictionary.to_pylist()
    for number in sorted(range(len(paths)), key=paths.__getitem__):
        at = order[ends[number - 1] if number else 0 : ends[number]]
        numbered = NumberedEpisodes(
            episode_index=index[at],
            length=table["length"].to_numpy()[at],
            is_erased=is_erased[at],
            tasks=tasks.get(number, []),
        )
        yield paths[number], numbered


def _as_rows(erased: list[ErasedPlace], schema: pa.Schema) -> pa.Table:
    rows = [{name: getattr(place, name) for name in _COLUMNS} for place in erased]
    return pa.Table.from_pylist(rows, schema=schema)


def _first_tasks(
    tasks: pa.ListArray, dataset: npt.NDArray[np.int32], order: npt.NDArray[np.intp]
) -> dict[int, list[str]]:
    """Number of a dataset -> its texts in order of their first appearance, where `order` is that of the episodes."""
    texts = pc.list_flatten(tasks).dictionary_encode()
    row = pc.list_parent_indices(tasks).to_numpy()
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    by_place = np.argsort(place[row], kind="stable")  # of an episode's texts their own order
    text, of = texts.indices.to_numpy()[by_place], dataset[row][by_place]
    _, first = np.unique(of.astype(np.int64) << 32 | text, return_index=True)
    texts_by_dataset: dict[int, list[str]] = {}
    for at in np.sort(first).tolist():
        texts_by_dataset.setdefault(int(of[at]), []).append(texts.dictionary[int(text[at])].as_py())
    return texts_by_dataset
