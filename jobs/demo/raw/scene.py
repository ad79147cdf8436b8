"""A small kinematic scene with exact ground truth: a hand that moves analytically, seen by a known camera.

Every generator of raw data draws from it, so that a test can ask at ANY instant where the hand really was. The maths
here is written out on purpose (no import from the packages): it is the oracle.

Frames: `base` x forward, y left, z up, metres. `hand` is the canonical hand_xfz. Camera: OpenCV optical axes, looking
at the table from in front and above.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np


def rot_x(a: float) -> np.ndarray:
    return np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])


def rot_y(a: float) -> np.ndarray:
    return np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])


def rot_z(a: float) -> np.ndarray:
    return np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])


def rigid_transform(R: np.ndarray, p: np.ndarray | list[float]) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3] = R
    T[:3, 3] = p
    return T


@dataclass(frozen=True)
class Scene:
    """One demonstration. Times are float seconds from its start; all functions are exact at any time."""

    seed: int = 0
    duration_s: float = 2.0
    sides: tuple[str, ...] = ("left",)
    width: int = 320
    height: int = 240
    focal_px: float = 300.0

    def T_base_hand(self, t_s: float, side: str = "left") -> np.ndarray:
        """[4, 4] pose of the hand: pointing down, drifting forward while swaying; about 0.1 m/s, 0.5 rad/s."""
        phase = 0.7 * self.seed
        y0 = 0.15 if side == "left" else -0.15
        p = [
            0.45 + 0.08 * np.sin(0.9 * t_s + phase),
            y0 + 0.06 * np.cos(1.1 * t_s + phase),
            0.30 + 0.05 * np.sin(1.3 * t_s),
        ]
        R = (
            rot_z(0.3 * np.sin(0.8 * t_s + phase))
            @ rot_y(np.pi / 2 - 0.4)
            @ rot_x(0.2 * np.sin(t_s))
        )
        return rigid_transform(R, p)

    def gripper_opening(self, t_s: float) -> float:
        """1 open, 0 closed: open, closes in the middle third, opens again; linear ramps of 0.2 s."""
        third = self.duration_s / 3
        return float(np.interp(t_s, [third, third + 0.2, 2 * third, 2 * third + 0.2], [1, 0, 0, 1]))

    @property
    def K_cam(self) -> np.ndarray:
        return np.array(
            [
                [self.focal_px, 0, (self.width - 1) / 2],
                [0, self.focal_px, (self.height - 1) / 2],
                [0, 0, 1],
            ]
        )

    @property
    def T_base_cam(self) -> np.ndarray:
        """Camera 1.2 m in front of the base at 0.7 m height, looking back and down at (0.45, 0, 0.2)."""
        eye, target = np.array([1.3, 0.0, 0.7]), np.array([0.45, 0.0, 0.2])
        z = (target - eye) / np.linalg.norm(target - eye)
        x = np.cross(z, [0, 0, 1.0])
        x /= np.linalg.norm(x)
        return rigid_transform(np.stack([x, np.cross(z, x), z], axis=1), eye)

    def project(self, p_base: np.ndarray) -> np.ndarray:
        """[..., 3] points in base to [..., 2] pixels."""
        R, eye = self.T_base_cam[:3, :3], self.T_base_cam[:3, 3]
        p_cam = (np.asarray(p_base) - eye) @ R
        uvw = p_cam @ self.K_cam.T
        return np.asarray(uvw[..., :2] / uvw[..., 2:])

    def picture(self, t_s: float) -> np.ndarray:
        """[H, W, 3] uint8 RGB: a red and a blue box on a table, each hand as two yellow jaws and an axis stub."""
        img = np.full((self.height, self.width, 3), (70, 90, 80), np.uint8)
        for centre, colour in (
            ([0.5, 0.12, 0.03], (200, 40, 40)),
            ([0.4, -0.15, 0.03], (40, 60, 200)),
        ):
            corners = np.array(
                [
                    np.array(centre) + 0.03 * np.array([i, j, k])
                    for i in (-1, 1)
                    for j in (-1, 1)
                    for k in (-1, 1)
                ]
            )
            hull = cv2.convexHull(np.round(self.project(corners)).astype(np.int32))
            cv2.fillConvexPoly(img, hull, colour)
        self._draw_hand(img, t_s)
        return img

    def _draw_hand(self, img: np.ndarray, t_s: float) -> None:
        for side in self.sides:
            T = self.T_base_hand(t_s, side)
            opening = 0.01 + 0.04 * self.gripper_opening(t_s)
            for sign in (-1, 1):
                jaw = np.array([[-0.08, sign * opening, 0, 1], [0, sign * opening, 0, 1]])
                a, b = np.round(self.project((jaw @ T.T)[:, :3])).astype(int)
                cv2.line(img, tuple(map(int, a)), tuple(map(int, b)), (230, 210, 40), 3)
            stub = np.array([[0, 0, 0, 1], [0, 0, 0.05, 1]])
            a, b = np.round(self.project((stub @ T.T)[:, :3])).astype(int)
            cv2.line(img, tuple(map(int, a)), tuple(map(int, b)), (240, 240, 240), 1)
