"""How sure each convention of RH20T's robot scenes is."""

from __future__ import annotations

from adapters.rh20t.calibration import Calibration
from adapters.rh20t.configurations import Configuration
from adapters.rh20t.npy import StampedSamples
from schemas.fact import Certainty, Fact, fact

REPO = "rh20t/rh20t_api"
LEARNER = "rh20t/act_baseline:dataset/rh20t.py"


def motion_facts(number: int, setup: Configuration, joints: StampedSamples | str) -> list[Fact]:
    """Of the arm and its gripper; `joints` is the reason where there are none."""
    frame = f"inv(align_mat_base) T align_mat_tcp of configuration {number}"
    scale = f"width mm / {setup.max_width_mm:g}"
    configs = f"{REPO}:configs/configs.json"
    facts = [
        fact("robot", f"{setup.robot} with {setup.gripper}", Certainty.CODE, configs),
        _action(
            "rate",
            "about 10 Hz; the recorded milliseconds",
            Certainty.CODE,
            f"{REPO}:rh20t_api/scene.py",
        ),
        _action("eef_rotation_form", "quaternion wxyz", Certainty.DOCUMENTED, f"{REPO} issue 28"),
        _action("eef_frame", frame, Certainty.CODE, f"{REPO}:rh20t_api/online.py"),
        _action("gripper_polarity", "wide is open", Certainty.DOCUMENTED, f"{REPO} issue 9"),
        _action(
            "command_timing",
            "the command at a picture's stamp is due at it",
            Certainty.CODE,
            LEARNER,
        ),
        # A wrong scale shifts the opening by a constant factor; which end is open stays right.
        fact("gripper_scale", scale, Certainty.INFERRED, "conversion formulas and makers' data"),
        fact("action_kind", "pose achieved, gripper commanded", Certainty.CODE, LEARNER),
    ]
    if isinstance(joints, str):
        facts.append(fact("joint_position", joints, Certainty.VERIFIED, "files of this scene"))
    else:
        how = f"{REPO}:visualize.py moves a URDF model by them"
        facts.append(fact("joint_position", "radians", Certainty.CODE, how))
    return facts


def camera_poses_fact(calibration: Calibration | None, num_cameras: int) -> Fact:
    """Whether and how the cameras' poses are known."""
    if calibration is None or not num_cameras:
        why = "none: the scene has no calibration of its in-hand camera"
        return fact("extrinsics", why, Certainty.VERIFIED, "files of this scene")
    text = f"T_base_cam of {num_cameras} cameras through the in-hand one"
    return fact("extrinsics", text, calibration.certainty, f"{REPO}:rh20t_api/scene.py; issue 7")


def _action(name: str, value: str, how: Certainty, source: str) -> Fact:
    return fact(name, value, how, source, for_actions=True)
