"""The numbers of one Humanoid Everyday episode as canonical streams, its robots, and the facts about its conventions.

The two robots of Humanoid Everyday: names of their joints in the order of the file, and the camera's intrinsics.

Orders and intrinsics: README of `physical-superintelligence-lab/Humanoid-Everyday` ("Data Schema", "Camera Intrinsics"), agreeing
with `unitreerobotics/xr_teleoperate:teleop/robot_control/robot_arm.py` (G1_29_JointIndex, H1_2_JointIndex). G1 elements carry the
joint names of `xr_teleoperate:assets/g1/g1_body29_hand14.urdf`. Those of H1_2 carry the README's: in `assets/h1_2/h1_2.urdf` the
README's elbow and wrist roll are called left_elbow_pitch_joint and left_elbow_roll_joint. UNVERIFIED: the fingers of the RIGHT Dex3
hand, middle before index in the README, index before middle in `xr_teleoperate:teleop/robot_control/robot_hand_unitree.py`.

The numbers of one episode as canonical streams.

No pose of the end-effector is stored: it comes by forward kinematics from the named joints. `left_pose` and `right_pose` are the
targets of the operator's wrists that went into inverse kinematics. Their frame is INFERRED to be the robot's waist, because the
public teleoperation code moves the operator's wrists there by constants that differ from copy to copy; so they are kept as raw
commands and are no pose of the corpus. `sol_q` is the joint solution that was sent to the arms: the command.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from adapters.humanoid_everyday.steps import HumanoidSteps, StepColumn
from schemas.episode import SIDES, Stream, Unit, vector_channel
from schemas.errors import Code, SourceError
from schemas.fact import Certainty, Fact, fact
from schemas.geometry import Array
from schemas.rate import instants_ns, ns_from_seconds

# -- robots --------------------------------------------------------------------------------------------------------

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


# -- facts ---------------------------------------------------------------------------------------------------------

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


# -- motion --------------------------------------------------------------------------------------------------------

RATE_HZ = Fraction(30)
PERIOD_NS = int(instants_ns(2, RATE_HZ)[1])
LARGEST_RAD = 2 * np.pi  # no joint of either robot goes further; degrees do
STATE = (  # kept in the source's own units beside the joints
    "states.odometry.position",
    "states.odometry.velocity",
    "states.odometry.quat_wxyz",
    "states.imu.quat_wxyz",
    "states.imu.accelerometer",
    "states.imu.gyroscope",
)
COMMAND = ("sol_q", "left_angles", "right_angles", "left_pose", "right_pose", "head_rmat")
_Part = tuple[StepColumn, tuple[str, ...]]


def robot_of(steps: HumanoidSteps) -> HumanoidRobot:
    """The robot: robot_type is written for G1 only, none means H1 (README).

    Raises:
        SourceError: MISSING_CHANNEL (no arm_state), UNKNOWN_LAYOUT (another robot).
    """
    stated = steps.robot_type or "h1"
    robot = G1 if stated.startswith("g1") else H1_2 if stated.startswith("h1") else None
    if robot is None:
        problem = f"robot_type {stated!r}; expected G1, H1 or none"
        raise SourceError(Code.UNKNOWN_LAYOUT, problem, where=steps.where)
    if "states.arm_state" not in steps.columns:
        problem = "no step contains states.arm_state"
        raise SourceError(Code.MISSING_CHANNEL, problem, where=steps.where)
    return robot


def clock_of(steps: HumanoidSteps) -> npt.NDArray[np.int64]:
    """[N] ns since the first step, by the recorded times; microseconds survive in a float of UNIX seconds.

    Raises:
        SourceError: NOT_FINITE, TOO_LONG (not seconds).
    """
    since_s = steps.time_s - steps.time_s[0]
    if not np.isfinite(since_s).all():
        raise SourceError(Code.NOT_FINITE, "NaN or infinity", where=f"{steps.where}:time")
    if np.abs(since_s).max() > 1e6:
        problem = f"timestamps are {np.abs(since_s).max():g} s apart; expected UNIX seconds"
        raise SourceError(Code.TOO_LONG, problem, where=f"{steps.where}:time")
    return ns_from_seconds(since_s)


def streams_of(
    steps: HumanoidSteps, robot: HumanoidRobot, t_ns: npt.NDArray[np.int64]
) -> Iterator[Stream]:
    """Raises SourceError: CLOCK_NOT_INCREASING, NOT_FINITE, SHAPE_MISMATCH (the joints of another robot), UNKNOWN_LAYOUT (joints
    that are no radians)."""
    hand = _parts(steps, [("states.hand_state", robot.hand)])
    joints = _parts(steps, [("states.arm_state", robot.arm), ("states.leg_state", robot.leg)])
    if robot.has_hand_radians:
        yield _stream("joint_position_rad", [*joints, *hand], t_ns)
        for k, side in enumerate(SIDES if hand else ()):
            half = slice(7 * k, 7 * k + 7)
            part = StepColumn(values=hand[0][0].values[:, half], present=hand[0][0].present)
            yield _stream(f"{side}.hand_joints_rad", [(part, robot.hand[half])], t_ns)
    else:
        yield _stream("joint_position_rad", joints, t_ns)
    state = _parts(steps, [(name, ()) for name in STATE])
    if kept := [*state, *([] if robot.has_hand_radians else hand)]:
        yield _stream("source_state", kept, t_ns, unit=Unit.SOURCE)
    due_ns = t_ns + PERIOD_NS
    if commanded := _parts(steps, [("actions.sol_q", robot.arm)]):
        yield _stream("command.joint_position_rad", commanded, due_ns)
    if raw := _parts(steps, [(f"actions.{name}", ()) for name in COMMAND]):
        yield _stream("raw_command", raw, t_ns, unit=Unit.SOURCE, hold=True)


def _parts(steps: HumanoidSteps, columns: Sequence[tuple[str, tuple[str, ...]]]) -> list[_Part]:
    """The wanted columns that are there, with names of their elements, numbered where the source does not name them."""
    parts: list[_Part] = []
    for key, names in columns:
        if (column := steps.columns.get(key)) is not None:
            width = column.values.shape[1]
            short = key.partition(".")[2]
            if names and len(names) != width:
                what = f"{width} numbers; expected {len(names)}; check robot_type"
                raise SourceError(Code.SHAPE_MISMATCH, what, where=f"{steps.where}:{key}")
            parts.append((column, names or tuple(f"{short}.{k}" for k in range(width))))
    return parts


def _stream(
    name: str,
    parts: Sequence[_Part],
    t_ns: npt.NDArray[np.int64],
    *,
    unit: Unit = Unit.RADIAN,
    hold: bool = False,
) -> Stream:
    """One vector of all parts, valid at the steps that have them all."""
    values = np.concatenate([column.values for column, _ in parts], axis=1)
    valid = np.logical_and.reduce([column.present for column, _ in parts])
    if unit is Unit.RADIAN and np.abs(values).max(initial=0.0) > LARGEST_RAD:
        problem = f"up to {np.abs(values).max():g}; expected radians"
        raise SourceError(Code.UNKNOWN_LAYOUT, problem, where=name)
    names = tuple(n for _, part in parts for n in part)
    spec = vector_channel(name, len(names), unit, names=names, hold=hold)
    return Stream(spec=spec, t_ns=t_ns, values=values, valid=valid)
