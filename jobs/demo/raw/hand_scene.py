"""A person's hands before a moving head camera, with exact ground truth: the twin of `scene.Scene` for human sources.

The maths is written out on purpose (no import from the packages): it is the oracle. Frames: `world` x forward, y left, z up,
metres, gravity-aligned. `wrist` has MANO's axes: right fingers -x, left fingers +x, palm -y, thumb side +z. Camera: OpenCV.
The palm is exactly the MANO palm template of the format page, so that the wrist frame by palm fit is the true one.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from jobs.demo.raw.scene import rigid_transform, rot_y, rot_z

# Right hand, zero pose, wrist frame, metres: wrist, thumb CMC, index, middle, ring, pinky MCP (microsoft/VITRA's subject).
PALM_RIGHT = {
    0: [0.0, 0.0, 0.0],
    1: [-0.0257, -0.0179, 0.0263],
    5: [-0.0924, -0.0047, 0.0223],
    9: [-0.0991, -0.0012, -0.0033],
    13: [-0.0848, -0.0044, -0.0284],
    17: [-0.0717, -0.0112, -0.0460],
}
FINGERS = {
    5: (0.034, 0.023, 0.022),
    9: (0.037, 0.025, 0.024),
    13: (0.034, 0.024, 0.023),
    17: (0.027, 0.019, 0.020),
}
THUMB = (0.040, 0.034, 0.028)
BONES = [
    (a, b)
    for f in (1, 5, 9, 13, 17)
    for a, b in zip((0, f, f + 1, f + 2), (f, f + 1, f + 2, f + 3), strict=True)
]
LEFT_OF_RIGHT = np.array([-1.0, 1.0, 1.0])


def bent_hand(curl_rad: float, side: str = "right") -> np.ndarray:
    """[21, 3] points in the wrist frame of a hand whose finger joints are bent by `curl_rad`; 0 is the flat hand."""
    points = np.zeros((21, 3))
    for index, place in PALM_RIGHT.items():
        points[index] = place
    for first, lengths in FINGERS.items():
        at, turn = points[first], np.eye(3)
        for k, length in enumerate(lengths):
            turn = turn @ rot_z(curl_rad if k else 0.5 * curl_rad)  # -x toward -y: toward the palm
            at = at + turn @ np.array([-length, 0.0, 0.0])
            points[first + 1 + k] = at
    at, direction = points[1], np.array([-0.75, -0.25, 0.61])
    direction = direction / np.linalg.norm(direction)
    for k, length in enumerate(THUMB):
        at = at + rot_y(-0.3 * k * curl_rad) @ direction * length
        points[2 + k] = at
    return points if side == "right" else points * LEFT_OF_RIGHT


@dataclass(frozen=True)
class HandScene:
    """One recording. Times are float seconds from its start; all functions are exact at any time."""

    seed: int = 0
    duration_s: float = 2.0
    sides: tuple[str, ...] = ("left", "right")
    width: int = 320
    height: int = 240
    focal_px: float = 280.0

    def curl_rad(self, t_s: float, side: str) -> float:
        """How far every finger joint but the first is bent, which has half of it."""
        phase = 0.7 * self.seed + (0.4 if side == "left" else 0.0)
        return float(np.deg2rad(22.0 + 12.0 * np.sin(1.5 * t_s + phase)))

    def joints_wrist(self, t_s: float, side: str = "right") -> np.ndarray:
        """[21, 3] points in the wrist frame, metres; fingers curl toward the palm by 10 to 35 degrees a joint."""
        return bent_hand(self.curl_rad(t_s, side), side)

    def T_world_wrist(self, t_s: float, side: str = "right") -> np.ndarray:
        """[4, 4]; the fingers point forward and up, palm down; about 0.15 m/s and 0.5 rad/s."""
        phase = 0.7 * self.seed + (1.0 if side == "left" else 0.0)
        sign = 1.0 if side == "left" else -1.0
        p = [
            0.42 + 0.06 * np.sin(0.9 * t_s + phase),
            sign * 0.11 + 0.04 * np.cos(1.1 * t_s + phase),
            1.05 + 0.05 * np.sin(1.3 * t_s + phase),
        ]
        # Columns: where the wrist's x, y, z point at rest. The back of the hand (+y) is up, the fingers are forward.
        R0 = (
            np.array(
                [[-1, 0, 0], [0, 0, 1], [0, 1, 0]]
            )  # right: -x forward, +y up, +z left (thumb)
            if side == "right"
            else np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]])  # left: +x forward, +y up, +z right
        )
        R = rot_z(0.3 * np.sin(0.8 * t_s + phase)) @ rot_y(-0.5 + 0.15 * np.sin(t_s)) @ R0
        return rigid_transform(R.astype(float), p)

    def T_base_hand(self, t_s: float, side: str = "right") -> np.ndarray:
        """[4, 4] hand_xfz: x out along the fingers, z toward the thumb, origin 0.13 m from the wrist."""
        if side == "left":  # fingers +x and thumb +z already
            return np.asarray(
                self.T_world_wrist(t_s, side) @ rigid_transform(np.eye(3), [0.13, 0, 0])
            )
        T_wrist_hand = rigid_transform(np.diag([-1.0, -1.0, 1.0]), [-0.13, 0, 0])
        return np.asarray(self.T_world_wrist(t_s, side) @ T_wrist_hand)

    def joints_world(self, t_s: float, side: str = "right") -> np.ndarray:
        """[21, 3] points in the world."""
        T = self.T_world_wrist(t_s, side)
        return np.asarray(self.joints_wrist(t_s, side) @ T[:3, :3].T + T[:3, 3])

    def T_world_cam(self, t_s: float) -> np.ndarray:
        """[4, 4] the head camera: it looks forward and down at the hands, and sways by centimetres and degrees."""
        eye = np.array(
            [
                0.02 * np.sin(1.7 * t_s),
                0.03 * np.sin(0.9 * t_s + 0.3),
                1.5 + 0.01 * np.sin(2.1 * t_s),
            ]
        )
        yaw, pitch = 0.08 * np.sin(1.2 * t_s), 0.75 + 0.06 * np.sin(1.6 * t_s)
        # OpenCV axes of a level camera that looks along world x: x right = -y, y down = -z, z forward = x
        level = np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]])
        return rigid_transform(rot_z(yaw) @ rot_y(pitch) @ level, eye)

    @property
    def K_cam(self) -> np.ndarray:
        f = self.focal_px
        return np.array([[f, 0, (self.width - 1) / 2], [0, f, (self.height - 1) / 2], [0, 0, 1]])

    def in_cam(self, p_world: np.ndarray, t_s: float) -> np.ndarray:
        """[..., 3] world points in the camera at `t_s`."""
        T = self.T_world_cam(t_s)
        return np.asarray((np.asarray(p_world) - T[:3, 3]) @ T[:3, :3])

    def project(self, p_world: np.ndarray, t_s: float) -> np.ndarray:
        """[..., 3] world points to [..., 2] pixels."""
        uvw = self.in_cam(p_world, t_s) @ self.K_cam.T
        return np.asarray(uvw[..., :2] / uvw[..., 2:])

    def picture(self, t_s: float) -> np.ndarray:
        """[H, W, 3] uint8 RGB: a table with two boxes that stay in the world, and each hand as its bones."""
        img = np.full((self.height, self.width, 3), (70, 90, 80), np.uint8)
        for centre, colour in (
            ([0.55, 0.1, 0.9], (200, 40, 40)),
            ([0.5, -0.15, 0.9], (40, 60, 200)),
        ):
            offsets = 0.03 * np.array(
                [[i, j, k] for i in (-1, 1) for j in (-1, 1) for k in (-1, 1)]
            )
            corners = self.project(np.array(centre) + offsets, t_s)
            cv2.fillConvexPoly(img, cv2.convexHull(np.round(corners).astype(np.int32)), colour)
        for side in self.sides:
            uv = np.round(self.project(self.joints_world(t_s, side), t_s)).astype(int)
            for a, b in BONES:
                cv2.line(img, tuple(map(int, uv[a])), tuple(map(int, uv[b])), (230, 190, 160), 4)
        return img
