"""The content digest: blind to where and when, sharp on everything else."""

from __future__ import annotations

import pyarrow as pa
import pytest

from ingest.corpus.digest import POSITIONAL, content_digest, corpus_digest, rows_digest

VECTOR = pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32(), 2))
ROWS = pa.table({"action": VECTOR, "ok": pa.array([True, False])})
TASKS = ["a", "b"]
EPISODE = {"uid": "u", "length": 2, "tasks": TASKS, "success": None}
PARTS = {
    "rows_sha256": rows_digest(ROWS, TASKS),
    "videos": {"head": "00", "wrist": "11"},
    "episode": EPISODE,
    "segments": [{"start": 0}, {"start": 1}],
    "measurements": [{"value": 0.5}],
}


def digest(**changes: object) -> str:
    return content_digest(**{**PARTS, **changes})  # type: ignore[arg-type]


def test_numbering_and_the_order_of_columns_do_not_count() -> None:
    more = {name: pa.array([7, 8]) for name in ("index", "episode_index", "frame_index")}
    numbered = pa.table({"ok": ROWS["ok"], **more, "action": VECTOR})
    assert rows_digest(numbered, TASKS) == rows_digest(ROWS, TASKS)
    chunks = pa.concat_tables([ROWS.slice(0, 1), ROWS.slice(1)])
    assert rows_digest(chunks, TASKS) == rows_digest(ROWS, TASKS)
    positional = dict.fromkeys(POSITIONAL, "anything")
    assert digest(episode={**EPISODE, **positional}) == digest()
    assert digest(videos={"wrist": "11", "head": "00"}) == digest()


@pytest.mark.parametrize(
    "table",
    [
        pa.table({"action": pa.array([[1.0, 2.0], [3.0, 4.5]], VECTOR.type), "ok": ROWS["ok"]}),
        pa.table({"action": VECTOR, "ok": pa.array([True, True])}),
        pa.table({"actions": VECTOR, "ok": ROWS["ok"]}),
        pa.table({"action": VECTOR}),
        pa.table({"action": VECTOR.cast(pa.list_(pa.float64(), 2)), "ok": ROWS["ok"]}),
        pa.table({"action": pa.array([1.0, 2.0], pa.float32()), "ok": ROWS["ok"]}),
        ROWS.slice(0, 1),
        ROWS.take([1, 0]),
    ],
)
def test_every_value_counts(table: pa.Table) -> None:
    assert rows_digest(table, TASKS) != rows_digest(ROWS, TASKS)


def test_the_text_of_every_timestep_counts() -> None:
    assert rows_digest(ROWS, ["a", "a"]) != rows_digest(ROWS, TASKS)
    assert rows_digest(ROWS, ["a", "b "]) != rows_digest(ROWS, TASKS)


@pytest.mark.parametrize(
    "change",
    [
        {"videos": {"head": "00"}},
        {"videos": {"head": "11", "wrist": "00"}},
        {"rows_sha256": "0"},
        {"episode": {**EPISODE, "success": False}},
        {"episode": {**EPISODE, "extra": None}},
        {"segments": [{"start": 1}, {"start": 0}]},
        {"segments": []},
        {"measurements": []},
    ],
)
def test_every_fact_counts(change: dict[str, object]) -> None:
    assert digest(**change) != digest()


def test_a_corpus_does_not_depend_on_the_order_of_its_episodes() -> None:
    pairs = [("a", "1"), ("b", "2"), ("c", "3")]
    assert corpus_digest(pairs) == corpus_digest(reversed(pairs))
    assert corpus_digest(pairs) != corpus_digest(pairs[:2])
    assert corpus_digest([("a", "2"), ("b", "1")]) != corpus_digest([("a", "1"), ("b", "2")])
    assert corpus_digest([]) == corpus_digest(iter(()))
