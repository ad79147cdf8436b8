"""The trained representation, by hand: whose frame a motion is seen from, where a run of actions begins, what is masked."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.geometry import rot6d_cols_from_rotmat, rotmat_from_rotvec, transform
from schemas.trained_action import Named, TrainedAction, trained_action, trained_names

POSE = ("left.position_m", "left.rot6d_cols")
NAMES = (
    *(f"left.position_m.{a}" for a in "xyz"),
    *(f"left.rot6d_cols.{a}" for a in ("xx", "xy", "xz", "yx", "yy", "yz")),
    "left.gripper_opening",
)
MASKS = (*POSE, "left.gripper_opening")
QUARTER = np.pi / 2


def vector(poses: list[tuple[list[float], list[float]]], opening: list[float]) -> np.ndarray:
    """[K, 10] from positions and rotation vectors."""
    rows = [
        [*p, *rot6d_cols_from_rotmat(rotmat_from_rotvec(np.array(r, dtype=float)))]
        for p, r in poses
    ]
    return np.column_stack([np.array(rows), opening]).astype(np.float32)


def trained(
    action: np.ndarray, state: np.ndarray, valid: np.ndarray | None = None
) -> TrainedAction:
    mask = np.ones((len(action), 3), dtype=bool) if valid is None else valid
    return trained_action(
        action=Named(values=action, names=NAMES),
        action_valid=Named(values=mask, names=MASKS),
        state=Named(values=state, names=NAMES),
        state_valid=Named(values=np.ones_like(mask), names=MASKS),
    )


def test_a_motion_is_seen_from_the_hand_that_makes_it() -> None:
    """Turned a quarter left about z, a hand that goes along the world's y goes forward: along its own x. Then it turns about its x."""
    state = vector([([0, 0, 0], [0, 0, QUARTER]), ([0, 0.5, 0], [0, 0, QUARTER])], [1, 1])
    turned = rotmat_from_rotvec([0, 0, QUARTER]) @ rotmat_from_rotvec([0.3, 0, 0])
    action = state.copy()
    action[0] = state[1]
    action[1, :3] = [0, 0.5, 0]
    action[1, 3:9] = rot6d_cols_from_rotmat(turned)
    found = trained(action, state)
    assert found.names[:6] == (
        *(f"left.delta_position_m.{a}" for a in "xyz"),
        *(f"left.delta_rotvec_rad.{a}" for a in "xyz"),
    )
    np.testing.assert_allclose(found.values[0, :6], [0.5, 0, 0, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(found.values[1, :6], [0, 0, 0, 0.3, 0, 0], atol=1e-6)
    assert found.valid.all()


def test_a_command_ahead_of_the_hand_counts_its_lead_once() -> None:
    """Targets 1 cm apart, the hand lags 3 cm behind: the first motion covers the lag and the step, the others the step."""
    state = vector([([0.01 * k, 0, 0], [0, 0, 0]) for k in range(4)], [0] * 4)
    action = vector([([0.01 * k + 0.04, 0, 0], [0, 0, 0]) for k in range(4)], [0] * 4)
    found = trained(action, state)
    np.testing.assert_allclose(found.values[:, 0], [0.04, 0.01, 0.01, 0.01], atol=1e-7)


def test_after_a_break_a_run_begins_at_the_measured_pose() -> None:
    state = vector([([k, 0, 0], [0, 0, 0]) for k in range(4)], [0] * 4)
    action = vector([([k + 1.5, 0, 0], [0, 0, 0]) for k in range(4)], [0.2, 0.4, 0.6, 0.8])
    action[1, :9] = 0  # a filler that is no pose
    valid = np.ones((4, 3), dtype=bool)
    valid[1, :2] = False
    found = trained(action, state, valid)
    np.testing.assert_allclose(found.values[:, 0], [1.5, 0, 1.5, 1], atol=1e-6)
    assert found.valid[:, 0].tolist() == [True, False, True, True]
    assert found.valid[:, 6].all()
    np.testing.assert_allclose(found.values[:, 6], [0.2, 0.4, 0.6, 0.8], atol=1e-7)


def test_without_a_pose_to_start_from_the_first_motion_is_unknown() -> None:
    state = vector([([k, 0, 0], [0, 0, 0]) for k in range(3)], [0] * 3)
    mask = np.ones((3, 3), dtype=bool)
    unseen = mask.copy()
    unseen[0] = False
    found = trained_action(
        action=Named(values=state + np.float32(0), names=NAMES),
        action_valid=Named(values=mask, names=MASKS),
        state=Named(values=state, names=NAMES),
        state_valid=Named(values=unseen, names=MASKS),
    )
    assert found.valid[:, 0].tolist() == [False, True, True]


@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_the_motions_of_a_run_lead_to_its_last_target(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    poses = [(rng.normal(size=3).tolist(), rng.normal(size=3).tolist()) for _ in range(count + 1)]
    state = vector(poses[:1] * count, [0] * count)
    action = vector(poses[1:], [0] * count)
    found = trained(action, state)
    T = transform(rotmat_from_rotvec(poses[0][1]), poses[0][0])
    for motion in found.values[:, :6]:
        T = T @ transform(rotmat_from_rotvec(motion[3:]), motion[:3])
    np.testing.assert_allclose(T[:3, 3], poses[-1][0], atol=1e-4)
    np.testing.assert_allclose(T[:3, :3], rotmat_from_rotvec(poses[-1][1]), atol=1e-4)


def test_hands_and_joints_are_as_stored_and_nothing_else_is_taken() -> None:
    names = (
        "left.hand_keypoints_m.wrist.x",
        "right.hand_joints_rad.0",
        "right.gripper_opening",
        "odd",
    )
    assert trained_names(names) == (
        "left.hand_keypoints_m.wrist.x",
        "right.gripper_opening",
        "right.hand_joints_rad.0",
    )


@pytest.mark.parametrize("count", [0, 1])
def test_short_segments(count: int) -> None:
    state = vector([([0, 0, 0], [0, 0, 0])], [0])[:count]
    assert trained(state, state).values.shape == (count, 7)
