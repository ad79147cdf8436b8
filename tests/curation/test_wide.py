"""Long measurements as columns: the newest version wins, unknown stays unknown, strangers stay out."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.catalog import uid_index as places_module
from ingest.catalog.uid_index import UidIndex
from ingest.corpus import snapshot
from ingest.corpus.snapshot import Part, Snapshot
from ingest.curation.tiers import measurement_matrix as matrix_module
from ingest.curation.tiers.measurement_matrix import MeasurementMatrix, read_matrix, read_spans
from schemas.catalog import TABLES
from tests.curation.tier_corpus import Given, measurement, write_corpus
from tests.generators.corpus import commit, uid_of


def read(root: Path, uids: list[str], names: list[str], stretches: list[str]) -> MeasurementMatrix:
    current = snapshot.load(root)
    places = UidIndex(pl.Series(uids, dtype=pl.String))
    return read_matrix(root, current, places, names=names, interval_names=stretches)


def listed(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(v) else float(v) for v in values]


def test_the_newest_version_wins_whatever_part_it_is_in(tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "c", [Given(whole={"a": 1.0, "b": 5.0}, version=2), Given()])
    one, two = uid_of(0), uid_of(1)
    later = [
        measurement(one, "a", 9.0, None, None, 1),  # older, in a later part
        measurement(one, "b", None, None, None, 3),  # newer, and nothing could be said
        measurement(two, "a", 3.0, None, None, 1),
        measurement("stranger", "a", 7.0, None, None, 1),
    ]
    commit(root, {"measurements": later})
    found = read(root, [two, one], ["a", "b", "never"], [])
    assert listed(found.values["a"]) == [3.0, 1.0]
    assert listed(found.values["b"]) == [None, None]
    assert listed(found.values["never"]) == [None, None]


def test_two_versions_in_one_part(tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "c", [Given()])
    rows = [measurement(uid_of(0), "a", float(v), None, None, v) for v in (3, 1, 2)]
    commit(root, {"measurements": rows})
    assert listed(read(root, [uid_of(0)], ["a"], []).values["a"]) == [3.0]


def test_intervals_of_older_versions_are_gone(tmp_path: Path) -> None:
    pauses = {"pause_s": [(10, 20, 1.0), (40, 60, 2.0)]}
    given = [Given(stretches=pauses), Given(stretches=pauses), Given(stretches={"pause_s": []})]
    root = write_corpus(tmp_path / "c", [*given, Given()])
    renewed = [
        measurement(uid_of(0), "pause_s", None, None, None, 2),  # version 2 finds none
        measurement(uid_of(1), "pause_s", 3.0, 50, 80, 2),
    ]
    commit(root, {"measurements": renewed})
    found = read(root, [uid_of(k) for k in range(4)], ["idle_share"], ["pause_s"])
    pause = found.intervals["pause_s"]
    assert (pause.spans.row.tolist(), pause.spans.start.tolist()) == ([1], [50])
    assert pause.value.tolist() == [3.0]
    assert pause.is_measured.tolist() == [True, True, True, False]
    assert listed(found.values["idle_share"]) == [None] * 4


def test_a_row_of_a_stretch_is_no_number_of_the_episode(tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "c", [Given(whole={"a": 1.0}, stretches={"a": [(0, 5, 9.0)]})])
    assert listed(read(root, [uid_of(0)], ["a"], []).values["a"]) == [1.0]


@pytest.mark.parametrize("column", ["uid", "name", "version", "value"])
def test_a_row_that_lacks_something_says_nothing(tmp_path: Path, column: str) -> None:
    """What another program wrote may be NULL anywhere; of `value` that is a number that could not be measured."""
    root = write_corpus(tmp_path / "c", [Given(), Given()])
    rows = [measurement(uid_of(k), "a", 1.0 + k, None, None, 1) for k in (0, 1)]
    rows[1] |= {column: None}
    commit(root, {"measurements": rows})
    assert listed(read(root, [uid_of(0), uid_of(1)], ["a"], []).values["a"]) == [1.0, None]


def test_one_episode_alone(tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "c", [Given(whole={"a": float(k)}) for k in range(5)])
    assert listed(read(root, [uid_of(3)], ["a"], []).values["a"]) == [3.0]


def test_nothing_committed_yet(tmp_path: Path) -> None:
    found = read(tmp_path, [], ["a"], ["b"])
    assert len(found.values["a"]) == len(found.intervals["b"].spans) == 0


def test_places_of_uids() -> None:
    places = UidIndex(pl.Series(["b", "a", "c"]))
    assert places.of(pl.Series(["c", "x", "a", "a", ""])).tolist() == [2, -1, 1, 1, -1]
    assert places.of(pl.Series([], dtype=pl.String)).tolist() == []
    assert UidIndex(pl.Series([], dtype=pl.String)).of(pl.Series(["a"])).tolist() == [-1]


def test_a_newer_version_without_a_number_of_the_episode_takes_the_older_one_away(
    tmp_path: Path,
) -> None:
    """In one part and in two: what only holds for a stretch is no number of the whole."""
    root = write_corpus(tmp_path / "c", [Given(whole={"a": 1.0}), Given()])
    rows = [measurement(uid_of(1), "a", 2.0, None, None, 1)]
    rows += [measurement(uid_of(k), "a", 5.0, 10, 20, 2) for k in (0, 1)]
    commit(root, {"measurements": rows})
    found = read(root, [uid_of(0), uid_of(1)], ["a"], ["a"])
    assert listed(found.values["a"]) == [None, None]
    assert found.intervals["a"].value.tolist() == [5.0, 5.0]


# --- against a plain loop -----------------------------------------------------------------------------------------------

NAMES = ("a", "b", "c", "d.worst")
EPISODES = tuple(uid_of(k) for k in range(6))
known = st.one_of(st.none(), st.integers(-3, 3).map(float))
stretch = st.one_of(st.none(), st.tuples(st.integers(0, 5), st.integers(6, 9)))
row = st.tuples(
    st.sampled_from((*EPISODES, "stranger")),
    st.sampled_from((*NAMES, "other")),
    known,
    stretch,
    st.sampled_from((1, 2, 3, 300)),  # more than a byte holds
)


def by_loop(rows: list[dict[str, Any]], uid: str, name: str) -> tuple[float | None, list[Any]]:
    """The number of the newest version, and its stretches, as the words of `read_wide` have it."""
    mine = [r for r in rows if (r["uid"], r["name"]) == (uid, name)]
    newest = [r for r in mine if r["version"] == max(m["version"] for m in mine)]
    whole = [r["value"] for r in newest if r["start"] is None]
    spans = [(r["start"], r["end"], r["value"]) for r in newest if r["start"] is not None]
    return (whole[-1] if whole else None), spans


@given(
    st.lists(st.lists(row, min_size=1, max_size=12), max_size=4),
    st.permutations(EPISODES),
    st.integers(1, 5),
    st.booleans(),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_same_as_a_plain_loop(
    tmp_path_factory: pytest.TempPathFactory,
    parts: list[list[Any]],
    order: list[str],
    row_group: int,
    has_plain_texts: bool,
) -> None:
    """In any row groups, with texts that Parquet stores by number or as they are, and in pieces of three rows."""
    root = tmp_path_factory.mktemp("corpus")
    (root / "catalog/measurements").mkdir(parents=True)
    batches = [
        [
            measurement(uid, name, v, at and at[0], at and at[1], version)
            for uid, name, v, at, version in p
        ]
        for p in parts
    ]
    written = []
    for number, batch in enumerate(batches):
        path = root / "catalog/measurements" / f"{number}.parquet"
        table = pa.Table.from_pylist(batch, schema=TABLES["measurements"])
        coded = [] if has_plain_texts else ["uid", "name", "version"]
        pq.write_table(table, path, row_group_size=row_group, use_dictionary=coded)
        written.append(
            Part(path=path.relative_to(root).as_posix(), rows=len(batch), num_bytes=0, sha256="")
        )
    current = Snapshot(number=1, tables={"measurements": tuple(written)})
    wanted = order[:4]
    places = UidIndex(pl.Series(wanted))
    with patch.object(matrix_module, "SLICE_ROWS", 3):
        found = read_matrix(root, current, places, names=NAMES[:3], interval_names=NAMES[1:])
    rows = [row for batch in batches for row in batch]
    for at, uid in enumerate(wanted):
        for name in NAMES[:3]:
            assert listed(found.values[name])[at] == by_loop(rows, uid, name)[0]
        for name in NAMES[1:]:
            have = found.intervals[name]
            mine = np.flatnonzero(have.spans.row == at)
            spans = zip(
                have.spans.start[mine].tolist(),
                have.spans.end[mine].tolist(),
                listed(have.value[mine]),
                strict=True,
            )
            assert list(spans) == by_loop(rows, uid, name)[1]
            assert have.is_measured[at] == any((r["uid"], r["name"]) == (uid, name) for r in rows)


@given(
    st.lists(st.text("ab", max_size=3), unique=True, max_size=20),
    st.lists(st.text("ab", max_size=3)),
)
def test_places_are_the_same_as_a_dictionary(uids: list[str], asked: list[str]) -> None:
    place = {uid: index for index, uid in enumerate(uids)}
    found = UidIndex(pl.Series(uids, dtype=pl.String)).of(pl.Series(asked, dtype=pl.String))
    assert found.tolist() == [place.get(uid, -1) for uid in asked]


def test_places_when_first_hashes_are_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of five uids with the same first hash the second one tells."""

    def hashes(uids: pl.Series, seed: int) -> np.ndarray:
        return np.array([ord(uid) if seed else 7 for uid in uids], dtype=np.uint64) << np.uint64(40)

    monkeypatch.setattr(places_module, "_hashes", hashes)
    found = UidIndex(pl.Series(list("edcba"))).of(pl.Series(list("abcdez")))
    assert found.tolist() == [4, 3, 2, 1, 0, -1]


def test_places_of_many_uids_with_colliding_slots() -> None:
    uids = pl.Series([f"{k:07d}" for k in range(50_000)])
    places = UidIndex(uids.shuffle(seed=1))
    assert (uids.shuffle(seed=1).gather(places.of(uids)) == uids).all()
    assert (places.of(uids + "x") == -1).all()


def test_spans_of_segments_by_kind(tmp_path: Path) -> None:
    episodes = [Given(valid=[(0, 30), (60, 100)], subtasks=[(5, 9)]), Given(valid=[]), Given()]
    root = write_corpus(tmp_path / "c", episodes)
    places = UidIndex(pl.Series([uid_of(2), uid_of(0), uid_of(1)]))
    found = read_spans(root, snapshot.load(root), places, ["valid_run", "subtask", "retry"])
    runs = found["valid_run"]
    assert list(zip(runs.row, runs.start, runs.end, strict=True)) == [
        (1, 0, 30),
        (1, 60, 100),
        (0, 0, 100),
    ]
    assert (found["subtask"].row.tolist(), len(found["retry"])) == ([1], 0)
