"""RoboCasa-GR1: its keys against generated and real episodes of GR00T's demonstration set, and the environment with a toy simulator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from adapters.registry import adapter_for
from schemas.action import action_spec
from schemas.errors import ConfigError
from schemas.geometry import rotmat_from_rotvec, rotvec_from_rotmat, transform
from tests.generators import robocasa_gr1 as generated
from training.policy.observation import ActionChunk, Observation
from training.rollout.loop import Horizon, closed_loop
from training.rollout.robocasa_gr1 import (
    HAND_OPEN,
    HAND_SHUT,
    ROBOTS,
    WIDTH,
    Gr1Environment,
    actions_of,
    image_of,
    instruction_of,
    joint_names,
    joints_of,
    joints_of_actions,
    slice_of,
)

SAMPLE = "lerobot_v20_gr1_picknplace"
_PARTS = {"left.position_m": 3, "left.rot6d_cols": 6, "right.position_m": 3, "right.rot6d_cols": 6}
SPEC = action_spec([*_PARTS.items(), ("right.gripper_opening", 1)])
# What a robot of the simulator moves, read from its converters by hand.
MOVED = {
    "GR1ArmsOnly": {"left_arm", "left_hand", "right_arm", "right_hand"},
    "GR1ArmsAndWaist": {"left_arm", "left_hand", "right_arm", "right_hand", "waist"},
    "GR1FixedLowerBody": {"left_arm", "left_hand", "right_arm", "right_hand", "waist", "neck"},
}


def spans(modality: dict[str, Any], kind: str) -> dict[str, tuple[int, int]]:
    return {part: (at["start"], at["end"]) for part, at in modality[kind].items()}


@pytest.fixture
def episodes(tmp_path: Path) -> Path:
    generated.write(tmp_path / "set", pictures=False)
    return tmp_path / "set"


def rows_of(path: Path) -> tuple[np.ndarray, np.ndarray]:
    table = pq.read_table(path)
    state, action = (np.array(table[n].to_pylist()) for n in ("observation.state", "action"))
    return state, action


def check_order(root: Path) -> None:
    """The set's own modality.json, and what a corpus calls its joints."""
    modality = json.loads((root / "meta/modality.json").read_text())
    for kind in ("state", "action"):
        assert {p: (slice_of(p).start, slice_of(p).stop) for p in spans(modality, kind)} == spans(
            modality, kind
        )
    adapter = adapter_for("robocasa_gr1")
    ref = next(iter(adapter.discover(root, adapter.survey(root, {}))))
    stream = adapter.load(ref).stream("joint_position_rad")
    assert stream is not None
    assert stream.spec.names == joint_names("state")


def check_round_trip(rows: np.ndarray, robot: str) -> None:
    actions = actions_of(rows, robot)
    assert set(actions[0]) == {f"action.{part}" for part in MOVED[robot]}
    np.testing.assert_array_equal(joints_of_actions(actions, robot), rows.astype(np.float32))


def test_joints_lie_where_modality_json_says(episodes: Path) -> None:
    check_order(episodes)


@pytest.mark.real
def test_real_joints_lie_where_modality_json_says(samples: Path) -> None:
    check_order(samples / SAMPLE)


@pytest.mark.real
def test_real_actions_come_back(samples: Path) -> None:
    """Exact but for float32; hands are only ever told to open or to shut, and legs, neck and waist are never moved."""
    for path in sorted((samples / SAMPLE / "data/chunk-000").glob("*.parquet")):
        state, action = rows_of(path)
        check_round_trip(action, "GR1ArmsOnly")
        check_round_trip(state, "GR1ArmsOnly")
        hands = np.concatenate([action[:, slice_of(f"{s}_hand")] for s in ("left", "right")])
        told = {tuple(row) for row in hands.tolist()}
        assert told == {HAND_OPEN, HAND_SHUT}
        right = state[action[:, slice_of("right_hand")][:, 0] > 0, slice_of("right_hand")]
        assert right[:, :4].max() > 1.0  # fingers come first
        assert right[:, 5].min() > 1.0  # the thumb's turn is last, and is held


@pytest.mark.parametrize("robot", ROBOTS)
def test_actions_come_back_for_every_robot(robot: str) -> None:
    rows = np.random.default_rng(0).normal(size=(5, 44))
    for part, (start, end) in generated.PARTS.items():
        if part not in MOVED[robot]:
            rows[:, start:end] = 0
    check_round_trip(rows, robot)


def test_a_part_that_the_robot_cannot_move_is_refused() -> None:
    rows = np.zeros((2, 44))
    rows[1, 42] = 0.1
    with pytest.raises(ConfigError, match="GR1ArmsOnly cannot move waist"):
        actions_of(rows, "GR1ArmsOnly")
    assert actions_of(rows, "GR1ArmsAndWaist")[1]["action.waist"][1] == pytest.approx(0.1)
    with pytest.raises(ConfigError, match="43 joints"):
        actions_of(rows[:, 1:], "GR1ArmsOnly")
    with pytest.raises(ConfigError, match="no robot 'Panda'"):
        actions_of(rows, "Panda")


def seen(joints: np.ndarray, robot: str = "GR1ArmsOnly") -> dict[str, Any]:
    """As the simulator's converter shows it, by the generator's own table of parts."""
    out: dict[str, Any] = {
        f"state.{part}": joints[start:end]
        for part, (start, end) in generated.PARTS.items()
        if part in MOVED[robot]
    }
    image = np.zeros((256, 256, 3), np.uint8)
    image[0, 0] = 7
    text = "locked_waist: put the cup away"
    return out | {
        "video.ego_view_pad_res256_freq20": image,
        "annotation.human.coarse_action": text,
    }


def test_what_is_seen_is_named_as_in_a_corpus() -> None:
    joints = np.arange(44.0)
    joints[13:22] = joints[35:] = 0
    np.testing.assert_array_equal(joints_of(seen(joints), "GR1ArmsOnly"), joints)
    assert instruction_of(seen(joints)) == "put the cup away"
    assert image_of(seen(joints))[0, 0].tolist() == [7, 7, 7]
    with pytest.raises(ConfigError, match=r"state.waist has nothing; expected \[3\]"):
        joints_of(seen(joints), "GR1ArmsAndWaist")
    with pytest.raises(ConfigError, match=r"no video.ego_view_pad"):
        image_of({"state.waist": 0})


class StraightArms:
    """Joints that are a place and a rotation vector, and a seventh that counts for nothing."""

    def tip_pose(self, side: str, joints: np.ndarray) -> np.ndarray:
        sign = 1.0 if side == "left" else -1.0
        return np.asarray(transform(rotmat_from_rotvec(joints[3:6]), sign * joints[:3]))

    def joints(self, side: str, T_base_tip: np.ndarray, near: np.ndarray) -> np.ndarray:
        sign = 1.0 if side == "left" else -1.0
        turn = rotvec_from_rotmat(T_base_tip[:3, :3])
        return np.concatenate([sign * T_base_tip[:3, 3], turn, near[6:]])


class Cup:
    """Joints move by at most 0.1 a step; done when the right tip is at its goal and its hand was told to shut."""

    goal_m = np.array([0.3, -0.2, 0.1])

    def reset(self, *, seed: int | None = None) -> tuple[Any, dict[str, Any]]:
        self.joints, self.num_steps = np.zeros(WIDTH), 0
        self.joints[6] = 0.5
        return seen(self.joints), {"success": False}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        assert set(action) == {f"action.{part}" for part in MOVED["GR1ArmsOnly"]}
        self.action = action
        for part in ("left_arm", "right_arm"):
            start, end = generated.PARTS[part]
            now = self.joints[start:end]
            self.joints[start:end] = now + np.clip(action[f"action.{part}"] - now, -0.1, 0.1)
        is_there = bool(np.abs(-self.joints[22:25] - self.goal_m).max() < 1e-3)
        is_done = is_there and tuple(action["action.right_hand"].tolist()) == HAND_SHUT
        self.num_steps += 1
        return seen(self.joints), 0.0, False, False, {"success": is_done}


class Fetches:
    """Holds the left hand where it is, and sends the right tip to the goal."""

    def act(self, observation: Observation) -> ActionChunk:
        assert SPEC is not None
        assert observation.history is not None
        assert observation.text == "put the cup away"
        target = np.array(observation.history[-1], dtype=np.float64)
        # 0.13 m below the tip along -z, turned as the registry says: schemas/embodiments.yaml, fourier_gr1
        right = SPEC.slice("right.position_m")
        target[right] = Cup.goal_m + np.array([0, 0, -0.13])
        target[SPEC.slice("right.gripper_opening")] = 0
        return ActionChunk(spec=SPEC, targets=np.tile(target, (8, 1)), t_s=np.arange(1, 9) / 10)


def test_a_policy_of_hand_poses_drives_the_joints() -> None:
    assert SPEC is not None
    env = Cup()
    steered = Gr1Environment(env, StraightArms(), SPEC, "GR1ArmsOnly")
    outcome = closed_loop(Fetches(), steered, 0, Horizon(execute=4, limit=20), task="cup")
    assert outcome.is_success
    assert env.num_steps == 3
    assert outcome.length == 2  # two steps of 20 Hz in each timestep
    np.testing.assert_allclose(env.joints[:6], 0, atol=1e-6)
    assert env.joints[6] == pytest.approx(0.5)
    assert tuple(env.action["action.left_hand"].tolist()) == HAND_OPEN
    first = steered.state()[SPEC.slice("left.position_m")]
    np.testing.assert_allclose(first, [0, 0, -0.13], atol=1e-6)
    assert steered.state()[SPEC.slice("right.gripper_opening")] == 1.0


def test_what_this_client_cannot_do_is_refused() -> None:
    spec = action_spec([("left.hand_joints_rad", 6)])
    assert spec is not None
    assert SPEC is not None
    with pytest.raises(ConfigError, match=r"acts with left.hand_joints_rad"):
        Gr1Environment(Cup(), StraightArms(), spec, "GR1ArmsOnly")
    with pytest.raises(ConfigError, match="15 Hz do not divide 20 Hz"):
        Gr1Environment(Cup(), StraightArms(), SPEC, "GR1ArmsOnly", rate_hz=15.0)
