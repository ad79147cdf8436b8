"""Manifests of a small real corpus: statistics against a slow oracle, publishing once, verifying, comparing, the commands."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner

from ingest.corpus import snapshot
from ingest.curation.manifests import action_stats
from ingest.curation.manifests.action_stats import num_missing, selection, statistics
from ingest.curation.manifests.action_stats_partial import cache_folder
from ingest.curation.manifests.running_stats import QUANTILE_ERROR, SCALE
from ingest.executors.inline import InlineExecutor
from ingest.executors.local import LocalExecutor
from ingest.recipe import Limits
from ingest.storage.local import LocalStorage
from jobs.cli import app
from schemas.errors import ConfigError, SourceError
from schemas.manifest import Manifest, Normalisation, load
from tests.curation.manifest_cases import ask, build, invoke, policy
from tests.faults.runs import run, tree
from tests.faults.toy import write_toy
from tests.ingest.verify_corpus import build_toy, data_file, rewrite_column, video_file

BODY = "umi"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four toy episodes of 9 to 12 timesteps, tiers, and one manifest with everything in train."""
    root = tmp_path_factory.mktemp("life")
    corpus = build_toy(root / "toy", root / "corpus", run_id="first")
    assert invoke("tier", str(corpus), "--policy", policy(root)).exit_code == 0
    assert build(corpus, "whole").exit_code == 0
    return corpus


def manifest(corpus: Path, name: str = "whole") -> Manifest:
    return load(corpus / "manifests" / name)


def found_statistics(made: Path) -> Normalisation:
    statistics = manifest(made).facts.statistics
    assert statistics is not None
    return statistics.embodiments[BODY]


# --- statistics ------------------------------------------------------------------------------------------------------------


def oracle(corpus: Path) -> dict[str, list[float]]:
    """Every valid sample of every element, one timestep at a time: achieved actions, so state to state."""
    samples: dict[str, list[float]] = {}
    for row in manifest(corpus).rows.to_pylist():
        table = pq.read_table(
            corpus
            / row["dataset_path"]
            / f"data/chunk-000/episode_{row['episode_index']:06d}.parquet"
        )
        action, valid = table["action"].to_pylist(), table["action.valid"].to_pylist()
        state = table["observation.state"].to_pylist()
        for k in range(row["start"], row["end"]):
            before = state[k] if k == row["start"] else action[k - 1]
            if not all(valid[k]):
                continue
            R, S = (rotation(v[3:9]) for v in (before, action[k]))
            step = R.T @ (np.array(action[k][:3]) - np.array(before[:3]))
            turn = Rotation.from_matrix(R.T @ S).as_rotvec()
            for axis, moved, turned in zip("xyz", step, turn, strict=True):
                samples.setdefault(f"left.delta_position_m.{axis}", []).append(moved)
                samples.setdefault(f"left.delta_rotvec_rad.{axis}", []).append(turned)
            samples.setdefault("left.gripper_opening", []).append(action[k][9])
    return samples


def rotation(columns: list[float]) -> np.ndarray[Any, Any]:
    x, y = np.array(columns[:3]), np.array(columns[3:])
    return np.column_stack([x, y, np.cross(x, y)])


def test_statistics_are_those_of_a_slow_oracle(made: Path) -> None:
    found, samples = found_statistics(made), oracle(made)
    assert set(found.names) == set(samples)
    assert found.segments == 4
    for name, count, mean, std, q01, q99, low, high in zip(
        found.names,
        found.count,
        found.mean,
        found.std,
        found.q01,
        found.q99,
        found.min,
        found.max,
        strict=True,
    ):
        given = sorted(samples[name])
        exact = math.fsum(given) / len(given)
        variance = math.fsum((x - exact) ** 2 for x in given) / len(given)
        assert count == len(given)
        assert mean == pytest.approx(exact, abs=1e-9)
        assert std == pytest.approx(math.sqrt(variance), abs=1e-7)
        assert (low, high) == (
            pytest.approx(given[0], abs=1e-7),
            pytest.approx(given[-1], abs=1e-7),
        )
        for value, share in ((q01, 0.01), (q99, 0.99)):
            assert value is not None
            wanted = given[max(math.ceil(share * len(given)), 1) - 1]
            assert abs(value - wanted) <= QUANTILE_ERROR * math.hypot(wanted, SCALE) + 1e-7
    # by hand: an achieved action has no last one, so 9 + 10 + 11 + 12 timesteps less 4 at most
    lengths = [row["end"] - row["start"] for row in manifest(made).rows.to_pylist()]
    assert found.count[0] == sum(lengths) - 4


def test_a_second_time_reads_no_data_and_a_part_only_what_is_new(corpus: Path) -> None:
    rows, current = manifest(corpus).rows, snapshot.load(corpus)
    whole = selection(corpus, current, rows)
    assert num_missing(whole) == 0
    before = statistics(whole, InlineExecutor(), LocalStorage())
    for path in (cache_folder(corpus) / "merged").iterdir():
        path.unlink()
    assert num_missing(whole) == 0  # the parts are still there
    assert statistics(whole, InlineExecutor(), LocalStorage()) == before
    moved = rows.set_column(1, "start", pa.array([1, 0, 0, 0], pa.int64()))
    assert num_missing(selection(corpus, current, moved)) == 1


@pytest.mark.slow
def test_the_order_and_the_place_of_work_do_not_show(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One episode at a time, made in two goes and by processes: the same bits as all at once."""
    rows, current = manifest(corpus).rows, snapshot.load(corpus)
    whole = selection(corpus, current, rows)
    before = statistics(whole, InlineExecutor(), LocalStorage())
    monkeypatch.setattr(action_stats, "WORK_EPISODES", 1)
    shutil.rmtree(cache_folder(corpus))
    statistics(selection(corpus, current, rows.slice(2, 1)), InlineExecutor(), LocalStorage())
    on = LocalExecutor(2, Limits(time_limit_s=60, memory_limit_mib=2048))
    assert statistics(whole, on, LocalStorage()) == before


def test_a_damaged_cache_is_made_again(corpus: Path) -> None:
    whole = selection(corpus, snapshot.load(corpus), manifest(corpus).rows)
    before = statistics(whole, InlineExecutor(), LocalStorage())
    for path in cache_folder(corpus).rglob("*"):
        if path.is_file():
            path.write_bytes(b"PAR1 nonsense")
    assert statistics(whole, InlineExecutor(), LocalStorage()) == before


def test_data_that_changed_has_no_statistics(corpus: Path) -> None:
    shutil.rmtree(cache_folder(corpus))
    rewrite_column(data_file(corpus), "action", lambda values: values + 1)
    whole = selection(corpus, snapshot.load(corpus), manifest(corpus).rows)
    with pytest.raises(SourceError, match=r"1 episodes have no statistics.*\n.*episode_000001"):
        statistics(whole, InlineExecutor(), LocalStorage())
    assert num_missing(whole) == 1  # the others are kept


def test_a_segment_is_its_timesteps_and_no_others(corpus: Path) -> None:
    """Timesteps [2, 6) of one episode, all with an action: four of each element."""
    row = manifest(corpus).rows.slice(0, 1)
    for name, value in (("start", 2), ("end", 6)):
        place = row.column_names.index(name)
        row = row.set_column(place, name, pa.array([value], pa.int64()))
    chosen = selection(corpus, snapshot.load(corpus), row)
    found = statistics(chosen, InlineExecutor(), LocalStorage()).embodiments[BODY]
    assert set(found.count) == {4}


def test_only_train_segments_that_supervise_actions_count(corpus: Path) -> None:
    rows, current = manifest(corpus).rows, snapshot.load(corpus)
    split = pa.array(["val", "train", "train", "train"])
    rows = rows.set_column(rows.column_names.index("split"), "split", split)
    tasks = pa.array(
        [["policy"], ["visual_forecasting"], ["inverse_dynamics"], []], pa.list_(pa.string())
    )
    rows = rows.set_column(rows.column_names.index("tasks"), "tasks", tasks)
    assert selection(corpus, current, rows).frame["uid"].to_list() == [rows["uid"][2].as_py()]


# --- publishing ------------------------------------------------------------------------------------------------------------


def test_a_manifest_is_written_once(corpus: Path) -> None:
    before = tree(corpus / "manifests/whole")
    again = build(corpus, "whole")
    assert again.exit_code == 0
    assert "unchanged: " in again.stdout
    other = build(corpus, "whole", "--where", "length > 10")
    assert "differs in where" in str(other.exception)
    assert tree(corpus / "manifests/whole") == before
    for name in ("../x", "", "_cache", "A", "a/b", ".", "x" * 65):
        assert "manifest name" in str(build(corpus, name).exception), name


def test_of_two_who_publish_one_is_told(tmp_path: Path) -> None:
    disk, folder = LocalStorage(), tmp_path / "m"
    assert disk.put_dir_if_absent(folder, {"a": b"first", "b": b""})
    assert not disk.put_dir_if_absent(folder, {"a": b"second"})
    assert [path.name for path in sorted(tmp_path.rglob("*"))] == ["m", "a", "b"]
    assert (folder / "a").read_bytes() == b"first"


def test_dry_run_touches_nothing(corpus: Path) -> None:
    before = tree(corpus)
    shown = build(corpus, "dry", "--dry-run", "--where", "length > 10")
    assert shown.exit_code == 0
    assert "epochs" in shown.stdout
    assert tree(corpus) == before


def test_rows_that_were_touched_are_refused(corpus: Path) -> None:
    path = corpus / "manifests/whole/manifest.parquet"
    rows = pq.read_table(path)
    weight = pa.array([0.7, 0.1, 0.1, 0.1])
    pq.write_table(rows.set_column(rows.column_names.index("weight"), "weight", weight), path)
    assert "published with" in str(invoke("manifest", "show", str(corpus), "whole").exception)
    flaws = ask(corpus, "verify", "whole")["flaws"]
    assert [flaw["fault"] for flaw in flaws] == ["rows_changed"]


def test_a_row_as_a_trainer_sees_it(made: Path) -> None:
    found = manifest(made)
    row = found.row(0)
    assert (row.split, row.embodiment, row.caption_id) == ("train", BODY, None)
    assert (found.corpus / row.dataset_path).is_dir()
    assert row.text.startswith("do ")
    assert len(found.of_split("val")) == 0
    assert len(found.of_split("train")) == len(found) == 4
    assert found.facts.statistics is not None
    assert found.facts.statistics.embodiments[BODY].array("q99").shape == (7,)


def test_all_names_are_listed(corpus: Path) -> None:
    assert build(corpus, "b", "--no-stats").exit_code == 0
    shown = invoke("list", "manifests", str(corpus), "--json")
    assert [m["name"] for m in json.loads(shown.stdout)["result"]["manifests"]] == ["b", "whole"]
    assert ask(corpus, "show", "b")["statistics"] is None


# --- verify ----------------------------------------------------------------------------------------------------------------


def faults(corpus: Path, *words: str) -> list[tuple[str, str]]:
    return [
        (flaw["fault"], flaw["what"]) for flaw in ask(corpus, "verify", "whole", *words)["flaws"]
    ]


def test_an_untouched_corpus_verifies(made: Path) -> None:
    found = ask(made, "verify", "whole")
    assert (found["ok"], found["files"], found["notes"]) == (True, 8, [])


def test_each_changed_file_is_named(corpus: Path) -> None:
    rewrite_column(data_file(corpus, 0), "action", lambda values: values + 1)
    data = bytearray(video_file(corpus, 1).read_bytes())
    data[-1] ^= 1
    video_file(corpus, 1).write_bytes(data)
    video_file(corpus, 2).unlink()
    named = {(fault, Path(what).name, "data/" in what) for fault, what in faults(corpus)}
    assert named == {
        ("file_changed", "episode_000000.parquet", True),
        ("file_changed", "episode_000001.mp4", False),
        ("file_missing", "episode_000002.mp4", False),
    }
    quick = {Path(what).name for _, what in faults(corpus, "--quick")}
    assert "episode_000001.mp4" not in quick  # the same size
    assert "episode_000002.mp4" in quick


def test_what_became_of_episodes_is_told(corpus: Path) -> None:
    uid = manifest(corpus).row(0).uid
    assert invoke("forget", str(corpus), uid).exit_code == 0
    assert faults(corpus) == [("forgotten", uid)]


def test_another_corpus_and_a_lost_snapshot(corpus: Path) -> None:
    marker = corpus / "corpus.json"
    marker.write_text(marker.read_text().replace('"corpus"', '"other"'))
    number = manifest(corpus).facts.snapshot
    (corpus / snapshot.FOLDER / f"{number:08d}.json").unlink()
    found = {fault for fault, _ in faults(corpus)}
    assert found == {"other_corpus", "snapshot_gone"}


def test_a_grown_corpus_is_a_note(corpus: Path, tmp_path: Path) -> None:
    run(write_toy(tmp_path / "more", {"z": "good"}), corpus, run_id="more")
    found = ask(corpus, "verify", "whole")
    assert found["ok"]
    assert "later episodes are not included" in found["notes"][0]


# --- diff ------------------------------------------------------------------------------------------------------------------


def summary(corpus: Path, a: str, b: str) -> dict[tuple[str, str], int]:
    found = ask(corpus, "diff", a, b)
    return {(row["change"], row["why"]): row["segments"] for row in found["summary"]}


@pytest.mark.slow
def test_the_difference_says_why(corpus: Path, tmp_path: Path) -> None:
    """The toy's episodes have 9, 10, 10 and 12 timesteps of 0.1 s; over 1 s is high."""
    assert sorted(row["end"] for row in manifest(corpus).rows.to_pylist()) == [9, 10, 10, 12]
    assert build(corpus, "few", "--no-stats", "--where", "length > 9").exit_code == 0
    assert summary(corpus, "whole", "few") == {
        ("removed", "excluded by --where"): 1,
        ("weight", "the hours in its group changed"): 3,
    }
    assert summary(corpus, "few", "whole")[("added", "excluded by --where")] == 1
    strict = policy(tmp_path, tier="excluded", code="too_long")
    assert build(corpus, "strict", "--no-stats", "--policy", strict).exit_code == 0
    assert summary(corpus, "whole", "strict") == {
        ("removed", "excluded by the policy: too_long"): 1,
        ("weight", "the hours in its group changed"): 3,
    }
    loose = policy(tmp_path, above=0.95)
    assert build(corpus, "loose", "--no-stats", "--policy", loose).exit_code == 0
    assert summary(corpus, "whole", "loose") == {
        ("tasks", "rest → long"): 2,
        ("tier", "rest → long"): 2,
    }


def test_a_new_episode_is_why(corpus: Path, tmp_path: Path) -> None:
    run(write_toy(tmp_path / "more", {"z": "good"}), corpus, run_id="more")
    assert build(corpus, "more", "--no-stats", "--policy", policy(tmp_path)).exit_code == 0
    number = manifest(corpus).facts.snapshot
    assert summary(corpus, "whole", "more") == {
        ("added", f"not in snapshot {number}"): 1,
        ("weight", "the hours in its group changed"): 4,
    }


def test_a_weight_says_which_options_moved_it(corpus: Path) -> None:
    assert build(corpus, "val", "--no-stats", "--val", "0.3").exit_code == 0
    assert ask(corpus, "diff", "whole", "val")["summary"] != []
    whys = {why for change, why in summary(corpus, "whole", "val") if change == "weight"}
    assert whys == {"different split: val 0 → 0.3"}


def test_the_same_is_the_same(corpus: Path) -> None:
    assert build(corpus, "again", "--no-stats").exit_code == 0
    found = ask(corpus, "diff", "whole", "again")
    assert (found["summary"], found["same"], found["built_from"]) == ([], 4, {})


@pytest.mark.slow
def test_a_page_without_statistics_does_not_pass_for_one_with(corpus: Path) -> None:
    assert build(corpus, "bare", "--no-stats").exit_code == 0
    again = build(corpus, "bare")
    assert isinstance(again.exception, ConfigError)
    assert "published without statistics" in str(again.exception)
    assert build(corpus, "bare", "--no-stats").exit_code == 0


# --- episodes by uid -------------------------------------------------------------------------------------------------------


def test_a_manifest_of_episodes_that_are_named(made: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    shutil.copytree(made, corpus)
    uids = sorted(set(manifest(corpus).rows["uid"].to_pylist()))
    file = tmp_path / "uids.txt"
    file.write_text(f"{uids[2]}\n\n{uids[0]}\n{uids[0]}\n")
    assert build(corpus, "two", "--uids", str(file)).exit_code == 0
    assert sorted(set(manifest(corpus, "two").rows["uid"].to_pylist())) == [uids[0], uids[2]]
    words = ("manifest", "build", str(corpus), "piped", "--uids", "-", "--no-stats")
    piped = CliRunner().invoke(app, [*words, "--where", "length > 0"], input=uids[1])
    assert piped.exit_code == 0, piped.output
    assert set(manifest(corpus, "piped").rows["uid"].to_pylist()) == {uids[1]}


def test_named_episodes_without_a_segment_are_counted(made: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    shutil.copytree(made, corpus)
    uids = sorted(set(manifest(corpus).rows["uid"].to_pylist()))
    file = tmp_path / "uids.txt"
    file.write_text("\n".join(uids))
    where = f"uid = '{uids[0]}' -- the one"
    answer = build(corpus, "one", "--uids", str(file), "--where", where, "--json")
    assert answer.exit_code == 0, answer.output
    assert json.loads(answer.stdout)["result"]["named_left_out"] == len(uids) - 1
    assert set(manifest(corpus, "one").rows["uid"].to_pylist()) == {uids[0]}
    refused = build(corpus, "none", "--uids", str(file), "--where", "length < 0) OR (length > 0")
    assert isinstance(refused.exception, ConfigError)
    assert "unmatched )" in refused.exception.message


def test_an_episode_that_a_snapshot_lacks_is_named(made: Path, tmp_path: Path) -> None:
    file = tmp_path / "uids.txt"
    for text, expected in (
        ("it's'); --", "lacks 1 of 1 episodes, the first of them"),
        ("\n", "1 to"),
    ):
        file.write_text(text)
        refused = build(made, "none", "--uids", str(file))
        assert isinstance(refused.exception, ConfigError)
        assert expected in refused.exception.message
