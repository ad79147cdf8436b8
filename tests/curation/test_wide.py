"""Long measurements as columns: the newest version wins, unknown stays unknown, strangers stay out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ingest import snapshot
from ingest.curation.tier.wide import Wide, find, read_wide
from tests.curation.tier_corpus import Given, measurement, write_corpus
from tests.generators.corpus import commit, uid_of


def read(root: Path, uids: list[str], names: list[str], stretches: list[str]) -> Wide:
    current = snapshot.load(root)
    return read_wide(root, current, pa.array(uids), names=names, interval_names=stretches)


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


def test_one_episode_alone(tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "c", [Given(whole={"a": float(k)}) for k in range(5)])
    current = snapshot.load(root)
    only = pc.field("uid") == uid_of(3)
    found = read_wide(
        root, current, pa.array([uid_of(3)]), names=["a"], interval_names=[], only=only
    )
    assert listed(found.values["a"]) == [3.0]


def test_nothing_committed_yet(tmp_path: Path) -> None:
    found = read(tmp_path, [], ["a"], ["b"])
    assert len(found.values["a"]) == len(found.intervals["b"].spans) == 0


def test_places_of_uids() -> None:
    uids = pa.array(["a", "b", "c"])
    assert find(uids, [pa.array(["c", "x"]), pa.array(["a"])]).tolist() == [2, -1, 0]
    assert find(uids, [pa.array(["a", "b"]), pa.array(["c"])]).tolist() == [0, 1, 2]
    assert find(uids, []).tolist() == []
