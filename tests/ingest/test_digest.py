"""The content digest: blind to where and when, sharp on everything else."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest

from ingest.corpus.digest import POSITIONAL, content_digest, corpus_digest, rows_digest
from schemas.catalog import ADDED_COLUMNS
from schemas.catalog_rows import MeasurementRow, SegmentRow, columns_of
from schemas.committed_rows import EpisodeRow

VECTOR = pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32(), 2))
ROWS = pa.table({"action": VECTOR, "ok": pa.array([True, False])})
TASKS = ["a", "b"]
EPISODE = EpisodeRow(**dict.fromkeys(columns_of(EpisodeRow)) | {"uid": "u", "tasks": TASKS})
SEGMENT = SegmentRow(**dict.fromkeys(columns_of(SegmentRow)))
MEASUREMENT = MeasurementRow(**dict.fromkeys(columns_of(MeasurementRow)))
SEGMENTS = [replace(SEGMENT, start=0), replace(SEGMENT, start=1)]
PARTS = {
    "rows_sha256": rows_digest(ROWS, TASKS),
    "videos": {"head": "00", "wrist": "11"},
    "episode": EPISODE,
    "segments": SEGMENTS,
    "measurements": [MEASUREMENT],
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
    assert digest(episode=replace(EPISODE, **positional)) == digest()
    assert digest(segments=[replace(row, uid="v") for row in SEGMENTS]) == digest()
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
        {"episode": replace(EPISODE, success=False)},
        {"episode": replace(EPISODE, command_only=["left"])},
        {"segments": SEGMENTS[::-1]},
        {"segments": []},
        {"measurements": []},
    ],
)
def test_every_fact_counts(change: dict[str, object]) -> None:
    assert digest(**change) != digest()


@pytest.mark.parametrize("name", ADDED_COLUMNS["episodes"])
def test_a_column_that_came_later_counts_where_it_says_something(name: str) -> None:
    assert digest(episode=replace(EPISODE, **{name: []})) == digest()
    assert digest(episode=replace(EPISODE, **{name: ["x"]})) != digest()


def test_a_corpus_does_not_depend_on_the_order_of_its_episodes() -> None:
    pairs = [("a", "1"), ("b", "2"), ("c", "3")]
    assert corpus_digest(pairs) == corpus_digest(reversed(pairs))
    assert corpus_digest(pairs) != corpus_digest(pairs[:2])
    assert corpus_digest([("a", "2"), ("b", "1")]) != corpus_digest([("a", "1"), ("b", "2")])
    assert corpus_digest([]) == corpus_digest(iter(()))
