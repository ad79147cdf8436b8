"""The robots of InternData-A1: which joints their columns hold, how wide their grippers open, where the arms stand.

All from `InternRobotics/InternDataEngine`: joint names and order `workflows/simbox/core/controllers/*_controller.py`, widths and
links `workflows/simbox/core/configs/robots/*.yaml`, stored gripper positions `core/robots/*.py` (twice the finger's travel), arm
bases `policy/lmdb2lerobotv21/*`. tcp2ee there: franka +z 0.095 m from panda_hand, robotiq +z 0.145 from panda_link8, genie1 +z 0.22,
lift2 +x 0.16157, split_aloha +z 0.135; the registry of embodiments holds what the corpus uses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from schemas.fact import Certainty
from schemas.geometry import Array, transform

PANDA = tuple(f"panda_joint{k}" for k in range(1, 8))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class InternDataRobot:
    """`joints` by prefix of the key ("" for a single arm, which is `left`); `open_at` is the gripper position that is open.

    `T_robot_arm` by prefix: the arm's own base in the robot's; None where the robot's body moves it.
    """

    embodiment: str
    joints: Mapping[str, tuple[str, ...]]
    open_at: float
    T_robot_arm: Mapping[str, Array] | None = None
    has_binary_state: bool = False
    scale_certainty: Certainty = Certainty.CODE
    scale_source: str = "workflows/simbox/core/configs/robots: gripper_max_width"

    def side(self, prefix: str) -> str:
        return prefix.rstrip("_") or "left"


def _dual(
    left: str, right: str, count: int, first: tuple[int, int] = (0, 0)
) -> dict[str, tuple[str, ...]]:
    """Names by pattern; `{i}` is Genie's running index."""
    return {
        f"{side}_": tuple(pattern.format(k=k, i=start + k) for k in range(1, count + 1))
        for side, pattern, start in zip(("left", "right"), (left, right), first, strict=True)
    }


def _level(left_xyz_m: list[float], right_xyz_m: list[float]) -> dict[str, Array]:
    return {"left_": transform(np.eye(3), left_xyz_m), "right_": transform(np.eye(3), right_xyz_m)}


ROBOTS = {
    "franka": InternDataRobot(embodiment="panda_link8", joints={"": PANDA}, open_at=0.08),
    "frankarobotiq": InternDataRobot(
        embodiment="interndata_franka_robotiq",
        joints={"": PANDA},
        open_at=1.0,
        has_binary_state=True,
        scale_source="workflows/simbox/core/robots/franka_robotiq85.py: 1 open, 0 closed",
    ),
    "lift2": InternDataRobot(
        embodiment="interndata_lift2_arx",
        joints=_dual("fl_joint{k}", "fr_joint{k}", 6),
        open_at=0.088,
        T_robot_arm=_level(
            [0.163030156, 0.248420062, 0.694000185], [0.163030139, -0.248420087, 0.694000185]
        ),
    ),
    "split_aloha": InternDataRobot(
        embodiment="agilex_piper",
        joints=_dual("fl_joint{k}", "fr_joint{k}", 6),
        open_at=0.10,
        T_robot_arm=_level(
            [0.3684792, 0.30600064, 0.65270409], [0.36847978, -0.30599953, 0.65270409]
        ),
    ),
    "genie1": InternDataRobot(
        embodiment="interndata_genie1",
        joints=_dual("idx{i}_arm_l_joint{k}", "idx{i}_arm_r_joint{k}", 7, (20, 60)),
        open_at=2.0,
        # Its gripper is told 1.0 to open and 0.0 to close, and positions are stored twofold: where it stops, nobody says.
        scale_certainty=Certainty.INFERRED,
        scale_source="workflows/simbox/core/controllers/genie1_controller.py",
    ),
}
# Genie's arms stand on a body that is raised and pitched; by how much, the converter knows from the episode's name.
GENIE_BODY: dict[str, tuple[float, list[float]]] = {  # sine of the pitch, position in metres
    "00": (0.47942330, [0.277224123, 0.0, 1.29616246]),
    "2025": (0.58914289, [0.310688674, 0.0, 1.21495271]),
}


def T_robot_arm_of(robot: InternDataRobot, prefix: str, episode_name: str) -> Array | None:
    """[4, 4] the arm's base in the robot's; None if unknown (a Genie episode with a different kind of name)."""
    if prefix == "":
        return np.eye(4)  # armbase_to_robot_pose of both Franka converters
    if robot.T_robot_arm is not None:
        return robot.T_robot_arm[prefix]
    for start, (sine, xyz_m) in GENIE_BODY.items():
        if episode_name.startswith(start):
            cosine = float(np.sqrt(1 - sine**2))
            R = [[cosine, 0.0, sine], [0.0, 1.0, 0.0], [-sine, 0.0, cosine]]
            return transform(R, xyz_m)
    return None


def robot_in(words: list[str]) -> str:
    """The key of ROBOTS that a folder name holds, as the engine's own code looks for it; "" for none."""
    for word in (w.lower() for w in words):
        for name, marks in (
            ("split_aloha", ("split_aloha", "splitaloha")),
            ("lift2", ("lift2",)),
            ("genie1", ("genie",)),
            ("frankarobotiq", ("robotiq",)),
            ("franka", ("franka", "fr3")),
        ):
            if any(mark in word for mark in marks):
                return name
    return ""
