"""How sure each convention of an InternData-A1 episode is. Everything is by the engine's code: no real episode was at hand."""

from __future__ import annotations

from adapters.interndata_a1_raw.robots import InternDataRobot
from schemas.fact import Certainty, Fact, fact

ENGINE = "InternRobotics/InternDataEngine"
LOGGER = f"{ENGINE}:workflows/simbox/core/loggers"
CONVERTER = f"{ENGINE}:policy/lmdb2lerobotv21"


def facts_of(robot: InternDataRobot, robot_source: str, *, has_poses: bool) -> list[Fact]:
    code = Certainty.CODE
    is_single = "" in robot.joints
    scale = f"{robot.open_at:g} is open"
    facts = [
        fact("rate", "30 Hz; no clock is stored", code, CONVERTER, for_actions=True),
        fact("embodiment", robot.embodiment, code, robot_source, for_actions=True),
        fact("joint_unit", "radians", code, CONVERTER, for_actions=True),
        fact("gripper_polarity", "openness: 1 open, 0 closed", code, LOGGER, for_actions=True),
        # A wrong scale shifts the opening by a constant factor; which end is open stays right.
        fact("gripper_scale", scale, robot.scale_certainty, f"{ENGINE}:{robot.scale_source}"),
        fact("action_kind", "master_actions: absolute targets", code, LOGGER, for_actions=True),
        fact("colour", "red and blue swapped by the encoder, swapped back", code, LOGGER),
        fact("camera_axes", "OpenGL, turned to OpenCV", code, CONVERTER),
        fact("is_simulation", "True", Certainty.DOCUMENTED, f"{ENGINE}:README.md"),
    ]
    if has_poses:
        form = "euler extrinsic xyz, rad" if is_single else "4x4 matrix"
        where = "panda_link8 in panda_link0" if is_single else "ee link, moved to the robot's base"
        facts += [
            fact("eef_rotation_form", form, code, f"{ENGINE}:core/utils", for_actions=True),
            fact("eef_frame", where, code, f"{ENGINE}:core/robots; {CONVERTER}", for_actions=True),
        ]
    return facts
