"""The hand of `jobs/demo/raw/pick_scene.py`: it goes to the ball that is seen, and carries it."""

from __future__ import annotations

import numpy as np
import pytest

from jobs.demo.command import NUM_PLAYS
from jobs.demo.raw.metaworld_hdf5 import FIRST_SEED
from jobs.demo.raw.pick_scene import (
    CLOSING_S,
    GAIN_PER_S,
    HOLD_M,
    NEAR_M,
    SPEED_M_S,
    PickScene,
    distance,
    distance_left,
    pick_scene,
    time_to,
)

SEEDS = range(FIRST_SEED, FIRST_SEED + NUM_PLAYS)


def test_the_distance_is_what_the_controller_leaves() -> None:
    """By hand: 0.1 m at 0.15 m/s, then an exponential; and against small steps of the differential equation."""
    assert distance_left(0.2, 0.1) == pytest.approx(0.07)
    assert distance_left(1 / 3 + 1 / GAIN_PER_S, 0.1) == pytest.approx(0.05 / np.e)
    left, step_s = 0.2, 1e-4
    for _ in range(15_000):
        left -= step_s * min(GAIN_PER_S * left, SPEED_M_S)
    assert distance_left(1.5, 0.2) == pytest.approx(left, rel=1e-3)


@pytest.mark.parametrize("start_m", [0.02, 0.05, 0.3])
def test_the_time_to_a_distance_is_when_it_is_left(start_m: float) -> None:
    assert distance_left(time_to(0.01, start_m), start_m) == pytest.approx(0.01)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_hand_goes_to_the_ball_and_carries_it(seed: int) -> None:
    scene = pick_scene(seed)
    assert distance(scene.hand(0.0), scene.hand_start) == pytest.approx(0.0)
    at_ball = scene.hand(scene.grasp_s)
    assert distance(at_ball, scene.ball_start) == pytest.approx(NEAR_M)
    assert scene.gripper_opening(scene.grasp_s - 0.1) == 1
    assert scene.gripper_opening(scene.grasp_s + CLOSING_S) == pytest.approx(0)
    assert distance(scene.hand(scene.grasp_s + CLOSING_S), at_ball) < 1e-9  # while it closes
    assert distance(scene.hand(scene.duration_s), HOLD_M) == pytest.approx(NEAR_M, abs=0.002)
    places = np.array([scene.hand(t) for t in np.arange(0, scene.duration_s, 0.01)])
    assert np.linalg.norm(np.diff(places, axis=0), axis=1).max() <= SPEED_M_S * 0.01 + 1e-9


@pytest.mark.parametrize("seed", SEEDS)
def test_ball_and_hand_are_in_the_picture(seed: int) -> None:
    """The ball where it lies, before the hand covers it, and between the jaws at the end."""
    scene = pick_scene(seed)
    end_s = scene.duration_s
    carried = scene.ball_start + scene.hand(end_s) - scene.hand(scene.grasp_s)
    for t_s, ball in ((0.0, scene.ball_start), (end_s, carried)):
        np.testing.assert_allclose(places_of(scene, t_s, red=True), scene.project(ball), atol=4)
        hand_px = scene.project(scene.hand(t_s))
        assert np.linalg.norm(places_of(scene, t_s, red=False) - hand_px) < 20


def places_of(scene: PickScene, t_s: float, *, red: bool) -> np.ndarray:
    """[2] mean pixel (u, v) of the red ball, or of the yellow jaws."""
    img = scene.picture(t_s).astype(int)
    is_yellow = (img[..., 0] > 150) & (img[..., 1] > 150) & (img[..., 2] < 100)
    is_red = (img[..., 0] > 150) & (img[..., 1] < 100)
    rows, columns = np.nonzero(is_red if red else is_yellow)
    assert len(rows) >= 4
    return np.array([columns.mean(), rows.mean()])


def test_no_two_scenes_are_alike() -> None:
    layouts = np.array(
        [np.append(pick_scene(s).ball_start, pick_scene(s).hand_start) for s in SEEDS]
    )
    apart = np.linalg.norm(layouts[:, None] - layouts[None], axis=2) + np.eye(len(SEEDS))
    assert apart.min() > 0.02
