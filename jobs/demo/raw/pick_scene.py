"""A hand picks up a red ball: a motion that the picture tells, so that a policy which looks can know more than the last motion.

The hand goes straight at the ball, at a steady speed and then slower, as a clipped proportional controller does. There it closes its jaws and carries
the ball to one place above the table. When it slows down, stops and turns back depends on where the ball is, which only the picture shows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from jobs.demo.raw.scene import Scene, rigid_transform, rot_y, rot_z

SPEED_M_S = 0.15
GAIN_PER_S = (
    3.0  # of the controller; nearer to its target than SPEED_M_S / GAIN_PER_S the hand slows down
)
NEAR_M = 0.01  # of a target: the hand is there
CLOSING_S = 0.2
HOLD_M = np.array([0.45, 0.0, 0.22])  # where the ball is carried to
BALL_M = 0.025  # radius
# Powers of 1 / r, r^7 = r + 1: their multiples modulo 1 fill a cube of six dimensions evenly (Roberts 2018, a Kronecker sequence)
STRIDES = 1.1127756842787055 ** -np.arange(1.0, 7.0)


@dataclass(frozen=True)
class PickScene(Scene):
    """One demonstration; see `pick_scene`."""

    width: int = 96
    height: int = 72
    focal_px: float = 150.0

    @property
    def ball_start(self) -> np.ndarray:
        """[3] centre of the ball on the table, in base."""
        return self._between([0.36, -0.16, BALL_M], [0.54, 0.16, BALL_M], part=slice(0, 3))

    @property
    def hand_start(self) -> np.ndarray:
        """[3] where the hand is at the beginning, in base."""
        return self._between([0.38, -0.15, 0.18], [0.52, 0.15, 0.30], part=slice(3, 6))

    def _between(self, low: list[float], high: list[float], *, part: slice) -> np.ndarray:
        share = np.mod(0.5 + self.seed * STRIDES[part], 1.0)
        return np.asarray(low) + share * (np.asarray(high) - low)

    @property
    def grasp_s(self) -> float:
        """When the hand is at the ball."""
        return time_to(NEAR_M, distance(self.hand_start, self.ball_start))

    @property
    def end_s(self) -> float:
        """When the hand is where it carries the ball."""
        grasp = self.hand(self.grasp_s)
        return self.grasp_s + CLOSING_S + time_to(NEAR_M, distance(grasp, HOLD_M))

    def hand(self, t_s: float) -> np.ndarray:
        """[3] position of the hand, in base."""
        grasp = moved(self.hand_start, self.ball_start, min(t_s, self.grasp_s))
        return moved(grasp, HOLD_M, max(0.0, t_s - self.grasp_s - CLOSING_S))

    def T_base_hand(self, t_s: float, side: str = "left") -> np.ndarray:
        """[4, 4] pose of the hand: pointing down, turned a little by how far it is to the side."""
        p = self.hand(t_s)
        return rigid_transform(rot_z(1.5 * p[1]) @ rot_y(np.pi / 2 - 0.4), p)

    def gripper_opening(self, t_s: float) -> float:
        """1 open, 0 closed: closes at the ball."""
        return float(np.clip(1 - (t_s - self.grasp_s) / CLOSING_S, 0.0, 1.0))

    def picture(self, t_s: float) -> np.ndarray:
        """[H, W, 3] uint8 RGB: the ball on the table or between the jaws, and the hand as in `Scene`."""
        img = np.full((self.height, self.width, 3), (70, 90, 80), np.uint8)
        carried = self.hand(max(t_s, self.grasp_s)) - self.hand(self.grasp_s)
        centre = self.ball_start + carried
        radius_px = self.focal_px * BALL_M / distance(centre, self.T_base_cam[:3, 3])
        u, v = np.round(self.project(centre)).astype(int)
        cv2.circle(img, (int(u), int(v)), round(radius_px), (220, 40, 40), -1)
        self._draw_hand(img, t_s)
        return img


def pick_scene(seed: int) -> PickScene:
    """Ends where its hand ends. `seed` places the ball and the hand."""
    scene = PickScene(seed=seed)
    return replace(scene, duration_s=round(scene.end_s, 1))


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b))


def moved(start: np.ndarray, target: np.ndarray, t_s: float) -> np.ndarray:
    """[3] position after `t_s` on the straight way from `start` to `target`."""
    length = distance(start, target)
    return np.asarray(target + (start - target) * distance_left(t_s, length) / length)


def distance_left(t_s: float, start_m: float) -> float:
    """To the target after `t_s` of a clipped proportional controller: dx/dt = -min(GAIN x, SPEED)."""
    slow_m = SPEED_M_S / GAIN_PER_S
    steady_s = max(0.0, start_m - slow_m) / SPEED_M_S
    if t_s <= steady_s:
        return start_m - SPEED_M_S * t_s
    return min(start_m, slow_m) * float(np.exp(-GAIN_PER_S * (t_s - steady_s)))


def time_to(end_m: float, start_m: float) -> float:
    """Seconds until that controller is `end_m` from its target, both above 0 and `end_m` below its slow part."""
    slow_m = SPEED_M_S / GAIN_PER_S
    steady_s = max(0.0, start_m - slow_m) / SPEED_M_S
    return steady_s + max(0.0, float(np.log(min(start_m, slow_m) / end_m)) / GAIN_PER_S)
