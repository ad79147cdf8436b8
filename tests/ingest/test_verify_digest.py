"""The content digest depends on content alone: not on order, numbering, place, time or executor; and on all of it."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ingest.corpus import snapshot
from ingest.corpus.digest import corpus_digest
from ingest.executors.local import LocalExecutor
from ingest.verify.digest import TASK_LIMITS, digest
from schemas.episode import Episode, EpisodeRef
from schemas.errors import ConfigError, SourceError
from tests.faults.runs import LIMITS, run
from tests.faults.toy import Toy, write_toy
from tests.ingest.verify_corpus import (
    TOY_EPISODES,
    build_toy,
    data_file,
    dataset,
    edit,
    rewrite_column,
    rewrite_rows,
    rewrite_table,
    video_file,
)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("digest")
    return build_toy(root / "toy", root / "corpus", run_id="first")


@pytest.fixture
def corpus(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "corpus"))


def test_it_is_recomputed_and_agrees_with_what_was_committed(sound: Path) -> None:
    rows = snapshot.load(sound).read(sound, "episodes", ["uid", "content_sha256"]).to_pylist()
    found = digest(sound)
    assert found.sha256 == corpus_digest((row["uid"], row["content_sha256"]) for row in rows)
    assert (found.episodes, found.changed) == (4, 0)


@pytest.mark.slow
def test_it_does_not_depend_on_place_run_or_processes(sound: Path, tmp_path: Path) -> None:
    other = build_toy(
        tmp_path / "raw", tmp_path / "b", run_id="r2", executor=LocalExecutor(2, LIMITS)
    )
    assert digest(other).sha256 == digest(sound, workers=1).sha256


def test_it_does_not_depend_on_a_limit_and_the_rest(sound: Path, tmp_path: Path) -> None:
    raw = write_toy(tmp_path / "raw", TOY_EPISODES)
    run(raw, tmp_path / "c", run_id="some", limit=3)
    some = digest(tmp_path / "c")
    run(raw, tmp_path / "c", run_id="rest")
    rest = digest(tmp_path / "c")
    assert (some.episodes, rest.episodes) == (2, 4)
    assert some.sha256 != rest.sha256 == digest(sound).sha256


def test_it_does_not_depend_on_order_and_numbering(sound: Path, tmp_path: Path) -> None:
    backwards = dict(reversed(TOY_EPISODES.items()))
    run(write_toy(tmp_path / "raw", backwards), tmp_path / "c")
    first = json.loads(_lines(tmp_path / "c", "episodes.jsonl")[0])
    assert first["tasks"] == ["do f"]  # it is another numbering
    assert digest(tmp_path / "c").sha256 == digest(sound).sha256


def test_it_does_not_depend_on_the_bytes_of_parquet(corpus: Path, sound: Path) -> None:
    before = data_file(corpus).read_bytes()
    rewrite_rows(data_file(corpus), lambda table: table, row_group_size=3)
    assert data_file(corpus).read_bytes() != before
    assert digest(corpus).sha256 == digest(sound).sha256


def _lines(corpus: Path, name: str) -> list[str]:
    return (dataset(corpus) / "meta" / name).read_text().splitlines()


# --- what it does depend on -------------------------------------------------------------------------------------------


def one_video_byte(corpus: Path) -> None:
    path = video_file(corpus)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def one_action_value(corpus: Path) -> None:
    def change(values: np.ndarray) -> np.ndarray:
        values[2, 1] = np.nextafter(values[2, 1], np.float32(np.inf))
        return values

    rewrite_column(data_file(corpus), "action", change)


def one_mask(corpus: Path) -> None:
    def change(values: np.ndarray) -> np.ndarray:
        values[2, 1] ^= True
        return values

    rewrite_column(data_file(corpus), "action.valid", change)


def one_task_text(corpus: Path) -> None:
    edit(dataset(corpus) / "meta/tasks.jsonl", "do e", "do E")


def the_task_of_one_row(corpus: Path) -> None:
    def change(values: np.ndarray) -> np.ndarray:
        values[2] = 0
        return values

    rewrite_column(data_file(corpus), "task_index", change)


def one_fact(corpus: Path) -> None:
    rewrite_table(corpus, "episodes", lambda rows: [rows[0] | {"licence": "other"}, *rows[1:]])


def one_segment(corpus: Path) -> None:
    rewrite_table(corpus, "segments", lambda rows: [rows[0] | {"end": 1}, *rows[1:]])


@pytest.mark.parametrize(
    "change",
    [
        one_video_byte,
        one_action_value,
        one_mask,
        one_task_text,
        the_task_of_one_row,
        one_fact,
        one_segment,
    ],
)
def test_it_depends_on_every_part_of_the_content(
    corpus: Path, sound: Path, change: Callable[[Path], None]
) -> None:
    change(corpus)
    found = digest(corpus)
    assert found.sha256 != digest(sound).sha256
    assert found.changed == 1


def test_it_depends_on_the_task_text_of_the_raw_data(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = Toy.load

    def other_text(self: Toy, ref: EpisodeRef) -> Episode:
        episode = load(self, ref)
        if ref.episode_id != "c":
            return episode
        said = dataclasses.replace(episode.instructions[0], text="do C")
        return dataclasses.replace(episode, instructions=(said,))

    monkeypatch.setattr(Toy, "load", other_text)
    other = build_toy(tmp_path / "raw", tmp_path / "c")
    found = digest(other)
    assert found.sha256 != digest(sound).sha256
    assert found.changed == 0


# --- what has no digest -----------------------------------------------------------------------------------------------


def test_a_missing_file_has_no_content(corpus: Path) -> None:
    video_file(corpus).unlink()
    with pytest.raises(SourceError, match=r"episode_000001\.mp4.*found nothing there"):
        digest(corpus)


def test_a_broken_file_has_no_content(corpus: Path) -> None:
    data_file(corpus).write_bytes(b"PAR1" * 10)
    with pytest.raises(SourceError, match="eicorpus verify"):
        digest(corpus)


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 100_000,
        b"7",
        b'{"task_index": 0}',
        b'{"task_index": true, "task": "x"}',
        b'{"task_index": ' + b"7" * 5_000 + b', "task": "x"}',
        b'{"task_index": 0, "task": ["do e"]}',
        b"\0" * (TASK_LIMITS.max_bytes + 1),
    ],
    ids=["nested", "number", "no text", "bool", "5,000 digits", "list", "long"],
)
def test_a_list_of_tasks_that_is_none_is_named_with_its_line(corpus: Path, line: bytes) -> None:
    path = dataset(corpus) / "meta" / "tasks.jsonl"
    path.write_bytes(path.read_bytes() + line + b"\n")
    number = len(_lines(corpus, "tasks.jsonl"))
    with pytest.raises(ConfigError, match=rf"tasks\.jsonl.*line {number}\b"):
        digest(corpus)


def test_a_list_of_tasks_without_end_is_not_read(corpus: Path) -> None:
    os.truncate(dataset(corpus) / "meta" / "tasks.jsonl", 300 << 30)
    with pytest.raises(ConfigError, match=r"tasks\.jsonl.*bytes; expected at most"):
        digest(corpus)


def test_a_broken_snapshot_has_no_content(corpus: Path) -> None:
    max((corpus / snapshot.FOLDER).iterdir()).write_text("{")
    with pytest.raises(SourceError, match="eicorpus verify"):
        digest(corpus)


def test_an_empty_corpus_has_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        digest(tmp_path)
    (tmp_path / "corpus.json").write_text('{"format_version": 1}')
    assert digest(tmp_path).episodes == 0
    assert digest(tmp_path).sha256 == corpus_digest([])
