"""An LDA export, read by the rules of its loader (shared/formats/exports.md §3) from the files alone; each rule broken and found."""

from __future__ import annotations

import json
import math
import runpy
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from ingest.executors.inline import InlineExecutor
from ingest.export.datasets.lda import Lda, motions, robot_type
from ingest.export.datasets.plan import DatasetPlan
from ingest.export.datasets.run import run_export
from schemas.errors import ConfigError
from schemas.lerobot import vector_feature
from tests.ingest.export_cases import manifest_of, numbered_corpus, page_of, plan_of

SEGMENTS = [("a", 0, 37), ("a", 10, 20), ("b", 0, 24), ("b", 3, 9), ("c", 0, 12)]
TASKS = [["policy"], ["policy"], ["visual_forecasting"], ["forward_dynamics"], ["policy"]]
TEXTS = ["do a", "do a", "do b", "do b", " "]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return numbered_corpus(tmp_path_factory.mktemp("numbered"))


@pytest.fixture(scope="module")
def exported(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "out"
    chosen = manifest_of(corpus, SEGMENTS, tasks=TASKS, text=TEXTS)
    run_export(plan_of(corpus, chosen, Lda()), Lda(), out, InlineExecutor())
    return out


def folder(out: Path, end: str = "") -> Path:
    (dataset,) = (
        d for d in out.iterdir() if d.is_dir() and d.name.endswith("__video") == bool(end)
    )
    return dataset


def page(path: Path) -> Any:
    return json.loads(path.read_text())


def problems(dataset: Path) -> Iterator[str]:
    meta = dataset / "meta"
    if "test" in dataset.name:
        yield "the folder would be skipped"
    if list(meta.glob("steps_*")):
        yield "a cache of the loader is there"
    for first, *others in (("modality", "modality_eef"), ("stats", "stats_eef", "stats_gr00t")):
        wanted = (meta / f"{first}.json").read_bytes()
        if any((meta / f"{name}.json").read_bytes() != wanted for name in others):
            yield f"the files of {first} differ"
    info, modality, stats = (page(meta / f"{n}.json") for n in ("info", "modality", "stats"))
    keys = {group: list(modality[group].values()) for group in ("state", "action")}
    columns = {group: {each["original_key"] for each in keys[group]} for group in keys}
    if columns["state"] & columns["action"]:
        yield "state and action share a column"
    for each in (*keys["state"], *keys["action"]):
        if each.get("rotation_type", "euler_angles_rpy") != "euler_angles_rpy":
            yield "a rotation is no roll, pitch and yaw"
    for name in columns["state"] | columns["action"]:
        yield from column_problems(name, info["features"][name]["shape"], stats.get(name, {}))
    yield from row_problems(dataset, columns["action"])


def column_problems(name: str, shape: list[int], stats: dict[str, Any]) -> Iterator[str]:
    if not {"left", "right"} & set(name.split(".")):
        yield f"{name} names no side"
    if name not in ("eef.left.hand", "eef.right.hand") and shape == [1]:
        yield f"{name} is no vector"
    keys, widths = set(stats), {len(value) for value in stats.values()}
    if keys != {"mean", "std", "min", "max", "q01", "q99"} or widths != set(shape):
        yield f"{name} has not exactly the six statistics of its width"


def row_problems(dataset: Path, used: set[str]) -> Iterator[str]:
    tasks = [json.loads(line) for line in (dataset / "meta/tasks.jsonl").read_text().splitlines()]
    lengths = [
        json.loads(line)["length"]
        for line in (dataset / "meta/episodes.jsonl").read_text().splitlines()
    ]
    texts = {task["task_index"]: task["task"] for task in tasks}
    for number, length in enumerate(lengths):
        table = pq.read_table(dataset / f"data/chunk-000/episode_{number:06d}.parquet")
        if table.num_rows != length:
            yield "an episode has another length than its rows"
        if not texts.get(table["task_index"][0].as_py(), "").strip():
            yield "an episode has no text in its first row"
        if used and "left_wrist_mask" not in table.column_names:
            yield "an episode has no mask"


def test_the_rules_of_the_loader_hold(exported: Path) -> None:
    assert [*problems(folder(exported)), *problems(folder(exported, "video"))] == []


def _change(path: Path, change: Callable[[Any], object]) -> None:
    value = page(path)
    change(value)
    path.write_text(json.dumps(value))


def _both(meta: Path, name: str, change: Callable[[Any], object]) -> None:
    for path in meta.glob(f"{name}*.json"):
        _change(path, change)


MISTAKES: dict[str, Callable[[Path], object]] = {
    "the files of stats differ": lambda m: _change(m / "stats_eef.json", lambda v: v.popitem()),
    "six statistics": lambda m: _both(m, "stats", lambda v: v["eef.left.wrist"].update(count=[3])),
    "roll, pitch and yaw": lambda m: _both(
        m,
        "modality",
        lambda v: v["action"]["left_eef_rotation"].update(rotation_type="rotation_6d"),
    ),
    "share a column": lambda m: _both(
        m, "modality", lambda v: v["state"]["left_gripper"].update(original_key="eef.left.hand")
    ),
    "a cache": lambda m: (m / "steps_3_interval_data_index.pkl").touch(),
    "another length": lambda m: shutil.copy(
        m.parent / "data/chunk-000/episode_000001.parquet",
        m.parent / "data/chunk-000/episode_000000.parquet",
    ),
    "no text": lambda m: (m / "tasks.jsonl").write_text('{"task_index": 0, "task": ""}'),
}


@pytest.mark.parametrize("told", MISTAKES)
def test_a_broken_rule_is_seen(told: str, exported: Path, tmp_path: Path) -> None:
    shutil.copytree(exported, tmp_path / "out")
    dataset = folder(tmp_path / "out")
    MISTAKES[told](dataset / "meta")
    assert any(told in each for each in problems(dataset))


def matrix(rpy_rad: Any) -> np.ndarray[Any, Any]:
    """Rz(yaw) Ry(pitch) Rx(roll), written out."""
    (cr, cp, cy), (sr, sp, sy) = ([f(a) for a in rpy_rad] for f in (math.cos, math.sin))
    x = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    y = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
    z = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    out: np.ndarray[Any, Any] = z @ y @ x
    return out


def stored_matrix(row: Any) -> np.ndarray[Any, Any]:
    first, second = np.array(row[3:6]), np.array(row[6:9])
    return np.stack([first, second, np.cross(first, second)], axis=-1)


def test_row_k_is_the_target_for_timestep_k(exported: Path, corpus: Path) -> None:
    (path,) = corpus.glob("datasets/*/*/data/*/episode_000000.parquet")
    source = pq.read_table(path).to_pylist()
    for number, (start, length) in enumerate([(0, 37), (10, 10)]):
        rows = pq.read_table(
            folder(exported) / f"data/chunk-000/episode_{number:06d}.parquet"
        ).to_pylist()
        assert len(rows) == length
        for k, row in enumerate(rows):
            before = source[start + k - 1] if k else None
            is_target = before is not None and all(before["action.valid"][:3])
            wanted = (
                before["action"]
                if before is not None and is_target
                else source[start + k]["observation.state"]
            )
            np.testing.assert_allclose(row["eef.left.wrist"][:3], wanted[:3], atol=1e-6)
            np.testing.assert_allclose(
                matrix(row["eef.left.wrist"][3:]), stored_matrix(wanted), atol=2e-6
            )
            assert row["eef.left.hand"] == pytest.approx(wanted[9], abs=1e-6)
            own = source[start + k]["observation.state"]
            np.testing.assert_allclose(row["state.left.wrist"][:3], own[:3], atol=1e-6)
            assert row["state.left.wrist"][6] == pytest.approx(own[9], abs=1e-6)
            assert row["left_wrist_mask"] is (True if k == 0 else is_target)


def test_motions_are_exact_near_half_a_turn() -> None:
    rng = np.random.default_rng(0)
    near = np.array([math.pi - 1e-3, -math.pi + 1e-3, 0.0, 1.2, -1.2])
    wrist = np.concatenate([rng.normal(size=(40, 3)), rng.choice(near, size=(40, 3))], axis=1)
    wrist[:, 4] /= 1.3  # pitch lies below a quarter of a turn
    for k, step in enumerate(motions(wrist)):
        now, after = matrix(wrist[k, 3:]), matrix(wrist[k + 1, 3:])
        np.testing.assert_allclose(step[:3], now.T @ (wrist[k + 1, :3] - wrist[k, :3]), atol=1e-5)
        np.testing.assert_allclose(matrix(step[3:]), now.T @ after, atol=1e-5)


def test_statistics_of_wrists_are_of_scored_motions(exported: Path) -> None:
    dataset = folder(exported)
    steps = []
    for path in sorted(dataset.glob("data/*/*.parquet")):
        rows = pq.read_table(path).to_pylist()
        for before, row in pairwise(rows):
            if row["left_wrist_mask"]:
                turn = matrix(before["eef.left.wrist"][3:])
                moved = np.subtract(row["eef.left.wrist"][:3], before["eef.left.wrist"][:3])
                steps.append(turn.T @ moved)
    stats = page(dataset / "meta/stats.json")
    np.testing.assert_allclose(
        stats["eef.left.wrist"]["mean"][:3], np.mean(steps, axis=0), atol=1e-5
    )
    np.testing.assert_allclose(stats["eef.left.wrist"]["std"][:3], np.std(steps, axis=0), atol=1e-5)
    hand = [
        r["eef.left.hand"]
        for p in dataset.glob("data/*/*.parquet")
        for r in pq.read_table(p).to_pylist()
    ]
    assert stats["eef.left.hand"]["mean"] == pytest.approx([np.mean(hand)], abs=1e-6)


def test_what_is_left_out_and_where_the_rest_is_adds_up(exported: Path) -> None:
    found = page_of(exported)
    assert [(each["code"], each["segments"]) for each in found["left_out"]] == [
        ("no_policy", 1),
        ("no_text", 1),
    ]
    assert {each["folder"].endswith("__video"): each["episodes"] for each in found["datasets"]} == {
        False: 2,
        True: 1,
    }
    info = page(folder(exported, "video") / "meta/info.json")
    assert [name for name, f in info["features"].items() if f["dtype"] == "video"] == [
        "observation.images.top_head"
    ]
    assert set(found["robot_types"].values()) == {"intern_franka", "taste_rob"}


def test_the_snippet_names_every_folder_and_the_right_backend(exported: Path) -> None:
    values = runpy.run_path(str(exported / "lda_mixture.py"))
    assert values["VIDEO_BACKEND"] == "decord"
    assert {name for name, *_ in values["MIXTURE"]} == {
        d.name for d in exported.iterdir() if d.is_dir()
    }


def plan_with(dataset: DatasetPlan, *names: str) -> DatasetPlan:
    feature = vector_feature("float32", names)
    return replace(dataset, features={**dataset.features, "action": feature})


def test_the_robot_type_fits_the_body(corpus: Path) -> None:
    (dataset,) = plan_of(corpus, manifest_of(corpus, SEGMENTS[:1]), Lda()).datasets
    left, right = ([f"{side}.position_m.{axis}" for axis in "xyz"] for side in ("left", "right"))
    assert robot_type(plan_with(dataset, *left, "left.gripper_opening")) == "intern_franka"
    assert robot_type(plan_with(dataset, *right, "right.gripper_opening")) == "agilex"
    assert robot_type(plan_with(dataset, *left, *right, "left.gripper_opening")) == "agilex"
    assert robot_type(plan_with(dataset, *left, "left.hand_keypoints_m.wrist.x")) == "egodex"


def test_actions_without_poses_are_refused(corpus: Path) -> None:
    plan = plan_of(corpus, manifest_of(corpus, SEGMENTS[:1]), Lda())
    without = replace(plan, datasets=(plan_with(plan.datasets[0], "left.gripper_opening"),))
    with pytest.raises(ConfigError, match="lda needs the pose of a hand"):
        Lda().check(without)


def test_a_low_tier_may_train_forecasting_alone(corpus: Path, tmp_path: Path) -> None:
    to = Lda(low_as_video=True)
    chosen = manifest_of(corpus, SEGMENTS, tasks=TASKS, text=TEXTS)
    run_export(plan_of(corpus, chosen, to), to, tmp_path / "out", InlineExecutor())
    video = folder(tmp_path / "out", "__video")
    assert page(video / "meta/info.json")["total_episodes"] == 2  # without actions, and low
    (path,) = video.glob("data/*/episode_000001.parquet")
    assert not [name for name in pq.read_schema(path).names if "eef" in name or "mask" in name]
    assert [each["code"] for each in page_of(tmp_path / "out")["left_out"]] == ["no_text"]
