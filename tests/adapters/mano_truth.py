"""What MANO parameters mean, by what their `ManoPose` says of them: an oracle in NumPy on the generated model, without torch."""

from __future__ import annotations

import numpy as np

from benchmarks.raw.mano_model import finger_rotvec, made_model
from jobs.demo.raw.hand_scene import HandScene
from schemas.camera_model import project
from schemas.episode import Episode
from schemas.geometry import inverse, transform
from schemas.hand_track import WORLD, HandTrack

NEAR, NEAR_PX = 2e-6, 0.01  # float32 and texts of eight decimals


def wrist_and_fingers(hand: HandTrack) -> tuple[np.ndarray, np.ndarray]:
    """[N, 4, 4] the wrist in the track's frame, [N, 45] rad the fingers about a flat hand."""
    pose, model = hand.mano, made_model(hand.side)
    assert pose is not None
    assert pose.hand_axis_angle_rad is not None
    assert pose.model == "own"
    is_official = hand.side == "left" and not pose.has_shapedirs_fix
    shape = model.shapedirs @ pose.betas * ([-1.0, 1.0, 1.0] if is_official else 1.0)
    J0 = (model.J_regressor @ (model.v_template + shape))[0]
    wrist_m = pose.trans_m + (J0 if pose.trans_is == "smplx_transl" else 0.0)
    mean = 0.0 if pose.is_flat_hand_mean else model.hands_mean
    return transform(pose.global_orient, wrist_m), pose.hand_axis_angle_rad + mean


def assert_hands_are_true(episode: Episode, scene: HandScene) -> None:
    """Wrist and fingers of every present sample, in the world through the camera's pose where they are in the camera."""
    assert {hand.side for hand in episode.hands} == set(scene.sides)
    for hand in episode.hands:
        assert hand.present.any()
        T_frame_wrist, fingers = wrist_and_fingers(hand)
        for k in np.flatnonzero(hand.present):
            t_s = hand.t_ns[k] / 1e9
            T_world_frame = np.eye(4) if hand.frame == WORLD else _pose(episode, hand.frame, k)
            T = T_world_frame @ T_frame_wrist[k]
            np.testing.assert_allclose(T, scene.T_world_wrist(t_s, hand.side), atol=NEAR)
            truth = finger_rotvec(scene, t_s, hand.side).reshape(45)
            np.testing.assert_allclose(fingers[k], truth, atol=NEAR)


def assert_pixels_are_true(episode: Episode, scene: HandScene, scale: float) -> None:
    """A point of the world, through the camera's pose and K, comes where the scene's picture, `scale` times as big, has it."""
    (camera,) = episode.cameras
    assert camera.K_cam is not None
    path = episode.stream(f"T_world_cam.{camera.name}")
    assert path is not None
    for k in range(0, len(path.t_ns), 7):
        t_s = path.t_ns[k] / 1e9
        point = scene.joints_world(t_s, "right")
        T = inverse(path.values[k])
        uv, in_front = project(point @ T[:3, :3].T + T[:3, 3], camera.K_cam)
        assert in_front.all()
        truth = (scene.project(point, t_s) + 0.5) * scale - 0.5
        np.testing.assert_allclose(uv, truth, atol=NEAR_PX)


def _pose(episode: Episode, camera: str, k: int) -> np.ndarray:
    path = episode.stream(f"T_world_cam.{camera}")
    assert path is not None
    return np.asarray(path.values[k])
