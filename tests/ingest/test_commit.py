"""The committer: contiguous numbers, files that match their artifacts, digests that can be recomputed from disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from ingest.corpus import snapshot
from ingest.corpus.column_checks import DamagedCatalog
from ingest.corpus.commit import Committer, datasets_of, stored_episodes
from ingest.corpus.digest import content_digest, rows_digest
from ingest.corpus.layout import CorpusLayout
from ingest.corpus.lerobot_writer import column_stats
from ingest.corpus.snapshot import Snapshot
from ingest.executors.inline import InlineExecutor
from ingest.pipeline.process import Work, process
from ingest.recipe import Recipe
from ingest.storage.local import LocalStorage
from schemas.catalog_rows import MeasurementRow, SegmentRow, columns_of
from schemas.committed_rows import EpisodeRow, VerdictRow
from schemas.episode import Episode, EpisodeRef, Instruction
from schemas.errors import InvariantError, TransientError
from schemas.lerobot import Info
from schemas.outcome import Outcome, WorkerFailure
from tests.faults import runs
from tests.faults.runs import facts, run, tree
from tests.faults.toy import Toy, write_toy

SHAPES = "tests.ingest.test_commit:Shapes"


class Shapes(Toy):
    """The toy source; `blind` has no camera, `two_tasks` changes its text halfway."""

    def load(self, ref: EpisodeRef) -> Episode:
        good = super().load(replace(ref, locator=(("kind", "good"),)))
        kind = ref.at("kind")
        if kind == "blind":
            return replace(good, cameras=())
        if kind == "two_tasks":
            texts = (
                Instruction(text="second", start_ns=400_000_000, kind="subtask"),
                Instruction(text="first"),
            )
            return replace(good, instructions=texts)
        return good


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs: a, b (another feature table), c (two tasks); then d (the first task of c again)."""
    folder = tmp_path_factory.mktemp("commit")
    kinds = {"a": "good", "b": "blind", "c": "two_tasks"}
    run(write_toy(folder / "raw", kinds), folder / "corpus", source=SHAPES, run_id="1")
    write_toy(folder / "raw", {**kinds, "d": "two_tasks"})
    run(folder / "raw", folder / "corpus", source=SHAPES, run_id="2")
    return folder / "corpus"


def datasets(corpus: Path) -> list[Path]:
    return sorted(path.parent.parent for path in corpus.glob("datasets/*/*/meta/info.json"))


def jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def data_of(dataset: Path) -> list[Any]:
    return [pq.read_table(path) for path in sorted(dataset.glob("data/*/*.parquet"))]


def test_episodes_that_differ_in_features_do_not_share_a_dataset(corpus: Path) -> None:
    names = [path.relative_to(corpus).as_posix() for path in datasets(corpus)]
    assert len(names) == 2
    assert all(name.startswith("datasets/toy/umi.") for name in names)
    counts = sorted(
        json.loads((d / "meta/info.json").read_text())["total_episodes"] for d in datasets(corpus)
    )
    assert counts == [1, 3]


def test_numbers_are_contiguous_across_runs(corpus: Path) -> None:
    for dataset in datasets(corpus):
        tables = data_of(dataset)
        episodes = [set(t["episode_index"].to_pylist()) for t in tables]
        assert episodes == [{i} for i in range(len(tables))]
        index = np.concatenate([t["index"].to_numpy() for t in tables])
        np.testing.assert_array_equal(index, np.arange(len(index)))


def test_tasks_are_numbered_in_order_of_first_appearance(corpus: Path) -> None:
    (dataset,) = (d for d in datasets(corpus) if len(data_of(d)) == 3)
    tasks = {line["task_index"]: line["task"] for line in jsonl(dataset / "meta/tasks.jsonl")}
    assert tasks == {0: "do a", 1: "first", 2: "second"}
    a, c, d = data_of(dataset)
    assert set(a["task_index"].to_pylist()) == {0}
    for table in (c, d):
        assert table["task_index"].to_pylist() == [1] * 4 + [2] * (table.num_rows - 4)
    lines = jsonl(dataset / "meta/episodes.jsonl")
    assert [line["tasks"] for line in lines] == [["do a"], ["first", "second"], ["first", "second"]]


def test_every_artifact_is_the_file_it_names(corpus: Path) -> None:
    artifacts = [a for a in facts(corpus, "artifacts") if a["kind"] != "features"]
    assert len(artifacts) == 4 + 3  # a data file each, and three videos
    for artifact in artifacts:
        data = (corpus / artifact["path"]).read_bytes()
        assert artifact["num_bytes"] == len(data)
        assert artifact["sha256"] == hashlib.sha256(data).hexdigest()
    on_disk = {p.relative_to(corpus).as_posix() for p in corpus.glob("datasets/**/episode_*.*")}
    assert on_disk == {a["path"] for a in artifacts}


def test_the_content_digest_can_be_recomputed_from_disk(corpus: Path) -> None:
    """From the parquet, the videos and the catalog alone: what a reader sees is what was digested."""
    segments = facts(corpus, "segments")
    for row in facts(corpus, "episodes"):
        dataset = corpus / row["dataset_path"]
        tasks = {t["task_index"]: t["task"] for t in jsonl(dataset / "meta/tasks.jsonl")}
        table = data_of(dataset)[row["episode_index"]]
        mine = [a for a in facts(corpus, "artifacts") if a["uid"] == row["uid"]]
        videos = {a["camera"]: a["sha256"] for a in mine if a["kind"] == "video"}
        found = content_digest(
            rows_sha256=rows_digest(table, [tasks[i] for i in table["task_index"].to_pylist()]),
            videos=videos,
            episode=EpisodeRow(**row | {"run_id": ""}),
            segments=[SegmentRow(**s) for s in _sorted(segments, row["uid"])],
            measurements=[MeasurementRow(**m) for m in measurements_of(corpus, row["uid"])],
        )
        assert found == row["content_sha256"]


def _sorted(rows: list[dict[str, Any]], uid: str) -> list[dict[str, Any]]:
    return sorted((r for r in rows if r["uid"] == uid), key=lambda r: r["segment_index"])


def measurements_of(corpus: Path, uid: str) -> list[dict[str, Any]]:
    """In the order in which they were written."""
    rows = snapshot.load(corpus).read(corpus, "measurements").to_pylist()
    return [row for row in rows if row["uid"] == uid]


def test_meta_says_what_the_data_say(corpus: Path) -> None:
    for dataset in datasets(corpus):
        tables = data_of(dataset)
        info = Info.model_validate_json((dataset / "meta/info.json").read_text())
        assert info.total_frames == sum(t.num_rows for t in tables)
        assert info.splits == {"train": f"0:{len(tables)}"}
        assert info.total_chunks == 1
        lines = jsonl(dataset / "meta/episodes_stats.jsonl")
        assert [line["episode_index"] for line in lines] == list(range(len(tables)))
        for line, table in zip(lines, tables, strict=True):
            for name in table.column_names:
                column = np.array(table[name].to_pylist())
                wanted = column_stats(
                    column.astype(np.float32) if column.dtype == float else column
                )
                for key in ("min", "max", "mean", "std", "count"):
                    np.testing.assert_allclose(line["stats"][name][key], wanted[key], rtol=1e-6)
            assert set(line["stats"]) == set(info.features)


def test_a_corpus_can_be_continued_from_its_catalog(corpus: Path) -> None:
    current = snapshot.load(corpus)
    for path, dataset in datasets_of(corpus, current).items():
        rows = [row for row, _ in stored_episodes(corpus, current, path)]
        assert dataset.episodes == len(rows)
        assert dataset.frames == sum(row.length for row in rows)
        assert [row.episode_index for row in rows] == list(range(len(rows)))
        assert dataset.fps == 10


# --- two writers --------------------------------------------------------------------------------------------------------


class Overtaken(InlineExecutor):
    """While it works, a writer on another machine (which the lock cannot see) commits other episodes."""

    def __init__(self, raw: Path, out: Path) -> None:
        super().__init__()
        self.raw, self.out = raw, out

    def run(
        self, next_work: Callable[[], Work | None], body: Any
    ) -> Iterator[tuple[Work, Outcome | WorkerFailure]]:
        run(self.raw, self.out, run_id="winner")
        yield from super().run(next_work, body)


def test_the_slower_of_two_writers_harms_nothing_and_runs_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = write_toy(tmp_path / "theirs", dict.fromkeys("abc", "good"))
    ours = write_toy(tmp_path / "ours", dict.fromkeys("xyz", "good"))
    out = tmp_path / "corpus"
    monkeypatch.setattr(runs, "writer_lock", lambda corpus: nullcontext())
    with pytest.raises(TransientError, match="another writer"):
        run(ours, out, executor=Overtaken(theirs, out), run_id="loser")
    run(theirs, tmp_path / "wanted")
    assert tree(out / "datasets") == tree(tmp_path / "wanted" / "datasets")
    tally = run(ours, out, run_id="loser again")
    assert (tally.committed, tally.failed) == (3, 0)
    found = [row["episode_id"] for row in facts(out, "episodes")]
    assert sorted(found) == list("abcxyz")
    for artifact in facts(out, "artifacts"):
        if artifact["kind"] != "features":
            data = (out / artifact["path"]).read_bytes()
            assert hashlib.sha256(data).hexdigest() == artifact["sha256"]


# --- invariants ---------------------------------------------------------------------------------------------------------


def staged(tmp_path: Path, number: int) -> tuple[Any, Path]:
    info = Toy().survey(tmp_path, {})
    write_toy(tmp_path / "raw", {f"e{number}": "good"})
    (ref,) = Toy().discover(tmp_path / "raw", info)
    folder = tmp_path / "corpus" / "staging" / ref.uid
    work = Work(ref=ref, adapter=runs.TOY, recipe=Recipe(), staging=str(folder))
    return process(work, LocalStorage()), folder


def committer(tmp_path: Path) -> Committer:
    corpus = CorpusLayout(tmp_path / "corpus")
    return Committer(corpus=corpus, disk=LocalStorage(), run_id="r", parent=Snapshot())


VERDICT = VerdictRow(**dict.fromkeys(columns_of(VerdictRow)))


def test_one_folder_cannot_have_two_feature_tables(tmp_path: Path) -> None:
    one = committer(tmp_path)
    first, folder = staged(tmp_path, 0)
    one.add(first, VERDICT, folder)
    second, folder = staged(tmp_path, 1)
    odd = replace(second.staged, features={"action": second.staged.features["action"]})
    one.add(replace(second, staged=odd), VERDICT, folder)
    with pytest.raises(InvariantError, match="two different feature tables"):
        one.flush()
    assert snapshot.load(tmp_path / "corpus").number == 0


def test_nothing_to_commit_makes_no_snapshot(tmp_path: Path) -> None:
    assert committer(tmp_path).flush() == []
    assert committer(tmp_path).flush([]) == []
    assert not (tmp_path / "corpus").exists()


def test_a_hole_in_the_numbering_is_noticed(corpus: Path, tmp_path: Path) -> None:
    """A catalog that lost a part must not be continued: the next episode would take a used number."""
    current = snapshot.load(corpus)
    parts = current.parts("episodes")
    broken = Snapshot(number=9, tables={**current.tables, "episodes": parts[1:]})
    with pytest.raises(DamagedCatalog, match="; expected"):
        datasets_of(corpus, broken)
