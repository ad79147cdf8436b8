"""The two robots of Humanoid Everyday: names of their joints in the order of the file, and the camera's intrinsics.

Orders and intrinsics: README of `physical-superintelligence-lab/Humanoid-Everyday` ("Data Schema", "Camera Intrinsics"), agreeing
with `unitreerobotics/xr_teleoperate:teleop/robot_control/robot_arm.py` (G1_29_JointIndex, H1_2_JointIndex). G1 elements carry the
joint names of `xr_teleoperate:assets/g1/g1_body29_hand14.urdf`. Those of H1_2 carry the README's: in `assets/h1_2/h1_2.urdf` the
README's elbow and wrist roll are called left_elbow_pitch_joint and left_elbow_roll_joint. UNVERIFIED: the fingers of the RIGHT Dex3
hand, middle before index in the README, index before middle in `xr_teleoperate:teleop/robot_control/robot_hand_unitree.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from schemas.episode import SIDES
from schemas.geometry import Array

_ARM = (
    "shoulder_pitch",
    "shoulder_roll",
    "shoulder_yaw",
    "elbow",
    "wrist_roll",
    "wrist_pitch",
    "wrist_yaw",
)
_DEX3 = ("thumb_0", "thumb_1", "thumb_2", "middle_0", "middle_1", "index_0", "index_1")
_INSPIRE = ("pinky", "ring", "middle", "index", "thumb_bend", "thumb_rotation")
_LEG_G1 = ("hip_pitch", "hip_roll", "hip_yaw", "knee", "ankle_pitch", "ankle_roll")
_LEG_H1 = ("hip_yaw", "hip_roll", "hip_pitch", "knee", "ankle", "ankle_roll")
CALIBRATED_PX = (640, 480)


@dataclass(frozen=True, slots=True, kw_only=True)
class HumanoidRobot:
    """`hand` joints are radians for Dex3; the unit of Inspire's state is not documented."""

    embodiment: str
    arm: tuple[str, ...]  # 14, left then right
    leg: tuple[str, ...]  # both legs, then the waist
    hand: tuple[str, ...]  # left then right
    has_hand_radians: bool
    fx_fy_cx_cy_px: tuple[float, float, float, float]

    def intrinsics(self, size_px: tuple[int, int]) -> tuple[Array | None, tuple[int, int] | None]:
        """K [3, 3] and its picture size; none for a size that was not calibrated."""
        if size_px != CALIBRATED_PX:
            return None, None
        fx, fy, cx, cy = self.fx_fy_cx_cy_px
        return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]]), size_px


def _both(template: str, parts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(template.format(side=side, part=part) for side in SIDES for part in parts)


G1 = HumanoidRobot(
    embodiment="unitree_g1",
    arm=_both("{side}_{part}_joint", _ARM),
    leg=(
        *_both("{side}_{part}_joint", _LEG_G1),
        "waist_yaw_joint",
        "waist_roll_joint",
        "waist_pitch_joint",
    ),
    hand=_both("{side}_hand_{part}_joint", _DEX3),
    has_hand_radians=True,
    fx_fy_cx_cy_px=(606.2996826171875, 606.292236328125, 330.7660217285156, 252.64605712890625),
)
H1_2 = HumanoidRobot(
    embodiment="unitree_h1_2_inspire",
    arm=_both("{side}_{part}", _ARM),
    leg=(*_both("{side}_{part}", _LEG_H1), "waist_yaw"),
    hand=_both("{side}_{part}", _INSPIRE),
    has_hand_radians=False,
    fx_fy_cx_cy_px=(606.8150634765625, 606.3350219726562, 321.4926452636719, 247.55596923828125),
)
