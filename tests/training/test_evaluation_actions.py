"""Errors of chunks, against plain loops and numbers by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from training.evaluation.errors import (
    GRIPPER,
    JOINTS,
    KEYPOINTS,
    POSITION,
    ROTATION,
    Chunks,
    SidePlaces,
    action_errors,
    baselines,
    parallel_grippers,
)
from training.policy.embodiments import integrated, position_error_m, rotation_error_rad, unbroken

LEFT = SidePlaces(motion=slice(0, 6), gripper=slice(6, 7), keypoints=slice(7, 13), joints=slice(13, 15))  # fmt: skip
RIGHT = SidePlaces(motion=slice(15, 21), gripper=slice(21, 22), keypoints=slice(22, 28), joints=slice(28, 30))  # fmt: skip
SIDES, WIDTH = (LEFT, RIGHT), 30


def loop_of(motions: np.ndarray, start: np.ndarray) -> list[np.ndarray]:
    """Homogeneous matrices by hand, scipy's rotations."""
    out, T = [], start
    for motion in motions:
        dT = np.eye(4)
        dT[:3, :3] = Rotation.from_rotvec(motion[3:]).as_matrix()
        dT[:3, 3] = motion[:3]
        T = T @ dT
        out.append(T)
    return out


def test_motions_are_of_the_body() -> None:
    """Forward, turn left, forward again: a motion put on the wrong side would end at (2, 0) or turn the first step."""
    quarter = [0, 0, 0, 0, 0, np.pi / 2]
    T = integrated([[1, 0, 0, 0, 0, 0], quarter, [1, 0, 0, 0, 0, 0]])
    np.testing.assert_allclose(T[-1, :3, 3], [1, 1, 0], atol=1e-12)
    there = np.eye(4)
    there[:3, :3], there[:3, 3] = Rotation.from_rotvec([0, 0, np.pi / 2]).as_matrix(), [5, 0, 0]
    np.testing.assert_allclose(integrated([[1, 0, 0, 0, 0, 0]], there)[0, :3, 3], [5, 1, 0], atol=1e-12)  # fmt: skip


def test_motions_add_up_as_a_loop_of_matrices_does() -> None:
    rng = np.random.default_rng(0)
    motions = rng.normal(size=(4, 9, 6))
    start = np.stack([np.eye(4)] * 4)
    start[:, :3, :3] = Rotation.random(4, rng=rng).as_matrix()
    start[:, :3, 3] = rng.normal(size=(4, 3))
    want = np.array([loop_of(each, T) for each, T in zip(motions, start, strict=True)])
    np.testing.assert_allclose(integrated(motions, start), want, atol=1e-12)


@pytest.mark.parametrize(("angle", "plain", "folded"), [(np.pi, np.pi, 0.0), (2.0, 2.0, np.pi - 2.0), (0.4, 0.4, 0.4)])  # fmt: skip
def test_half_a_turn_about_the_approach_is_no_error_of_a_gripper(
    angle: float, plain: float, folded: float
) -> None:
    T = np.eye(4)
    T[:3, :3] = Rotation.from_rotvec([angle, 0, 0]).as_matrix()
    rng = np.random.default_rng(1)
    there = np.eye(4)
    there[:3, :3] = Rotation.random(rng=rng).as_matrix()
    for start in (np.eye(4), there):  # the symmetry is of the hand, wherever it is
        assert rotation_error_rad(start @ T, start) == pytest.approx(plain, abs=1e-9)
        found = rotation_error_rad(start @ T, start, is_symmetric=True)
        assert found == pytest.approx(folded, abs=1e-9)


@pytest.mark.parametrize("axis", [1, 2])
def test_half_a_turn_about_another_axis_is_one(axis: int) -> None:
    T = np.eye(4)
    T[:3, :3] = Rotation.from_rotvec(np.pi * np.eye(3)[axis]).as_matrix()
    assert rotation_error_rad(T, np.eye(4), is_symmetric=True) == pytest.approx(np.pi)


def test_position_error_is_the_mean_of_three_axes() -> None:
    T = np.eye(4)
    T[:3, 3] = [0.3, -0.6, 0.0]
    assert position_error_m(T, np.eye(4)) == pytest.approx(0.3)


def test_behind_a_gap_no_pose_is_known() -> None:
    known = np.array([[True, True, False, True], [False, True, True, True]])
    want = [[True, True, False, False], [False] * 4]
    assert unbroken(known).tolist() == want


def chunks(seed: int = 0, size: int = 3, steps: int = 5) -> tuple[np.ndarray, Chunks]:
    rng = np.random.default_rng(seed)
    said = rng.normal(size=(size, steps, WIDTH)) * 0.5
    valid = np.ones((size, steps, WIDTH), dtype=bool)
    valid[0, :, 15:] = False  # no right side
    valid[1, 3:] = False  # the segment ends
    valid[2, 1, :6] = False  # a pose is lost in between
    true = np.where(
        valid, rng.normal(size=said.shape) * 0.5, 1e6
    )  # what is not valid means nothing
    return said, Chunks(values=true, valid=valid)


def loop_errors(
    said: np.ndarray, true: Chunks, b: int, is_parallel: np.ndarray
) -> dict[tuple[str, int], list[float]]:
    """Every single error of one sample, by metric and step."""
    want: dict[tuple[str, int], list[float]] = {}
    valid, off = true.valid[b], said[b] - true.values[b]
    for s, side in enumerate(SIDES):
        T_said = loop_of(said[b, :, side.motion], np.eye(4))
        T_true = loop_of(np.where(valid, true.values[b], 0.0)[:, side.motion], np.eye(4))
        for k in range(len(valid)):
            if valid[: k + 1, side.motion].all():
                apart = np.abs(T_said[k][:3, 3] - T_true[k][:3, 3])
                want.setdefault((POSITION, k), []).append(float(apart.mean()))
                R = T_said[k][:3, :3].T @ T_true[k][:3, :3]
                turned = Rotation.from_rotvec([np.pi, 0, 0]).as_matrix() @ R
                angles = [float(Rotation.from_matrix(each).magnitude()) for each in (R, turned)]
                want.setdefault((ROTATION, k), []).append(min(angles[: 1 + is_parallel[s]]))
            for name, places in ((GRIPPER, side.gripper), (JOINTS, side.joints)):
                if valid[k, places].all():
                    want.setdefault((name, k), []).extend(np.abs(off[k, places]).tolist())
            if valid[k, side.keypoints].all():
                points = off[k, side.keypoints].reshape(-1, 3)
                want.setdefault((KEYPOINTS, k), []).extend(np.linalg.norm(points, axis=1))
    return want


def test_errors_are_those_of_a_plain_loop() -> None:
    said, true = chunks()
    is_parallel = np.array([[True, False], [False, True], [True, True]])
    found = action_errors(said, true, SIDES, is_parallel=is_parallel)
    assert set(found) == {POSITION, ROTATION, GRIPPER, KEYPOINTS, JOINTS}
    for b in range(3):
        want = loop_errors(said, true, b, is_parallel[b])
        for name, error in found.items():
            for k in range(5):
                values = want.get((name, k), [])
                assert error.count[b, k] == len(values), (name, b, k)
                assert error.total[b, k] == pytest.approx(sum(values), abs=1e-9)


def test_only_steps_in_reach_are_scored() -> None:
    said, true = chunks()
    in_reach = np.array([True, True, False, False, False])
    flat = np.zeros((3, 2), dtype=bool)
    found = action_errors(said, true, SIDES, is_parallel=flat, in_reach=in_reach)
    whole = action_errors(said, true, SIDES, is_parallel=flat)
    for name, error in found.items():
        np.testing.assert_array_equal(error.count[:, :2], whole[name].count[:, :2])
        assert not error.count[:, 2:].any()
        assert not error.total[:, 2:].any()


def test_a_hand_is_no_parallel_gripper() -> None:
    has = np.zeros((3, WIDTH), dtype=bool)
    has[0, [6, 21]] = True
    has[1, [6, 13]] = True
    has[2, 7:13] = True
    assert parallel_grippers(has, SIDES).tolist() == [[True, True], [False, False], [False, False]]


def test_baselines_do_what_they_say() -> None:
    mean = np.tile(np.arange(WIDTH, dtype=float) + 100, (2, 1))
    history = Chunks(values=np.arange(2 * 3 * WIDTH, dtype=float).reshape(2, 3, WIDTH), valid=np.ones((2, 3, WIDTH), dtype=bool))  # fmt: skip
    history.valid[1, -1, :7] = False  # the left hand of the second is not known now
    found = baselines(history, mean, SIDES, 4)
    assert {name: value.shape for name, value in found.items()} == dict.fromkeys(
        ("stay", "repeat", "mean"), (2, 4, WIDTH)
    )
    np.testing.assert_array_equal(found["repeat"][0, 3], history.values[0, -1])
    np.testing.assert_array_equal(found["mean"], np.repeat(mean[:, None], 4, axis=1))
    stay = found["stay"]
    assert not stay[:, :, :6].any()
    assert not stay[:, :, 15:21].any()
    np.testing.assert_array_equal(stay[0, 0, 6:15], history.values[0, -1, 6:15])
    assert stay[1, 0, 6] == 106  # nobody knows the gripper: its mean
    assert not found["repeat"][1, :, :6].any()


def test_without_history_the_body_stays() -> None:
    nothing = Chunks(values=np.zeros((2, 0, WIDTH)), valid=np.zeros((2, 0, WIDTH), dtype=bool))
    found = baselines(nothing, np.ones((2, WIDTH)), SIDES, 2)
    assert not found["repeat"][..., :6].any()
    assert (found["stay"][..., 6:15] == 1).all()
