"""How sure each convention of a Humanoid Everyday episode is."""

from __future__ import annotations

from adapters.humanoid_everyday.robots import CALIBRATED_PX, G1, HumanoidRobot
from adapters.humanoid_everyday.steps import HumanoidSteps
from schemas.fact import Certainty, Fact, fact

README = "physical-superintelligence-lab/Humanoid-Everyday:README.md"
TELEOP = "unitreerobotics/xr_teleoperate:teleop/robot_control"


def facts_of(steps: HumanoidSteps, robot: HumanoidRobot, *, is_calibrated: bool) -> list[Fact]:
    """What touches actions is marked so; the end-effector frame is settled where the pose is made, in kinematics."""
    documented, code = Certainty.DOCUMENTED, Certainty.CODE
    robot_says = steps.robot_type or "none, which means H1"
    facts = [
        fact("rate", "30 Hz nominal, recorded times", documented, README, for_actions=True),
        fact("embodiment", f"robot_type {robot_says}", documented, README, for_actions=True),
        fact("joint_unit", "radians, as Unitree's motors report", code, TELEOP, for_actions=True),
        fact("joint_order", "arms left then right, legs, waist, hands", documented, README),
        fact("action_kind", "sol_q: absolute joint targets of both arms", documented, README),
        fact(
            "teleop_pose_frame",
            "left_pose, right_pose: wrist targets in the robot's waist frame; kept raw",
            Certainty.INFERRED,
            "unitreerobotics/xr_teleoperate moves wrists from head to waist; constants differ by copy",
        ),
    ]
    if robot is G1:
        # Named wrongly, two fingers change places everywhere alike: no action is spoiled, only a name.
        order = "middle before index (README); Unitree's code has index first"
        facts.append(fact("right_hand_order", order, Certainty.UNVERIFIED, f"{README}; {TELEOP}"))
    else:
        unit = "Inspire hand_state: unit not stated, kept as source_state"
        facts.append(fact("hand_state_unit", unit, Certainty.UNKNOWN, README))
    if is_calibrated:
        facts.append(fact("intrinsics", "one calibration per robot type", documented, README))
    else:
        left = f"left out: the pictures are not {CALIBRATED_PX}, as calibrated"
        facts.append(fact("intrinsics", left, Certainty.VERIFIED, "the first picture"))
    return facts
