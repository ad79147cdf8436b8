"""Copies and manifests: what is left out by WHERE, what training shares with evaluation, and splits that keep copies together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from ingest.catalog.catalog import Catalog
from ingest.curation.duplicates.leakage import LeakageReport, leakage_report, merge_split_groups
from jobs.cli import app
from schemas.errors import ConfigError
from tests.curation.dedup_cases import corpus, splits, told
from tests.generators.corpus import uid_of

SEEDS = (1, 2, 1, 2, 3, 1)  # `splits`: 2 validates, 3 tests, the others train


def built(root: Path, name: str, *words: str) -> dict[str, Any]:
    command = ["manifest", "build", str(root), name, "--no-stats", "--json", *words]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, (result.output, result.exception)
    answer: dict[str, Any] = json.loads(result.stdout)["result"]
    return answer


def said(root: Path, **split: str) -> LeakageReport:
    """Of a manifest of the episodes named e0, e1, …"""
    uids = [uid_of(int(name[1:])) for name in split]
    rows = pa.table({"uid": [*uids, *uids], "split": list(split.values()) * 2})
    with Catalog.open(root) as catalog:
        return leakage_report(catalog, rows)


def test_before_dedup_nobody_knows(tmp_path: Path) -> None:
    found = said(corpus(tmp_path, SEEDS), e0="train", e2="val")
    assert (found.has_run, found.episodes) == (False, 0)
    assert not found.is_clean
    assert "eicorpus measure 'c d', then eicorpus dedup 'c d'" in found.note(Path("c d"))


def test_who_shares_a_recording_with_evaluation_is_counted(tmp_path: Path) -> None:
    root = corpus(tmp_path, SEEDS)
    told(str(root))
    found = said(root, e0="train", e1="train", e2="val", e3="test", e4="train", e5="train")
    assert found == LeakageReport(episodes=3, evaluated=2, has_run=True, unseen=0)
    assert "3 train episodes are duplicates of 2 in val or test" in found.note(Path("c d"))
    assert "NOT IN (SELECT uid FROM redundant)" in found.note(Path("c d"))
    clean = said(root, e0="train", e1="val", e2="train", e4="test", e5="train")
    assert clean.is_clean
    assert "shares no recording" in clean.note(Path("c d"))
    assert said(root, e2="val", e3="test", e0="val").is_clean  # nothing trains


def test_episodes_that_dedup_has_not_compared_are_told(tmp_path: Path) -> None:
    root = corpus(tmp_path, [1, 2, None])
    assert told(str(root))["committed"]  # that it looked, though there are no copies
    assert not told(str(root))["committed"]
    found = said(root, e0="train", e1="val", e2="train")
    assert (found.has_run, found.episodes, found.unseen) == (True, 0, 1)
    assert "1 episodes were added after the last `eicorpus dedup`" in found.note(Path("c d"))


def test_a_manifest_leaves_redundant_copies_out(tmp_path: Path) -> None:
    root = corpus(tmp_path, SEEDS, episodes=splits)
    told(str(root))
    assert built(root, "all")["num_episodes"] == 6
    assert built(root, "once", "--where", "uid NOT IN (SELECT uid FROM redundant)")[
        "num_episodes"
    ] == len(set(SEEDS))


@pytest.mark.slow
def test_a_manifests_own_evaluation_is_checked_against_its_training(tmp_path: Path) -> None:
    root = corpus(tmp_path, SEEDS, episodes=splits)
    told(str(root))
    built(root, "all")
    answer = told(str(root), "--against", "all:val", code=1)
    assert (answer["reference"], answer["checked"], answer["leaks"]) == (1, 4, 2)
    assert {(p["uid"], p["of"]) for p in answer["pairs"]} == {
        (uid_of(0), uid_of(2)),
        (uid_of(5), uid_of(2)),
    }
    built(root, "once", "--where", "uid NOT IN (SELECT uid FROM redundant)")
    left = {row["split"] for row in _rows(root, "once")}
    for split in left & {"val", "test"}:
        assert told(str(root), "--against", f"once:{split}")["leaks"] == 0
    # What is outside of a manifest, against all that is in it.
    built(root, "held", "--where", "split <> 'train'")
    answer = told(str(root), "--against", "held", code=1)
    assert (answer["reference"], answer["checked"], answer["leaks"]) == (2, 4, 3)


def _rows(root: Path, name: str) -> list[dict[str, Any]]:
    return pl.read_parquet(root / "manifests" / name / "manifest.parquet").to_dicts()


def test_nothing_to_compare_with_is_no_clean_answer(tmp_path: Path) -> None:
    root = corpus(tmp_path, [1, 1])
    split = {row[0] for row in _splits(root)}
    absent = next(name for name in ("val", "test") if name not in split)
    result = CliRunner().invoke(app, ["dedup", str(root), "--against", absent])
    assert isinstance(result.exception, ConfigError)
    assert "nothing to compare" in str(result.exception)


def _splits(root: Path) -> list[tuple[Any, ...]]:
    with Catalog.open(root) as catalog:
        return catalog.sql("SELECT split FROM episodes").rows()


@pytest.mark.parametrize("reverse", [False, True])
def test_groups_that_share_a_recording_become_one(tmp_path: Path, *, reverse: bool) -> None:
    # 0, 2, 5 are one recording, 1 and 3 another; groups c-b by 0~2, b-a by 1~3; 4 and 5 are in a group without others.
    root = corpus(tmp_path, SEEDS)
    told(str(root))
    group = {0: "c", 1: "b", 2: "b", 3: "a", 4: "lone", 5: "c"}
    rows = [{"uid": uid_of(k), "group": name} for k, name in group.items()]
    rows.append({"uid": "elsewhere", "group": "lone"})
    episodes = pl.DataFrame(rows[::-1] if reverse else rows)
    with Catalog.open(root) as catalog:
        found = dict(zip(episodes["uid"], merge_split_groups(catalog, episodes), strict=True))
    assert [found[uid_of(k)] for k in range(6)] == ["a", "a", "a", "a", "lone", "a"]
    assert found["elsewhere"] == "lone"


@pytest.mark.slow
def test_build_tells_of_copies_on_both_sides_and_can_keep_them_together(tmp_path: Path) -> None:
    def alone(row: dict[str, Any]) -> None:
        splits(row)
        row["split_group"] = f"group:{row['uid']}"

    root = corpus(tmp_path, SEEDS, episodes=alone)
    unknown = {"episodes": 0, "evaluated": 0, "has_run": False, "unseen": 6}
    assert built(root, "before", "--dry-run")["shared_recordings"] == unknown
    told(str(root))
    shared = {"episodes": 3, "evaluated": 2, "has_run": True, "unseen": 0}
    assert built(root, "all")["shared_recordings"] == shared
    shares = ("--val", "0.3", "--test", "0.3")
    answer = built(root, "joined", "--split-by", "copies", *shares)
    assert answer["shared_recordings"]["episodes"] == 0
    of = {row["uid"]: row["split"] for row in _rows(root, "joined")}
    assert len({of[uid_of(k)] for k in (0, 2, 5)}) == len({of[uid_of(k)] for k in (1, 3)}) == 1
