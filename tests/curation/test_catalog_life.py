"""History, compaction and collection: fewer files, the same rows, and nothing gone that somebody needs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from ingest.corpus import publishing, snapshot
from ingest.corpus.commit import datasets_of
from ingest.corpus.layout import CorpusLayout
from ingest.corpus.snapshot import Snapshot
from ingest.corpus.snapshot_list import (
    list_snapshots,
    load_all,
    manifests_by_snapshot,
    named_parts,
    snapshot_path,
)
from ingest.corpus.writer import recover
from ingest.curation.measurements.registry import select_measures
from ingest.curation.measurements.runner import measure_corpus, missing
from ingest.executors.inline import InlineExecutor
from ingest.executors.node_proof import PREFIX
from ingest.maintenance import compact as compaction
from ingest.maintenance.compact import compact, plan_merges
from ingest.maintenance.gc import Garbage, collect_garbage, plan_gc
from ingest.maintenance.snapshot_diff import snapshot_diff
from ingest.storage.local import LocalStorage
from ingest.verify.corpus import verify
from jobs.cli import app
from schemas.catalog import TABLES
from schemas.errors import ConfigError
from tests.curation.lifecycle_corpus import annotate, build, publish_manifest, uids
from tests.faults.runs import facts, run, tree
from tests.faults.toy import write_toy
from tests.generators import corpus as synthetic
from tests.ingest.verify_corpus import TOY_EPISODES

DAY_S = 86_400.0


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Snapshots: 1 to 4 toy episodes, 5 annotated, 6 measured, 7 to 9 one more episode, 10 annotated again."""
    root = tmp_path_factory.mktemp("life")
    corpus = build(root)
    measured(corpus)
    run(write_toy(root / "raw", {**TOY_EPISODES, "g": "good"}), corpus, run_id="more")
    annotate(corpus, uids(corpus), "curation-2")
    return corpus


def measured(corpus: Path) -> None:
    current = snapshot.load(corpus)
    todo = missing(CorpusLayout(corpus), current, select_measures(["motion"]))
    measure_corpus(
        CorpusLayout(corpus),
        current,
        todo,
        InlineExecutor(),
        run_id="measured",
        disk=LocalStorage(),
    )


def merge(corpus: Path) -> Snapshot:
    current = snapshot.load(corpus)
    return compact(
        CorpusLayout(corpus), LocalStorage(), current, plan_merges(corpus, current), "compaction"
    )


# --- compaction -------------------------------------------------------------------------------------------------------------


def test_compaction_changes_no_row_and_the_corpus_verifies(corpus: Path) -> None:
    before = snapshot.load(corpus)
    files = tree(corpus / "datasets")
    rows = {table: before.read(corpus, table).to_pylist() for table in TABLES}
    after = merge(corpus)
    assert after.number == before.number + 1
    assert tree(corpus / "datasets") == files
    for table in TABLES:
        found = after.read(corpus, table).to_pylist()
        assert sorted(map(repr, found)) == sorted(map(repr, rows[table])), table
    assert after.read(corpus, "episodes").to_pylist() == rows["episodes"]  # even in their order
    assert verify(corpus) == []
    found = snapshot_diff(corpus, before, after)
    assert all(t.added == t.removed == 0 for t in found.tables)


def test_parts_that_share_an_episode_stay_apart_in_their_order(corpus: Path) -> None:
    """By hand: measurements are of three ingest batches, a curation, a measuring, the later batch, and a last curation.

    Merged: all ingest batches; then the curations and the measuring, each of which mentions the same four episodes.
    """
    before = snapshot.load(corpus)
    assert len(before.parts("measurements")) == 7
    after = merge(corpus)
    assert len(after.parts("measurements")) == 4
    assert len(after.parts("episodes")) == len(after.parts("runs")) == 1
    first = snapshot.Snapshot(tables={"measurements": after.parts("measurements")[:1]})
    names = set(first.read(corpus, "measurements")["name"].to_pylist())
    assert "idle_share" not in names
    assert len(set(first.read(corpus, "measurements")["uid"].to_pylist())) == 5


def test_merging_what_shares_an_episode_would_show(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That the order of parts is more than taste: without it every content digest is off."""
    monkeypatch.setattr(
        compaction, "_levels", lambda corpus, current, table: [0] * len(current.parts(table))
    )
    merge(corpus)
    assert {found.check.value for found in verify(corpus)} == {"content_changed"}


def test_a_second_compaction_has_nothing_to_do(corpus: Path) -> None:
    merge(corpus)
    assert plan_merges(corpus, snapshot.load(corpus)) == []
    assert merge(corpus) == snapshot.load(corpus)


def test_large_parts_are_left_alone(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = sorted(part.num_bytes for part in snapshot.load(corpus).parts("episodes"))
    monkeypatch.setattr(compaction, "SMALL_BYTES", sizes[0])
    assert "episodes" not in {merge.table for merge in plan_merges(corpus, snapshot.load(corpus))}


def test_the_target_bounds_a_merged_part(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = snapshot.load(corpus).parts("episodes")
    monkeypatch.setattr(compaction, "TARGET_BYTES", parts[0].num_bytes + parts[1].num_bytes)
    [found] = [m for m in plan_merges(corpus, snapshot.load(corpus)) if m.table == "episodes"]
    assert [len(group) for group in found.groups][:1] == [2]


def test_parts_with_other_columns_are_not_merged(tmp_path: Path) -> None:
    """A column that came later is absent in an old part, and absent is not NULL to a content digest."""
    corpus = synthetic.write_catalog(tmp_path / "c", num_episodes=4).root
    disk = LocalStorage()
    more = synthetic.rows_of(4, 0, first=4)
    narrow = pa.Table.from_pylist(more["episodes"], schema=TABLES["episodes"]).drop_columns(
        ["split"]
    )
    part = snapshot.write_tables(disk, corpus, "episodes", [narrow], schema=narrow.schema)
    publishing.publish(disk, corpus, snapshot.load(corpus), {"episodes": part}, "old")
    for first in (8, 12):
        synthetic.commit(corpus, {"episodes": synthetic.rows_of(4, 0, first=first)["episodes"]})
    after = merge(corpus)
    assert [part.rows for part in after.parts("episodes")] == [4, 4, 8]


def test_ingest_after_compaction_keeps_what_old_snapshots_name(
    corpus: Path, tmp_path: Path
) -> None:
    old = snapshot.load(corpus)
    merge(corpus)
    raw = write_toy(tmp_path / "raw", {**TOY_EPISODES, "g": "good", "h": "good"})
    run(raw, corpus, run_id="later", has_moved=True)
    assert old.read(corpus, "episodes").num_rows == 5
    assert verify(corpus) == []


# --- history ----------------------------------------------------------------------------------------------------------------


def test_diff_counts_what_came(corpus: Path) -> None:
    found = snapshot_diff(corpus, snapshot.load(corpus, 6), snapshot.load(corpus))
    by_table = {t.table: (t.added, t.removed) for t in found.tables}
    assert by_table["episodes"] == (1, 0)
    assert by_table["tiers"] == (5, 0)
    assert by_table["policies"] == (0, 0)
    assert [episode for _, _, episode in found.added] == ["g"]
    back = snapshot_diff(corpus, snapshot.load(corpus), snapshot.load(corpus, 6))
    assert (back.added, [episode for _, _, episode in back.removed]) == ((), ["g"])
    everything = snapshot_diff(corpus, Snapshot(), snapshot.load(corpus))
    assert len(everything.added) == 5


def test_list_says_which_manifest_needs_what(corpus: Path) -> None:
    publish_manifest(corpus)
    answer = json.loads(
        CliRunner().invoke(app, ["snapshot", "list", str(corpus), "--json"]).stdout
    )["result"]
    latest = answer["snapshots"][-1]
    assert (latest["number"], latest["episodes"], latest["manifests"]) == (10, 5, ["m"])
    assert [entry["manifests"] for entry in answer["snapshots"][:-1]] == [[]] * 9
    words = ["snapshot", "diff", str(corpus), "1", "10"]
    assert "episodes added" in CliRunner().invoke(app, words).stdout


# --- collection -------------------------------------------------------------------------------------------------------------


def aged(corpus: Path, days: float) -> float:
    """Now, so that every snapshot is `days` old."""
    return max(entry.published_s for entry in list_snapshots(corpus)) + days * DAY_S


def sweep(corpus: Path, *, keep: int, days: float = 0.0, age: float = 1.0) -> Garbage:
    root, disk = CorpusLayout(corpus), LocalStorage()
    current = snapshot.load(corpus)
    recover(root, disk, current, datasets_of(corpus, current))
    found = plan_gc(root, keep=keep, older_than_s=days * DAY_S, now_s=aged(corpus, age))
    collect_garbage(root, disk, found)
    return found


def test_gc_keeps_the_newest_the_young_and_what_a_manifest_names(corpus: Path) -> None:
    publish_manifest(corpus)  # of snapshot 10
    merge(corpus)
    assert sweep(corpus, keep=1, days=2.0, age=1.0).to_remove == []
    found = sweep(corpus, keep=3, days=0.5, age=1.0)
    assert found.to_remove == [1, 2, 3, 4, 5, 6, 7, 8]
    found = sweep(corpus, keep=1)
    assert (found.to_remove, snapshot.numbers(corpus)) == ([9], [10, 11])
    assert snapshot.load(corpus, 10).read(corpus, "episodes").num_rows == 5
    assert verify(corpus) == []


def test_gc_removes_every_part_that_nobody_names(corpus: Path) -> None:
    latest = merge(corpus)
    found = sweep(corpus, keep=1)
    there = {p.relative_to(corpus).as_posix() for p in (corpus / "catalog").glob("*/*.parquet")}
    assert there == named_parts([latest])
    assert len(found.parts) > 20
    assert verify(corpus) == []
    assert facts(corpus, "episodes")


def test_gc_refuses_when_it_cannot_know_what_a_manifest_needs(corpus: Path) -> None:
    folder = publish_manifest(corpus)
    (folder / "manifest.json").write_text("{")
    before = tree(corpus)
    with pytest.raises(ConfigError, match="damaged"):
        plan_gc(CorpusLayout(corpus), keep=1, older_than_s=0, now_s=aged(corpus, 1.0))
    assert tree(corpus) == before


def test_gc_sweeps_staging_that_nobody_came_back_for(corpus: Path) -> None:
    old, young = (corpus / "staging" / f"{name}.digest" for name in ("old", "young"))
    for folder, days in ((old, 30), (young, 1)):
        folder.mkdir(parents=True)
        (folder / "staged.arrow").write_bytes(b"x")
        for path in (folder / "staged.arrow", folder):
            at_s = aged(corpus, 0.0) - days * DAY_S
            os.utime(path, (at_s, at_s))
    found = sweep(corpus, keep=10, days=7.0, age=0.0)
    assert found.staging == ("staging/old.digest",)
    assert young.exists()
    assert not old.exists()


def test_gc_leaves_the_folder_of_a_run_on_ray(corpus: Path) -> None:
    """`manifest build --ray` takes no writer lock; what a killed run left is swept by the next one."""
    folder = corpus / "staging" / f"{PREFIX}run"
    folder.mkdir(parents=True)
    assert sweep(corpus, keep=10, days=7.0, age=30.0).staging == ()
    assert folder.exists()


def test_what_if_touches_nothing(corpus: Path) -> None:
    before = tree(corpus)
    for words in (["gc", "--keep", "1", "--older-than", "0"], ["compact"]):
        result = CliRunner().invoke(app, [words[0], str(corpus), "--dry-run", "--json", *words[1:]])
        assert result.exit_code == 0
        assert json.loads(result.stdout)["result"]
    assert tree(corpus) == before


def test_the_commands_do_what_they_say(corpus: Path) -> None:
    answer = json.loads(CliRunner().invoke(app, ["compact", str(corpus), "--json"]).stdout)[
        "result"
    ]
    assert (answer["snapshot"], answer["committed"]) == (11, True)
    words = ["gc", str(corpus), "--keep", "2", "--older-than", "0", "--json"]
    answer = json.loads(CliRunner().invoke(app, words).stdout)["result"]
    assert answer["snapshots"] == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert answer["kept"] == {"10": "among the newest", "11": "among the newest"}


def test_a_damaged_old_snapshot_stops_gc_and_not_ingest(corpus: Path, tmp_path: Path) -> None:
    snapshot_path(corpus, 3).write_text("{")
    with pytest.raises(ConfigError):
        load_all(corpus)
    assert manifests_by_snapshot(corpus) == {}
    raw = write_toy(tmp_path / "raw", TOY_EPISODES)
    assert run(raw, corpus, run_id="later", has_moved=True).committed == 4
