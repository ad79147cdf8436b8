"""An openpi export, read by the rules of its loader (shared/formats/exports.md §6) from the files alone."""

from __future__ import annotations

import ast
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.spatial.transform import Rotation

from ingest.executors.inline import InlineExecutor
from ingest.export.datasets.openpi import HORIZON, OpenPi
from ingest.export.datasets.run import run_export
from schemas.errors import ConfigError
from schemas.lerobot import vector_feature
from tests.ingest.export_cases import manifest_of, numbered_corpus, page_of, plan_of
from tests.ingest.test_export_groot import shown

SEGMENTS = [("a", 0, 37), ("a", 10, 20), ("b", 0, 24), ("c", 2, 12)]
TASKS = [["policy"], ["policy"], ["forward_dynamics"], ["policy"]]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return numbered_corpus(tmp_path_factory.mktemp("numbered"))


@pytest.fixture(scope="module")
def exported(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "out"
    plan = plan_of(corpus, manifest_of(corpus, SEGMENTS, tasks=TASKS), OpenPi())
    run_export(plan, OpenPi(), out, InlineExecutor())
    return out


def columns_of(out: Path, number: int) -> dict[str, np.ndarray[Any, Any]]:
    (path,) = out.glob(f"*/data/chunk-000/episode_{number:06d}.parquet")
    table = pq.read_table(path, columns=["state", "actions"])
    return {name: np.array(table[name].to_pylist()) for name in table.column_names}


def test_motions_lead_from_pose_to_pose(exported: Path, corpus: Path) -> None:
    """Each action put onto the pose before it is the target of the corpus."""
    mapping = pq.read_table(exported / "eicorpus_export.parquet").to_pylist()
    assert len(mapping) == 3
    for row in mapping:
        number = "abc".index(row["text"].removeprefix("do "))
        (path,) = corpus.glob(f"datasets/*/*/data/*/episode_{number:06d}.parquet")
        stored = pq.read_table(path).slice(row["start"], row["end"] - row["start"])
        target = np.array(stored["action"].to_pylist())
        valid = np.array(stored["action.valid"].to_pylist()).all(axis=1)
        written = columns_of(exported, row["episode_index"])
        state, action = written["state"], written["actions"]
        before = np.array(stored["observation.state"].to_pylist())
        np.testing.assert_array_equal(state[:, :3], before[:, :3])
        turn, aimed = (Rotation.from_matrix(matrices(each)) for each in (before, target))
        np.testing.assert_allclose(
            Rotation.from_rotvec(state[:, 3:6]).as_matrix(), turn.as_matrix(), atol=1e-5
        )
        # the targets of this corpus are the poses one timestep later, so the pose is where the motion begins
        arrived_m = state[:, :3] + turn.apply(action[:, :3])
        np.testing.assert_allclose(arrived_m[valid], target[valid, :3], atol=1e-4)
        turned = (turn * Rotation.from_rotvec(action[:, 3:6])).as_matrix()
        np.testing.assert_allclose(turned[valid], aimed.as_matrix()[valid], atol=1e-4)
        np.testing.assert_allclose(action[valid, 6], target[valid, 9], atol=1e-6)
        assert not action[~valid, :6].any()
        if (~valid).any():  # the last timestep of an episode: the gripper stays as it was sent
            np.testing.assert_array_equal(action[~valid, 6], action[:-1][valid[:-1]][-1:, 6])


def matrices(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    columns = rows[:, 3:9].reshape(-1, 2, 3)
    third = np.cross(columns[:, 0], columns[:, 1])
    return np.stack([columns[:, 0], columns[:, 1], third], axis=-1)


def test_statistics_are_of_whole_chunks(exported: Path) -> None:
    """As compute_norm_stats.py: every timestep begins a chunk, and the last row is repeated past the end."""
    chunks, states = [], []
    for number in range(3):
        each = columns_of(exported, number)
        count = len(each["actions"])
        for first in range(count):
            chunks += [each["actions"][min(first + k, count - 1)] for k in range(HORIZON)]
        states.append(each["state"])
    (path,) = exported.glob("assets/*/norm_stats.json")
    stats = json.loads(path.read_text())["norm_stats"]
    for name, values in (("actions", np.array(chunks)), ("state", np.concatenate(states))):
        assert set(stats[name]) == {"mean", "std", "q01", "q99"}
        np.testing.assert_allclose(stats[name]["mean"], values.mean(axis=0), atol=1e-5)
        np.testing.assert_allclose(stats[name]["std"], values.std(axis=0), atol=1e-5)
        for key, share in (("q01", 0.01), ("q99", 0.99)):
            wanted = np.quantile(values, share, axis=0, method="inverted_cdf")
            np.testing.assert_allclose(stats[name][key], wanted, rtol=6e-3, atol=1e-5)


def test_views_have_the_names_of_its_libero_config(exported: Path) -> None:
    (info,) = exported.glob("*/meta/info.json")
    features = json.loads(info.read_text())["features"]
    videos = {name for name, feature in features.items() if feature["dtype"] == "video"}
    assert videos == {"image", "wrist_image"}
    video = info.parent.parent / "videos/chunk-000/wrist_image/episode_000001.mp4"
    assert shown(video) == list(range(1010, 1020))
    page = page_of(exported)
    assert list(page["timesteps_without_a_valid_action"].values()) == [2]
    assert [each["code"] for each in page["left_out"]] == ["no_policy"]


def test_the_config_is_python_that_names_columns_and_views(exported: Path) -> None:
    (path,) = exported.glob("openpi_*.py")
    names = {
        node.targets[0].id: ast.literal_eval(node.value)  # type: ignore[attr-defined]
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Assign) and node.targets[0].id in ("VIEWS", "NAMES")  # type: ignore[attr-defined]
    }
    assert names["VIEWS"] == {"base_0_rgb": "image", "left_wrist_0_rgb": "wrist_image"}
    assert len(names["NAMES"]) == columns_of(exported, 0)["actions"].shape[1] == 7


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ([f"left.hand_joints_rad.{k}" for k in range(33)], "openpi holds 32 numbers"),
        (None, "openpi needs the pose of a hand"),
    ],
)
def test_what_its_models_cannot_take_is_refused(
    names: list[str] | None, told: str, corpus: Path
) -> None:
    plan = plan_of(corpus, manifest_of(corpus, SEGMENTS), OpenPi())
    (dataset,) = plan.datasets
    own = [] if names is None else [*dataset.names("action"), *names]
    action = vector_feature("float32", tuple(own or ["left.gripper_opening"]))
    other = replace(dataset, features={**dataset.features, "action": action})
    with pytest.raises(ConfigError, match=told):
        OpenPi().check(replace(plan, datasets=(other,)))
