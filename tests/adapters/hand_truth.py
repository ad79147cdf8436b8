"""What every test of a hand source asks: are the hands, and the pictures they are seen in, where the scene had them."""

from __future__ import annotations

import numpy as np

from jobs.demo.raw.hand_scene import HandScene
from schemas.camera_model import project
from schemas.episode import Camera, Episode
from schemas.geometry import inverse
from schemas.hand import keypoints21
from schemas.hand_track import WORLD, HandTrack

NEAR_M, NEAR_PX, NEAR_RAD = 1e-6, 1e-3, 1e-6


def assert_hands_are_true(
    episode: Episode,
    scene: HandScene,
    *,
    T_zup_world: np.ndarray | None = None,
    start_s: float = 0.0,
) -> None:
    """Joints, wrists, camera and lens of every present sample against the scene; `start_s` is the scene's time at 0."""
    assert {hand.side for hand in episode.hands} == set(scene.sides)
    T_up = np.eye(4) if T_zup_world is None else T_zup_world
    for hand in episode.hands:
        assert hand.present.any()
        for k in np.flatnonzero(hand.present):
            t_s = start_s + hand.t_ns[k] / 1e9
            T_zup_frame = T_up if hand.frame == WORLD else scene.T_world_cam(t_s)
            _assert_hand(hand, int(k), scene, t_s, inverse(T_zup_frame))
    for camera in episode.cameras:
        _assert_camera(episode, camera, scene, T_up, start_s)


def _assert_hand(
    hand: HandTrack, k: int, scene: HandScene, t_s: float, T_frame_zup: np.ndarray
) -> None:
    R, p = T_frame_zup[:3, :3], T_frame_zup[:3, 3]
    if hand.joints_m is not None:
        points, has = keypoints21(hand.joints_m[k][None], hand.layout)
        truth = scene.joints_world(t_s, hand.side) @ R.T + p
        assert np.abs(points[0] - truth)[has].max() < NEAR_M
    if hand.T_frame_wrist is not None:
        T = scene.T_world_wrist(t_s, hand.side)
        assert np.abs(hand.T_frame_wrist[k, :3, 3] - (R @ T[:3, 3] + p)).max() < NEAR_M
        assert np.abs(hand.T_frame_wrist[k, :3, :3] - R @ T[:3, :3]).max() < NEAR_RAD


def _assert_camera(
    episode: Episode, camera: Camera, scene: HandScene, T_up: np.ndarray, start_s: float
) -> None:
    """A point of the world comes to the pixel where the scene's picture has it."""
    path = episode.stream(f"T_world_cam.{camera.name}")
    assert path is not None
    assert camera.K_cam is not None
    assert camera.K_size == (scene.width, scene.height)
    for k in range(0, len(path.t_ns), 7):
        t_s = start_s + path.t_ns[k] / 1e9
        point = scene.joints_world(t_s, "left")
        T_cam_zup = inverse(T_up @ path.values[k])
        uv, in_front = project(
            point @ T_cam_zup[:3, :3].T + T_cam_zup[:3, 3], camera.K_cam, camera.lens
        )
        assert in_front.all()
        assert np.abs(uv - scene.project(point, t_s)).max() < NEAR_PX
