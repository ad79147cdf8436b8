"""The eleven embodiments of RoboMIND v1.x, and what a user may state about them.

The eleven bodies of RoboMIND v1.x: which dataset and columns hold what, and how their pictures were stored.

Columns: `x-humanoid-robomind.github.io:static/all_robot_h5_info.md, all_robot_h5_info_v1.2.md` (metres, radians, quaternions
xyzw; the order of roll, pitch, yaw is not stated). Intrinsics: `static/RoboMIND_intrinsics.md`, without sizes: those here are
the ones whose centre they fit, inferred. Colour: `static/robomind.yaml` (bgr2rgb) speaks of what OpenCV decodes, which is BGR
of any sound JPEG: "flip" (Franka, UR) means a sound file, "do not flip" (AgileX, TienKung) one with red and blue swapped.

What the files do not say and the caller may: rates, and the scale of grippers, for all bodies or for one.

rate_hz=15                     rate_hz=franka_1rgb:15,ur_1rgb:10
gripper=0..0.08                gripper=agilex_3rgb:0..0.07,franka_3rgb:1..0        closed..open, as stored
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from schemas.errors import ConfigError
from schemas.rate import rate_from

# -- bodies --------------------------------------------------------------------------------------------------------

QUAT = "quat_xyzw"
RPY = "euler_xyz_extrinsic"  # INFERRED: roll, pitch, yaw about fixed axes
FINGERS = ("little", "ring", "middle", "index", "thumb_bend", "thumb_rotation")
VGA, HD = (640, 480), (1280, 720)
Lens = tuple[tuple[int, int], float, float, float, float]  # size (width, height), fx, fy, cx, cy


@dataclass(frozen=True, slots=True, kw_only=True)
class RobomindArm:
    """One arm's columns. `gripper` is the column of a closure of unknown scale; None for a hand of its own."""

    side: str
    joints: str  # dataset
    first: int  # column of joint 1
    num_joints: int
    gripper: int | None
    eef_key: str = ""  # dataset, "" for none
    pose_first: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    embodiment: str  # in schemas/embodiments.yaml
    arms: tuple[RobomindArm, ...] = ()
    rotation_form: str = ""
    pose_width: int = 6
    state: str = "puppet"
    command: str = "master"  # "" for none
    hands: str = ""  # a dataset of 12 finger values, left then right
    rows_per_picture: int = 1
    is_bgr: bool = True  # as OpenCV decodes it; a sound JPEG is
    is_colour_stated: bool = True
    eef_frame: str = ""
    lenses: Mapping[str, Lens] = field(default_factory=dict)


def _arm(
    side: str, count: int, *, first: int = 0, eef_key: str = "", pose_first: int = 0
) -> RobomindArm:
    """Joints, then the gripper, of a dataset for all arms."""
    return RobomindArm(
        side=side,
        joints="joint_position",
        first=first,
        num_joints=count,
        gripper=first + count,
        eef_key=eef_key,
        pose_first=pose_first,
    )


def _own(side: str) -> RobomindArm:
    """An arm with datasets of its own (AgileX)."""
    return RobomindArm(
        side=side,
        joints=f"joint_position_{side}",
        first=0,
        num_joints=6,
        gripper=6,
        eef_key=f"end_effector_{side}",
    )


_EEF = "end_effector"
_FRANKA_FRAME = "panda_hand in panda_link0 taken for it; the hand's TCP is as likely"
_FRANKA_ARM = (_arm("left", 7, eef_key=_EEF),)
_TIENKUNG_ARMS = (_arm("left", 7), _arm("right", 7, first=8))
_XSENS_ARMS = tuple(
    RobomindArm(side=side, joints="joint_position", first=first, num_joints=7, gripper=None)
    for side, first in (("left", 0), ("right", 7))
)
_GELLO = Body(
    embodiment="tienkung",
    arms=_TIENKUNG_ARMS,
    is_bgr=False,
    lenses={"camera_top": (HD, 687.652, 687.552, 645.330, 361.485)},
)
_SIM_FRANKA = Body(
    embodiment="panda_hand",
    arms=_FRANKA_ARM,
    rotation_form=QUAT,
    pose_width=7,
    state="franka",
    command="",
    rows_per_picture=4,
    is_colour_stated=False,
    eef_frame=_FRANKA_FRAME,
)

BODIES: Mapping[str, Body] = {
    "agilex_3rgb": Body(
        embodiment="agilex_piper",
        arms=(_own("left"), _own("right")),
        rotation_form=QUAT,
        pose_width=7,
        is_bgr=False,
        eef_frame="fl_link6, fr_link6 of the AgileX URDF taken for it; base not stated",
        lenses={
            "camera_left_wrist": (VGA, 454.626, 454.626, 327.592, 238.478),
            "camera_right_wrist": (VGA, 454.053, 454.053, 327.883, 238.578),
            "camera_front": (VGA, 455.474, 455.474, 327.161, 236.710),
        },
    ),
    "franka_1rgb": Body(
        embodiment="panda_hand",
        arms=_FRANKA_ARM,
        rotation_form=RPY,
        eef_frame=_FRANKA_FRAME,
        lenses={"camera_top": (VGA, 608.78, 608.537, 322.79, 257.360)},
    ),
    "franka_3rgb": Body(
        embodiment="panda_hand",
        arms=_FRANKA_ARM,
        rotation_form=RPY,
        eef_frame=_FRANKA_FRAME,
        lenses={
            "camera_left": (VGA, 608.407, 608.311, 318.072, 256.188),
            "camera_right": (VGA, 609.104, 608.822, 328.118, 247.011),
            "camera_top": (HD, 909.620, 908.732, 635.703, 364.509),
        },
    ),
    "franka_fr3_dual": Body(
        embodiment="panda_hand_dual",
        arms=(
            _arm("left", 7, eef_key=_EEF),
            _arm("right", 7, first=8, eef_key=_EEF, pose_first=6),
        ),
        rotation_form=RPY,
        eef_frame=f"{_FRANKA_FRAME}; whether each arm has a base of its own is not stated",
        lenses={
            "camera_left": (VGA, 462.019, 462.021, 317.420, 239.202),
            "camera_right": (VGA, 462.482, 462.348, 321.532, 240.604),
            "camera_top": (HD, 693.000, 692.787, 642.327, 358.943),
            "camera_front": (HD, 612.856, 612.754, 641.657, 347.088),
        },
    ),
    "ur_1rgb": Body(
        embodiment="ur5e_ee_link",
        arms=(_arm("left", 6, eef_key=_EEF),),
        rotation_form=RPY,
        eef_frame="ee_link in base_link taken for it",
        lenses={"camera_top": (VGA, 609.325, 609.746, 317.789, 257.325)},
    ),
    "tienkung_gello_1rgb": _GELLO,
    "tienkung_prod1_gello_1rgb": _GELLO,
    "tienkung_xsens_1rgb": Body(
        embodiment="tienkung",
        arms=_XSENS_ARMS,
        hands=_EEF,  # no pose, in spite of its name
        is_bgr=False,
        lenses=_GELLO.lenses,
    ),
    "simulation": _SIM_FRANKA,
    "sim_franka_3rgb": _SIM_FRANKA,
    # Its series have lengths of their own (1436, 1438, 1140) and no common clock: pictures only.
    "sim_tienkung_1rgb": Body(embodiment="tienkung", state="", command="", is_colour_stated=False),
}


# -- settings ------------------------------------------------------------------------------------------------------

OPTIONS = ("body", "gripper", "rate_hz")
RATE_HZ = Fraction(30)  # what the one public converter assumes; nothing in the files says it


def check(options: Mapping[str, str]) -> None:
    """Raises ConfigError for an option that is unknown or does not hold for every body it names."""
    if unknown := sorted(set(options) - set(OPTIONS)):
        raise ConfigError(f"unknown options {unknown}; expected {list(OPTIONS)}")
    if options.get("body", "simulation") not in BODIES:
        raise ConfigError(f"body={options['body']!r}; expected one of {list(BODIES)}")
    for body in BODIES:
        rate_of(body, options)
        gripper_of(body, options)


def rate_of(body: str, options: Mapping[str, str]) -> tuple[Fraction, bool]:
    """Rows (of a simulation: pictures) a second, and whether the caller said so."""
    text = _for(body, options.get("rate_hz", ""), "rate_hz")
    try:
        return (rate_from(text), True) if text else (RATE_HZ, False)
    except ValueError as error:
        raise ConfigError(f"rate_hz: {error}") from error


def gripper_of(body: str, options: Mapping[str, str]) -> tuple[float, float] | None:
    """Stored values of the closed and of the open gripper, or None."""
    text = _for(body, options.get("gripper", ""), "gripper")
    if not text:
        return None
    try:
        closed, opened = (float(part) for part in text.split(".."))
    except ValueError as error:
        raise ConfigError(
            f"option gripper={text!r}: expected CLOSED..OPEN, such as 0..0.08"
        ) from error
    if closed == opened or not (math.isfinite(closed) and math.isfinite(opened)):
        raise ConfigError(
            f"option gripper={text!r}: closed and open must be two different finite numbers"
        )
    return closed, opened


def _for(body: str, text: str, option: str) -> str:
    """The part of a comma list that is for `body`; one without a name is for all others."""
    chosen = ""
    for part in text.split(",") if text else ():
        name, is_named, value = part.rpartition(":")
        if is_named and name not in BODIES:
            raise ConfigError(
                f"{option}: unknown embodiment {name!r}; expected one of {list(BODIES)}"
            )
        if name == body or not (is_named or chosen):
            chosen = value
    return chosen
