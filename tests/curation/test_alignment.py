"""Pictures against state: shifts that were put there must be found; and what a moving camera does to it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from ingest.curation.measurements.each import alignment, camera, projection
from jobs.demo.raw.hand_scene import HandScene
from jobs.demo.raw.scene import Scene
from tests.curation.video_corpus import (
    Builder,
    Picture,
    before,
    camera_row,
    encode,
    person,
    robot,
    texture,
    times_s,
    values_of,
)

K = 80
SMALL = {"width": 160, "height": 120}
BOTH_ARMS = {**SMALL, "focal_px": 150.0, "sides": ("left", "right")}
WORN = {**SMALL, "focal_px": 140.0}


def head_background(scene: HandScene, t_s: float) -> Picture:
    """A textured table top, z = 0.85 m in the world, as the head camera sees it."""
    size = 300
    top = texture(5, width=size, height=size, sigma_px=3)
    corners_m = np.array([[0.0, 1.0, 0.85], [0.0, -1.0, 0.85], [2.0, -1.0, 0.85], [2.0, 1.0, 0.85]])
    corners_px = np.float32([[0, 0], [size, 0], [size, size], [0, size]])
    to = cv2.getPerspectiveTransform(corners_px, scene.project(corners_m, t_s).astype(np.float32))
    return np.asarray(cv2.warpPerspective(top, to, (scene.width, scene.height)), dtype=np.uint8)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_shift_of_three_steps_is_found(tmp_path: Path, seed: int) -> None:
    """The state 3 steps early, right, and 3 steps late against the same pictures."""
    scene = Scene(seed=seed, duration_s=12.6, **BOTH_ARMS)
    background = texture(sigma_px=2, **SMALL)
    pictures = [before(scene.picture(t), background) for t in times_s(126)]
    everything = robot(scene, 126)
    for late in (-3, 0, 3):
        shown = encode(tmp_path / f"{late}.mp4", pictures[3 - late : 123 - late])
        cut = Builder(120)
        cut.state = {name: values[3:123] for name, values in everything.state.items()}
        found = values_of(alignment.compute, cut.view({"front": shown}))
        assert found["alignment_lag_s"] == pytest.approx(late / 10, abs=0.1)
        assert found["alignment_correlation"] > 0.6
        if late:
            assert found["alignment_correlation.zero"] < found["alignment_correlation"] - 0.1


@pytest.mark.parametrize("late", [-3, 0, 3])
def test_a_head_camera_with_a_pose_is_seen_through(tmp_path: Path, late: int) -> None:
    scene = HandScene(duration_s=K / 10, **WORN)
    pictures = [before(scene.picture(t), head_background(scene, t)) for t in times_s(K) - late / 10]
    videos = {"head": encode(tmp_path / "head.mp4", pictures)}
    found = values_of(alignment.compute, person(scene, K).view(videos, embodiment="human_hands"))
    assert found["alignment_lag_s"] == pytest.approx(late / 10, abs=0.1)
    assert found["alignment_correlation"] > 0.6


def test_nothing_is_said_where_nothing_can_be(tmp_path: Path) -> None:
    scene = HandScene(duration_s=K / 10, **WORN)
    videos = {"head": encode(tmp_path / "head.mp4", [scene.picture(t) for t in times_s(K)])}
    posed = person(scene, K)
    posed.beside.clear()
    assert values_of(alignment.compute, posed.view(videos, embodiment="human_hands")) == {}
    in_camera = posed.view(videos, embodiment="human_hands", camera_motion_removed=False)
    assert values_of(alignment.compute, in_camera) == {}
    assert values_of(alignment.compute, Builder(K).view(videos)) == {}  # no state
    resting = Builder(K).arm("left", np.tile(np.eye(4), (K, 1, 1)))
    assert values_of(alignment.compute, resting.view(videos)) == {}
    still = {"head": encode(tmp_path / "still.mp4", [scene.picture(0.0)] * K)}
    assert (
        values_of(alignment.compute, robot(Scene(), K).view(still)) == {}
    )  # nothing is seen to move
    short = {"head": encode(tmp_path / "short.mp4", [scene.picture(t) for t in times_s(30)])}
    assert values_of(alignment.compute, robot(Scene(), 30).view(short)) == {}


def test_of_a_blind_and_a_seeing_camera_the_seeing_one_speaks(tmp_path: Path) -> None:
    scene = Scene(duration_s=K / 10, **BOTH_ARMS)
    rng = np.random.default_rng(0)
    jumping = [np.roll(texture(7, **SMALL), int(n), axis=1) for n in rng.integers(0, 9, K)]
    videos = {
        "blind": encode(tmp_path / "blind.mp4", jumping),
        "front": encode(tmp_path / "front.mp4", [scene.picture(t - 0.2) for t in times_s(K)]),
    }
    found = values_of(alignment.compute, robot(scene, K).view(videos))
    assert found["alignment_lag_s"] == pytest.approx(0.2, abs=0.1)


# --- how much a camera moves -----------------------------------------------------------------------------------------


def test_a_static_camera_and_a_head_camera(tmp_path: Path) -> None:
    scene = Scene(duration_s=K / 10, **BOTH_ARMS)
    background = texture(sigma_px=2, **SMALL)
    front = encode(
        tmp_path / "front.mp4", [before(scene.picture(t), background) for t in times_s(K)]
    )
    static = robot(scene, K).camera("front", np.tile(scene.T_base_cam, (K, 1, 1)))
    found = values_of(camera.compute, static.view({"front": front}))
    assert found["camera_moving_share"] == 0.0
    assert found["camera_speed_p95_m_s"] == 0.0
    assert found["camera_energy_share"] < 0.1
    worn = HandScene(duration_s=K / 10, **WORN)
    alone = [head_background(worn, t) for t in times_s(K)]
    head = encode(tmp_path / "head.mp4", alone)
    found = values_of(camera.compute, person(worn, K).view({"head": head}))
    assert found["camera_moving_share"] > 0.8
    assert found["camera_energy_share"] > 0.5
    both = [before(worn.picture(t), picture) for t, picture in zip(times_s(K), alone, strict=True)]
    hands_too = encode(tmp_path / "both.mp4", both)
    less = values_of(camera.compute, person(worn, K).view({"head": hands_too}))
    assert 0.2 < less["camera_energy_share"] < found["camera_energy_share"]


def test_speed_and_turn_of_a_camera_by_hand(tmp_path: Path) -> None:
    """0.3 m/s along x for the third second, 0.5 rad/s about z for the fourth; timestep 25's pose is not known."""
    T = np.tile(np.eye(4), (41, 1, 1))
    T[:, 0, 3] = 0.03 * np.clip(np.arange(41) - 20, 0, 10)
    angle = 0.05 * np.clip(np.arange(41) - 30, 0, 10)
    T[:, 0, 0], T[:, 1, 0], T[:, 0, 1], T[:, 1, 1] = (
        np.cos(angle), np.sin(angle), -np.sin(angle), np.cos(angle)
    )  # fmt: skip
    builder = Builder(41).camera("front", T)
    builder.invalid["camera_pose.front"] = [25]
    video = encode(tmp_path / "x.mp4", [texture(width=64, height=48)] * 41)
    found = {m.name: m for m in camera.compute(builder.view({"front": video}))}
    assert found["camera_moving_share"].value == pytest.approx(18 / 38)
    assert found["camera_moving_share"].denominator == 38
    assert found["camera_speed_p95_m_s"].value == pytest.approx(0.3)
    assert found["camera_turn_p95_rad_s"].value == pytest.approx(0.5)


# --- does the camera see the hand ------------------------------------------------------------------------------------


def test_the_hands_of_the_scenes_are_in_the_picture() -> None:
    scene = Scene(sides=("left", "right"))
    static = robot(scene, 20).camera("front", np.tile(scene.T_base_cam, (20, 1, 1)))
    found = values_of(projection.compute, static.view(cameras=[camera_row("front", scene)]))
    assert found == {
        "eef_in_image_share": 1.0,
        "eef_in_image_share.left": 1.0,
        "eef_in_image_share.right": 1.0,
    }
    worn = HandScene()
    view = person(worn, 20).view(cameras=[camera_row("head", worn)])
    assert values_of(projection.compute, view)["eef_in_image_share"] == 1.0


def posed_points(places: list[list[float]]) -> Builder:
    """The left hand at these places of a camera that stands at the origin."""
    T = np.tile(np.eye(4), (len(places), 1, 1))
    T[:, :3, 3] = places
    return (
        Builder(len(places)).arm("left", T).camera("cam", np.tile(np.eye(4), (len(places), 1, 1)))
    )


def test_the_edges_of_the_picture_and_what_is_behind() -> None:
    """f = 100, centre (49.5, 39.5), 100 x 80: at 1 m depth the picture ends at x = 0.5 m and y = 0.4 m."""
    K_cam = [100.0, 0.0, 49.5, 0.0, 100.0, 39.5, 0.0, 0.0, 1.0]
    row = camera_row("cam") | {
        "width": 100, "height": 80, "K_cam": K_cam, "lens_model": "pinhole", "lens_params": [],
    }  # fmt: skip
    places = [
        [0.499, 0, 1],
        [0.501, 0, 1],
        [0, -0.399, 1],
        [0, 0.401, 1],
        [0, 0, -1],
        [-0.499, 0, 1],
    ]
    builder = posed_points(places)
    assert values_of(projection.compute, builder.view(cameras=[row]))["eef_in_image_share"] == 0.5
    builder.invalid["left.position_m"] = [0, 2]
    builder.invalid["camera_pose.cam"] = [1]
    found = next(iter(projection.compute(builder.view(cameras=[row]))))
    assert (found.value, found.denominator) == (pytest.approx(1 / 3), 3)
    assert values_of(projection.compute, posed_points([[0, 0, 0]]).view(cameras=[row])) == {
        "eef_in_image_share": 0.0,
        "eef_in_image_share.left": 0.0,
    }
    blind = row | {"name": "blind", "K_cam": None}
    assert values_of(projection.compute, builder.view(cameras=[blind])) == {}
    away = row | {"width": 10, "height": 10}
    builder.beside["camera_pose.away"] = builder.beside["camera_pose.cam"]
    both = builder.view(cameras=[away | {"name": "away"}, row])
    assert values_of(projection.compute, both)["eef_in_image_share"] == pytest.approx(1 / 3)


def test_a_lens_that_folds_back_shows_nothing_beyond_its_edge() -> None:
    """k1 = -0.3: r (1 - 0.3 r^2) grows up to r = 1.054 and is 0.35 again at r = 1.6, which is outside of the glass."""
    row = camera_row("cam") | {
        "K_cam": [100.0, 0.0, 159.5, 0.0, 100.0, 119.5, 0.0, 0.0, 1.0],
        "lens_model": "opencv",
        "lens_params": [-0.3, 0.0, 0.0, 0.0],
    }
    view = posed_points([[1.0, 0, 1], [1.6, 0, 1]]).view(cameras=[row])
    assert values_of(projection.compute, view)["eef_in_image_share"] == 0.5


def test_a_hand_that_stays_in_its_only_camera() -> None:
    scene = Scene()
    builder = posed_points([[0, 0, 1.0], [2.0, 0, 1.0]])
    builder.beside.clear()
    row = camera_row("cam", scene)
    in_camera = builder.view(cameras=[row], camera_motion_removed=False)
    assert values_of(projection.compute, in_camera)["eef_in_image_share"] == 0.5
    assert values_of(projection.compute, builder.view(cameras=[row])) == {}
    two = builder.view(cameras=[row, row | {"name": "other"}], camera_motion_removed=False)
    assert values_of(projection.compute, two) == {}
