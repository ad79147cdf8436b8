"""Copies as the catalog and the command tell of them: what is exact, what stays, what is taken back, what leaks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from ingest.catalog.catalog import Catalog
from ingest.corpus import snapshot
from ingest.curation.duplicates.find import exact_pairs
from ingest.curation.duplicates.signatures import KINDS, read_signatures
from ingest.curation.measurements.each.trajectory import POINTS
from jobs.cli import app
from schemas.errors import ConfigError
from tests.curation.dedup_cases import (
    arm,
    corpus,
    look,
    numbered,
    signed,
    splits,
    told,
)
from tests.generators.corpus import commit, uid_of

NUM = 8


def facts(root: Path, query: str) -> list[tuple[Any, ...]]:
    with Catalog.open(root) as catalog:
        return catalog.sql(query).rows()


# --- reading ------------------------------------------------------------------------------------------------------------


def test_signatures_are_those_of_the_present_version_once(tmp_path: Path) -> None:
    root = corpus(tmp_path, [1, 2, None])
    two = np.stack([arm(3), arm(4)], axis=1)  # stored point by point
    later = [
        *signed(0, {"pictures": look(9)}),  # a repetition: the first holds
        *signed(1, {"trajectory": arm(9)}, version=0),
        *signed(2, {"trajectory": two, "pictures": np.concatenate([look(5), look(6)])}),
        *signed(77, {"trajectory": arm(9)}),  # of no episode here
    ]
    commit(root, {"signatures": later}, "run-2")
    found = read_signatures(root, snapshot.load(root))
    assert found.uids.tolist() == sorted(uid_of(k) for k in range(3))
    place = [found.uids.tolist().index(uid_of(k)) for k in range(3)]
    assert found.is_measured[place].tolist() == [True, True, False]
    assert found.num_paths[place].tolist() == [1, 1, 2]
    assert found.num_looks[place].tolist() == [1, 1, 2]
    paths = [found.paths[found.first_path[p] :][: found.num_paths[p]] for p in place]
    np.testing.assert_allclose(paths[0][0], arm(1), atol=2e-3)
    np.testing.assert_allclose(paths[2], np.stack([arm(3), arm(4)]), atol=2e-3)
    motion = found.looks.motion[found.first_look[place[2]] + 1].astype(float)
    assert np.corrcoef(motion, look(6)[36:])[0, 1] > 0.999
    motion = found.looks.motion[found.first_look[place[0]]].astype(float)
    assert np.corrcoef(motion, look(1)[36:])[0, 1] > 0.999


def test_what_is_still_has_nothing_to_compare(tmp_path: Path) -> None:
    still = np.zeros((POINTS, 4))
    still[:, 0] = np.linspace(0, 0.049, POINTS)
    dull = look(1)
    dull[0] = 0.49
    root = corpus(tmp_path, [None])
    commit(root, {"signatures": signed(0, {"trajectory": still, "pictures": dull})}, "run-2")
    found = read_signatures(root, snapshot.load(root))
    assert found.num_paths.tolist() == found.num_looks.tolist() == [0]


# --- exact --------------------------------------------------------------------------------------------------------------


def exact(root: Path) -> set[frozenset[int]]:
    current = snapshot.load(root)
    found = read_signatures(root, current)
    index = {uid_of(k): k for k in range(NUM)}
    one, other = exact_pairs(root, current, found)
    return {
        frozenset((index[found.uids[a]], index[found.uids[b]]))
        for a, b in zip(one, other, strict=True)
    }


def test_equal_files_and_numbers_together_are_an_exact_copy(tmp_path: Path) -> None:
    root = corpus(tmp_path, [1, 2, 3, 4, None, None, None, None], artifacts=_video_of_pairs)
    assert exact(root) == {frozenset((0, 1)), frozenset((2, 3))}  # lively, equal videos and length
    # Black videos are equal too (4, 5); numbers that differ forbid (0, 1), equal ones with equal files say so (6, 7).
    digest = np.arange(33.0)
    rows = [*signed(0, {"rows": digest}), *signed(1, {"rows": digest + 1})]
    rows += [*signed(6, {"rows": digest + 2}), *signed(7, {"rows": digest + 2})]
    commit(root, {"signatures": rows}, "run-2")
    assert exact(root) == {frozenset((2, 3)), frozenset((6, 7))}


def _video_of_pairs(row: dict[str, Any]) -> None:
    pair = next(k for k in range(NUM) if uid_of(k) == row["uid"]) // 2
    row |= {"kind": "video", "sha256": f"{pair:064x}"}


def test_one_raw_file_is_no_copy_without_equal_numbers(tmp_path: Path) -> None:
    def one_file(row: dict[str, Any]) -> None:
        row |= {"raw_files": [{"path": "long.mp4", "num_bytes": 1, "digest": "d"}]}

    root = corpus(tmp_path, [1, 2, 3], episodes=one_file)
    assert exact(root) == set()
    digest = np.arange(33.0)
    commit(root, {"signatures": [r for k in (0, 2) for r in signed(k, {"rows": digest})]}, "run-2")
    assert exact(root) == {frozenset((0, 2))}


def test_equal_content_is_an_exact_copy(tmp_path: Path) -> None:
    def same(row: dict[str, Any]) -> None:
        row["content_sha256"] = "c" if row["uid"] in (uid_of(1), uid_of(2)) else row["uid"]

    root = corpus(tmp_path, [None, None, None], episodes=same)
    assert exact(root) == {frozenset((1, 2))}


# --- the table ----------------------------------------------------------------------------------------------------------


def test_the_best_copy_stays_and_a_second_run_says_nothing_new(tmp_path: Path) -> None:
    def licences(row: dict[str, Any]) -> None:
        row["cameras"] = row["cameras"] * (2 if row["uid"] == uid_of(3) else 1)

    root = corpus(tmp_path, [1, 2, 5, 1, 2, 1], episodes=licences)
    preview = told(str(root), "--dry-run")
    assert (preview["clusters"], preview["exact"], preview["near"]) == (2, 0, 3)
    assert not preview["committed"]
    assert facts(root, "FROM duplicates") == []
    done = told(str(root))
    assert done["committed"]
    assert done["duplicates"] == preview["duplicates"]
    assert sum(row["redundant"] for row in done["by_source"]) == 3
    rows = facts(root, "SELECT uid, kept_uid, kind, evidence, reason FROM duplicates")
    assert len(rows) == 5
    stays = {uid: kept for uid, kept, *_ in rows}
    assert [stays[uid_of(k)] for k in (0, 3, 5)] == [uid_of(3)] * 3  # most cameras
    said = {row[0]: row[2:] for row in rows}
    assert said[uid_of(3)] == ("kept", "", "the best of its copies")
    assert said[uid_of(0)] == ("near", "motion and pictures", "4 cameras over 2")
    left = facts(root, "SELECT uid FROM episodes WHERE uid NOT IN (SELECT uid FROM redundant)")
    assert len(left) == 3
    assert {uid_of(3), uid_of(2)} < {uid for (uid,) in left}
    again = told(str(root))
    assert not again["committed"]
    assert again["snapshot"] == done["snapshot"]


def test_the_tier_decides_before_the_cameras(tmp_path: Path) -> None:
    def tiers(row: dict[str, Any]) -> None:
        row["tier"] = "high" if row["uid"] == uid_of(1) else "low"

    root = corpus(tmp_path, [1, 1, 2], tiers=tiers)
    assert told(str(root))["duplicates"][0]["kept_uid"] == uid_of(1)


def test_what_is_no_copy_any_more_is_taken_back(tmp_path: Path) -> None:
    root = corpus(tmp_path, [1, 1, 2])
    told(str(root))
    assert len(facts(root, "FROM duplicates")) == 2
    # Measured again by what would be a later version: the old signatures hold no more.
    current = snapshot.load(root)
    tables = {n: p for n, p in current.tables.items() if n != "signatures"}
    other = {
        "signatures": [
            r for k in range(2) for r in signed(k, {"trajectory": arm(k), "pictures": look(k)})
        ]
    }
    (root / snapshot.FOLDER / f"{current.number:08d}.json").write_text(
        json.dumps(
            {
                "snapshot": current.number,
                "format_version": 1,
                "run_id": "run-2",
                "tables": {n: [_part(p) for p in parts] for n, parts in tables.items()},
            }
        )
    )
    commit(root, other, "run-3")
    assert told(str(root))["clusters"] == 0
    assert facts(root, "FROM duplicates") == facts(root, "FROM redundant") == []
    assert len(facts(root, "FROM duplicates_all")) == 4


def _part(part: snapshot.Part) -> dict[str, Any]:
    return {n: getattr(part, n) for n in ("path", "rows", "num_bytes", "sha256")}


def test_episodes_without_signatures_are_counted(tmp_path: Path) -> None:
    answer = told(str(corpus(tmp_path / "some", [1, None, 1])))
    assert (answer["episodes"], answer["measured"], answer["unmeasured"]) == (3, 2, 1)
    result = CliRunner().invoke(app, ["dedup", str(corpus(tmp_path / "none", [None]))])
    assert isinstance(result.exception, ConfigError)
    assert "eicorpus measure" in str(result.exception)


# --- leaks --------------------------------------------------------------------------------------------------------------


def test_a_leak_into_a_split_is_named_and_fails(tmp_path: Path) -> None:
    root = corpus(tmp_path, [1, 2, 1, 2, 3, 1], episodes=splits)
    answer = told(str(root), "--against", "val", code=1)
    assert (answer["reference"], answer["checked"], answer["leaks"]) == (1, 4, 2)
    assert {(p["uid"], p["of"]) for p in answer["pairs"]} == {
        (uid_of(0), uid_of(2)),
        (uid_of(5), uid_of(2)),
    }
    assert answer["pairs"][0]["evidence"] == "motion and pictures"
    assert snapshot.load(root).number == 1  # nothing is written
    assert told(str(root), "--against", "test", code=1)["leaks"] == 1


def test_without_leaks_all_is_well_unless_something_was_not_measured(tmp_path: Path) -> None:
    root = corpus(tmp_path / "all", [1, 1, 2, 3], episodes=splits)
    assert told(str(root), "--against", "val")["leaks"] == 0
    root = corpus(tmp_path / "some", [1, None, 2, 3], episodes=splits)
    assert told(str(root), "--against", "val", code=1)["leaks"] == 0


@pytest.mark.parametrize("name", ["train", "../escape", "nobody"])
def test_a_wrong_name_is_the_callers_mistake(tmp_path: Path, name: str) -> None:
    root = corpus(tmp_path, [1, 2])
    result = CliRunner().invoke(app, ["dedup", str(root), "--against", name])
    assert isinstance(result.exception, ConfigError)


# --- hostile values, and any order --------------------------------------------------------------------------------------


def _odd(kind: str) -> list[dict[str, Any]]:
    """Vectors that no measure writes, one per episode from 1 on; that of 0 is right."""
    right = {"trajectory": arm(1), "pictures": look(1), "rows": np.arange(33.0)}[kind].ravel()
    nan, far = right.copy(), right.copy()
    nan[7], far[7] = np.nan, -np.inf
    vectors = [right, nan, far, right[:-1], right[:0], np.append(right, 1.0)]
    rows = [r for k, v in enumerate(vectors) for r in signed(k, {kind: v})]
    rows += signed(6, {kind: np.tile(right, 65)})
    return [*rows, rows[0] | {"uid": uid_of(7), "vector": None}, rows[0] | {"uid": None}]


@pytest.mark.parametrize("kind", KINDS)
def test_a_vector_that_no_measure_writes_is_left_out_and_counted(tmp_path: Path, kind: str) -> None:
    root = corpus(tmp_path, [None] * 8)
    commit(
        root,
        {"signatures": _odd(kind), "measurements": [r for k in range(8) for r in numbered(k)]},
        "run-2",
    )
    answer = told(str(root))
    assert (answer["unusable"], answer["unmeasured"], answer["measured"]) == (7, 7, 1)
    assert answer["clusters"] == 0
    found = read_signatures(root, snapshot.load(root))
    assert found.is_unusable.sum() == 7
    assert len(found.paths) + len(found.looks.scene) + (found.digest != b"").sum() == 1


def test_the_order_of_rows_and_parts_changes_nothing(tmp_path: Path) -> None:
    seeds = [1, 2, 1, 3, 2, 1, 4, 3]
    rows = [
        [
            *signed(k, {"trajectory": arm(s, 0.01 * k), "pictures": look(s, 0.05 * k)}),
            *signed(k, {"rows": np.arange(33.0) + s}),
        ]
        for k, s in enumerate(seeds)
    ]
    said = []
    for name, order in (("a", range(8)), ("b", (5, 2, 7, 0, 4, 6, 1, 3))):
        root = corpus(tmp_path / name, [None] * 8)
        cut = 8 if name == "a" else 3
        commit(root, {"signatures": [r for k in list(order)[:cut] for r in rows[k]]}, "run-2")
        rest = [r for k in list(order)[cut:] for r in rows[k][::-1]]
        rest += [r for k in range(8) for r in numbered(k)]
        names = [r for r in rest if "vector" not in r]
        vectors = [r for r in rest if "vector" in r]
        commit(
            root, {"measurements": names} | ({"signatures": vectors} if vectors else {}), "run-3"
        )
        said.append(told(str(root))["duplicates"])
    assert len(said[0]) == 7
    assert said[0] == said[1]
