"""A start reads columns and few folders; what it finds is what a look at every row and every file finds."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from ingest.corpus import ledger, snapshot
from ingest.corpus.column_checks import DamagedCatalog
from ingest.corpus.layout import CorpusLayout
from ingest.corpus.ledger import read_history
from ingest.corpus.lerobot_meta import Dataset
from ingest.corpus.numbering import by_dataset, count_episodes
from ingest.corpus.tombstones import ERASED_TASK
from ingest.corpus.writer import UNFINISHED, _has_only_committed, writing
from ingest.pipeline import plan
from ingest.pipeline.plan import Request, make_plan
from ingest.recipe import Recipe
from ingest.storage.local import LocalStorage
from schemas.catalog_rows import columns_of
from schemas.committed_rows import TombstoneRow
from schemas.lerobot import CHUNK_SIZE
from tests.faults.runs import run
from tests.faults.toy import write_toy
from tests.generators.corpus import commit, rows_of

# --- numbering ------------------------------------------------------------------------------------------------------------


def dataset_at(path: str, episodes: int = 0) -> Dataset:
    return Dataset(path=path, robot_type="r", fps=10, features={}, spec=[], episodes=episodes)


def shuffled(root: Path) -> snapshot.Snapshot:
    """90 episodes of three datasets in three parts, in any order; five were erased."""
    rows = rows_of(90, 0)["episodes"]
    random.Random(7).shuffle(rows)
    erased, left = rows[:5], rows[5:]
    empty = dict.fromkeys(columns_of(TombstoneRow))
    names = ("uid", "dataset_path", "episode_index", "index_from", "length")
    tombstones = [
        {**empty, **{name: row[name] for name in names}, "files": [], "run_id": "r"}
        for row in erased
    ]
    for start in range(0, len(left), 30):
        commit(root, {"episodes": left[start : start + 30]}, f"run-{start}")
    return commit(root, {"tombstones": tombstones}, "forget")


def expected(root: Path, current: snapshot.Snapshot) -> dict[str, Dataset]:
    """The same, an episode at a time."""
    rows: list[dict[str, Any]] = current.read(root, "episodes").to_pylist()
    rows += [
        {**row, "tasks": [ERASED_TASK]} for row in current.read(root, "tombstones").to_pylist()
    ]
    datasets: dict[str, Dataset] = {}
    for row in sorted(rows, key=lambda row: row["episode_index"]):
        path = row["dataset_path"]
        dataset = datasets.setdefault(path, dataset_at(path))
        dataset.task_indices(row["tasks"])
        dataset.grow(row["length"], is_erased=row["tasks"] == [ERASED_TASK])
    return datasets


def counted(root: Path, current: snapshot.Snapshot) -> dict[str, Dataset]:
    datasets = {}
    for path, numbered in by_dataset(root, current):
        datasets[path] = dataset_at(path)
        count_episodes(datasets[path], numbered)
    return datasets


def test_columns_number_as_rows_do(tmp_path: Path) -> None:
    current = shuffled(tmp_path)
    found, wanted = counted(tmp_path, current), expected(tmp_path, current)
    assert found == wanted
    assert sorted(found) == list(found)
    assert {path: list(d.tasks) for path, d in found.items()} == {
        path: list(d.tasks) for path, d in wanted.items()
    }
    assert sum(len(d.erased) for d in found.values()) == 5
    assert sum(d.episodes for d in found.values()) == 90


def test_no_episodes_are_no_datasets(tmp_path: Path) -> None:
    assert counted(tmp_path, snapshot.Snapshot()) == {}


@pytest.mark.parametrize(
    ("column", "value"), [("dataset_path", None), ("tasks", None), ("tasks", ["a", None])]
)
def test_an_episode_without_a_number_is_damage(column: str, value: Any, tmp_path: Path) -> None:
    rows = rows_of(6, 0)["episodes"]
    rows[3][column] = value
    current = commit(tmp_path, {"episodes": rows})
    with pytest.raises(DamagedCatalog):
        counted(tmp_path, current)


# --- files ----------------------------------------------------------------------------------------------------------------


def test_folders_of_full_chunks_are_not_listed() -> None:
    datasets = {"datasets/s/b.1": dataset_at("datasets/s/b.1", episodes=2 * CHUNK_SIZE + 1)}

    def settled(relative: str) -> bool:
        return _has_only_committed(datasets, relative)

    assert settled("s/b.1/data/chunk-000")
    assert settled("s/b.1/data/chunk-001")
    assert settled("s/b.1/videos/chunk-001")
    assert settled("s/b.1/latents")
    assert not settled("s/b.1/data/chunk-002")
    assert not settled("s/b.1/data/chunk-010")
    assert not settled("s/b.1/data")
    assert not settled("s/b.1/meta")
    assert not settled("s/b.1/meta/chunk-000")
    assert not settled("s/b.1/data/chunk-000x")
    assert not settled("s/b.2/data/chunk-000")
    assert not settled("s")


def test_the_chunk_of_the_next_episode_is_listed() -> None:
    """A chunk that is just full: the next file lies in the one after it."""
    datasets = {"datasets/s/b": dataset_at("datasets/s/b", episodes=CHUNK_SIZE)}
    assert _has_only_committed(datasets, "s/b/data/chunk-000")
    assert not _has_only_committed(datasets, "s/b/data/chunk-001")
    datasets = {"datasets/s/b": dataset_at("datasets/s/b", episodes=CHUNK_SIZE - 1)}
    assert not _has_only_committed(datasets, "s/b/data/chunk-000")


@pytest.mark.parametrize("block_recovers", [True, False])
def test_half_latents_go_after_an_unfinished_writer(block_recovers: bool, tmp_path: Path) -> None:
    run(write_toy(tmp_path / "raw", dict.fromkeys("ab", "good")), tmp_path / "corpus")
    (info,) = (tmp_path / "corpus").glob("datasets/*/*/meta/info.json")
    folder = info.parents[1] / "latents/dino/chunk-000/front"
    folder.mkdir(parents=True)
    half, whole = folder / ".episode_000000.safetensors.part", folder / "episode_000000.safetensors"
    half.touch()
    whole.touch()
    corpus = CorpusLayout(tmp_path / "corpus")
    with writing(corpus, LocalStorage(corpus.root), block_recovers=block_recovers) as done:
        assert done == []
    assert half.exists()
    (corpus.root / UNFINISHED).touch()
    with writing(corpus, LocalStorage(corpus.root), block_recovers=block_recovers) as done:
        assert [half.name in line for line in done] == [True]
    assert not half.exists()
    assert whole.exists()


# --- plan and ledger ------------------------------------------------------------------------------------------------------


def test_a_plan_in_batches_is_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_toy(tmp_path / "raw", dict.fromkeys("abcdefg", "good"))
    request = Request(source="tests.faults.toy:Toy", root=root, options={}, recipe=Recipe())
    whole = make_plan(request, None, snapshot.Snapshot())
    monkeypatch.setattr(plan, "BATCH", 3)
    in_batches = make_plan(request, None, snapshot.Snapshot())
    assert [ref.episode_id for ref in in_batches.todo] == [ref.episode_id for ref in whole.todo]
    assert len(whole.todo) == 7


def lines_of_runs(seed: int) -> list[str]:
    """Events of few episodes: poisoned, mended, written by hand, and cut."""
    rng = random.Random(seed)
    lines = []
    for _ in range(200):
        uid = f"u{rng.randrange(12)}"
        code = rng.choice(["", "too_short", "worker_died", "time_limit", "out_of_memory"])
        message = rng.choice(["", 'says "uid": "u1", ', "worker_died before"])
        event = rng.choice(["end", "end", "attempt", "death"])
        row = {"event": event, "uid": uid, "state": "s", "code": code, "message": message}
        if rng.random() < 0.2:
            row = dict(reversed(row.items()))
        text = json.dumps(row, separators=rng.choice([None, None, (",", ":")]))
        lines.append(text[: rng.randrange(len(text))] if rng.random() < 0.05 else text)
    return lines


@pytest.mark.parametrize("seed", range(8))
def test_lines_that_are_not_parsed_change_nothing(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "r1.jsonl").write_text("".join(f"{line}\n" for line in lines_of_runs(seed)))
    found = read_history(tmp_path).poisoned
    monkeypatch.setattr(ledger, "_changes_nothing", lambda line, poisoned: False)
    assert found == read_history(tmp_path).poisoned
    assert found
