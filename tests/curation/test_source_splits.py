"""What a source holds out never trains here by default: at ingestion, in a manifest, and through copies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from ingest.catalog.catalog import Catalog
from ingest.curation.duplicates.leakage import held_out_together
from ingest.curation.manifests.split_by import SplitBy
from ingest.curation.manifests.splits import assign_splits
from jobs.cli import app
from jobs.demo.raw.oxe import dataset_info, write_set
from schemas.manifest import load
from schemas.split import DEFAULT_SHARES, Shares, split_of
from tests.adapters.oxe_cases import TINY, tiny
from tests.curation.dedup_cases import corpus, told
from tests.curation.manifest_cases import policy
from tests.curation.test_dealt import frame
from tests.curation.tier_corpus import Given, write_corpus
from tests.generators.corpus import uid_of

PUBLISHED = ("train", "val", "test", "", None)
TRAINING = Shares(val=0.0, test=0.0)  # every draw is train


def invoke(*words: str, code: int = 0) -> Any:
    result = CliRunner().invoke(app, [*words, "--json"])
    assert result.exit_code == code, (result.output, result.exception)
    return json.loads(result.stdout)["result"]


def build(root: Path, name: str, *words: str) -> dict[str, Any]:
    answer: dict[str, Any] = invoke(
        *("manifest", "build", str(root), name, "--no-stats"),
        *("--policy", policy(root.parent), *words),
    )
    return answer


def splits_in(root: Path, name: str) -> dict[str, str]:
    rows = load(root / "manifests" / name).rows
    return dict(zip(rows["uid"].to_pylist(), rows["split"].to_pylist(), strict=True))


# --- ingestion ----------------------------------------------------------------------------------------------------------


def test_a_val_shard_is_val_in_the_catalog(tmp_path: Path) -> None:
    """Two train and three val records through the command: none of the three trains, though a draw would let them."""
    directory = tmp_path / "raw" / "bridge_dataset" / "1.0.0"
    for name, count in (("train", 2), ("val", 3)):
        write_set(directory, TINY, [tiny()] * count, split=name)
    info = dataset_info("bridge_dataset", "1.0.0", {"train": [2], "val": [3]})
    (directory / "dataset_info.json").write_text(json.dumps(info))
    out = str(tmp_path / "corpus")
    invoke("ingest", "oxe", str(tmp_path / "raw"), "--out", out, "--workers", "0")
    sql = "SELECT source_split, split, split_group FROM episodes ORDER BY episode_id"
    with Catalog.open(out) as catalog:
        rows = catalog.sql(sql).rows()
    assert [row[0] for row in rows] == ["train"] * 2 + ["val"] * 3
    assert [row[1] for row in rows[2:]] == ["val"] * 3
    assert "train" in {split_of(row[2]) for row in rows[2:]}, "the draw alone would train on some"


# --- dealing ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", list(SplitBy))
def test_held_out_by_the_source_is_held_out_by_every_grouping(by: SplitBy) -> None:
    rows = [{"source_split": name, "split": None, "texts": ["a"]} for name in PUBLISHED]
    found = assign_splits(frame(rows), by, TRAINING).to_list()
    assert found == ["train", "val", "test", "train", "train"]
    ignored = assign_splits(frame(rows), by, TRAINING, keeps_source=False).to_list()
    assert ignored == ["train"] * 5


def test_a_sources_train_is_drawn_unless_the_source_decides() -> None:
    """Every LeRobot set calls all its episodes train: none of them would ever evaluate."""
    rows = [{"source_split": "train", "split_group": f"g{i}"} for i in range(200)]
    drawn = assign_splits(frame(rows), SplitBy.AUTO, DEFAULT_SHARES).to_list()
    assert drawn == [split_of(f"g{i}") for i in range(200)]
    assert set(drawn) == {"train", "val", "test"}
    assert set(assign_splits(frame(rows), SplitBy.SOURCE, DEFAULT_SHARES)) == {"train"}


# --- manifests ----------------------------------------------------------------------------------------------------------


def published(root: Path) -> Path:
    """Five episodes by what their source publishes; the stored split of each is what ingestion would have written."""
    rows = [
        {"source_split": name, "split": name if name in ("val", "test") else "train", "split_group": str(k)}
        for k, name in enumerate(PUBLISHED)
    ]  # fmt: skip
    return write_corpus(root, [Given(row=row) for row in rows])


@pytest.mark.slow
def test_a_manifest_keeps_them_counts_them_and_may_be_told_not_to(tmp_path: Path) -> None:
    root = published(tmp_path / "c")
    wanted = {uid_of(k): name for k, name in enumerate(("train", "val", "test", "train", "train"))}
    answer = build(root, "kept")
    assert splits_in(root, "kept") == wanted
    counts = {(c["source_split"], c["split"]): c["episodes"] for c in answer["source_splits"]}
    assert counts == {
        ("", "train"): 2,
        ("train", "train"): 1,
        ("val", "val"): 1,
        ("test", "test"): 1,
    }
    assert answer["split"]["keeps_source_splits"] is True
    shares = ("--val", "0", "--test", "0")
    build(root, "regrouped", *shares, "--split-by", "episode")
    assert splits_in(root, "regrouped") == wanted
    told_not_to = build(root, "ignored", *shares, "--ignore-source-splits")
    assert set(splits_in(root, "ignored").values()) == {"train"}
    assert told_not_to["split"]["keeps_source_splits"] is False
    shown = CliRunner().invoke(app, ["manifest", "show", str(root), "ignored"]).output
    assert "2 episodes of a source's val or test split are in train" in shown
    differ = invoke("manifest", "diff", str(root), "regrouped", "ignored")
    assert "source splits ignored" in differ["built_from"]["split"][1]


def test_the_source_cannot_decide_and_be_ignored(tmp_path: Path) -> None:
    root = published(tmp_path / "c")
    command = ["manifest", "build", str(root), "m", "--split-by", "source"]
    result = CliRunner().invoke(
        app, [*command, "--ignore-source-splits", "--policy", policy(tmp_path)]
    )
    assert "cannot be combined" in str(result.exception)


@pytest.mark.slow
def test_a_corpus_from_before_the_column_builds_the_same_manifest(tmp_path: Path) -> None:
    """The part is written again without the column, as version 4caf94b wrote it."""
    root = write_corpus(tmp_path / "c", [Given(row={"split": s}) for s in ("train", "val", "test")])
    new = build(root, "new")
    part = next((root / "catalog/episodes").glob("*.parquet"))
    pq.write_table(pq.read_table(part).drop_columns(["source_split"]), part)
    snapshot = next((root / "catalog/_snapshots").glob("*.json"))
    text = json.loads(snapshot.read_text())
    for entry in text["tables"]["episodes"]:
        entry["num_bytes"] = part.stat().st_size
    snapshot.write_text(json.dumps(text))
    with Catalog.open(root) as catalog:
        assert catalog.sql("SELECT DISTINCT source_split FROM episodes").to_series().to_list() == [
            None
        ]
    old = build(root, "old")
    assert old["rows_sha256"] == new["rows_sha256"]
    assert old["source_splits"] == []
    build(root, "dealt", "--split-by", "copies", "--val", "0.3")
    page = CliRunner().invoke(app, ["report", str(root), "--html", str(tmp_path / "r.html")])
    assert page.exit_code == 0, page.output


# --- copies -------------------------------------------------------------------------------------------------------------


def row_edit(splits: dict[int, str]) -> Any:
    def edit(row: dict[str, Any]) -> None:
        number = next(k for k in range(20) if uid_of(k) == row["uid"])
        row["source_split"] = splits.get(number, "")
        row["split"] = splits.get(number, "train")
        row["split_group"] = f"group:{number}"

    return edit


def test_the_copy_that_its_source_holds_out_is_the_one_that_stays(tmp_path: Path) -> None:
    """Episode 1 copies 0 and is published as test: leaving `redundant` out must not train on a benchmark's test."""
    root = corpus(tmp_path / "c", (1, 1, 2), episodes=row_edit({1: "test"}))
    told(str(root))
    with Catalog.open(root) as catalog:
        rows = catalog.sql(
            "SELECT uid, kept_uid, reason FROM duplicates WHERE kind <> 'kept'"
        ).rows()
    assert [(uid, kept) for uid, kept, _ in rows] == [(uid_of(0), uid_of(1))]
    assert "publishes it as test" in rows[0][2]


def test_copies_of_a_held_out_episode_are_held_out_with_it(tmp_path: Path) -> None:
    root = corpus(
        tmp_path / "c", (1, 1, 1, 2, 2, 3), episodes=row_edit({1: "val", 2: "test", 3: "train"})
    )
    told(str(root))
    rows = [
        {"uid": uid_of(k), "source_split": s}
        for k, s in enumerate(["", "val", "test", "train", None, None])
    ]
    with Catalog.open(root) as catalog:
        held = held_out_together(catalog, pl.DataFrame(rows)).to_list()
    assert held == ["test", "test", "test", "train", None, None]
    options = ("--split-by", "copies", "--val", "0", "--test", "0", "--no-stats")
    answer = invoke("manifest", "build", str(root), "m", *options)
    assert answer["shared_recordings"]["episodes"] == 0
    found = splits_in(root, "m")
    assert [found[uid_of(k)] for k in range(6)] == ["test"] * 3 + ["train"] * 3
