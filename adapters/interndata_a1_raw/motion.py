"""State and commands of one InternData-A1 episode as canonical streams, its robots, and the facts about its conventions.

The robots of InternData-A1: which joints their columns hold, how wide their grippers open, where the arms stand.

All from `InternRobotics/InternDataEngine`: joint names and order `workflows/simbox/core/controllers/*_controller.py`, widths and
links `workflows/simbox/core/configs/robots/*.yaml`, stored gripper positions `core/robots/*.py` (twice the finger's travel), arm
bases `policy/lmdb2lerobotv21/*`. tcp2ee there: franka +z 0.095 m from panda_hand, robotiq +z 0.145 from panda_link8, genie1 +z 0.22,
lift2 +x 0.16157, split_aloha +z 0.135; the registry of embodiments holds what the corpus uses.

How sure each convention of an InternData-A1 episode is. Everything is by the engine's code: no real episode was at hand.

State and commands of one InternData-A1 episode as canonical streams.

A step stores what was seen and the command that was then applied; `actions.*` repeats the next state and is not read. Franka:
`gripper.pose` is x y z m and scipy's extrinsic "xyz" rad of panda_link8 in panda_link0, computed by the engine from the joints
(`core/utils/transformation_utils.py`: get_fk_solution stops at the flange). Two arms: `T_base_ee_*` where the writer stored it, the
pose of the ee link in the arm's own base, moved here to the robot's base; otherwise only joints, for kinematics. The engine's
matrices are `get_relative_transform(link, base)`, which maps the link's coordinates to the base's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from adapters.containers.lmdb_store import LmdbReader
from adapters.interndata_a1_raw.record import column, required_column
from schemas.episode import Stream, Unit, gripper_channel, pose_channel, vector_channel
from schemas.errors import Code, SourceError
from schemas.fact import Certainty, Fact, fact
from schemas.geometry import Array, rotmat_from_euler, transform
from schemas.rate import instants_ns

# -- robots --------------------------------------------------------------------------------------------------------

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
        # Its gripper is commanded 1.0 to open and 0.0 to close, and positions are stored doubled. Its limits are not documented.
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


# -- facts ---------------------------------------------------------------------------------------------------------

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


# -- motion --------------------------------------------------------------------------------------------------------

RATE_HZ = Fraction(30)
PERIOD_NS = int(instants_ns(2, RATE_HZ)[1])
LARGEST_RAD = 2 * np.pi  # the converter's own bound
_EE = {"left_": "T_base_ee_fl", "right_": "T_base_ee_fr"}
Times = npt.NDArray[np.int64]


def streams_of(
    reader: LmdbReader, robot: InternDataRobot, episode_name: str, t_ns: Times
) -> Iterator[Stream]:
    """Raises SourceError: MISSING_CHANNEL, SHAPE_MISMATCH, NOT_FINITE, NOT_A_ROTATION, UNKNOWN_LAYOUT (no radians)."""
    due_ns = t_ns + PERIOD_NS
    for prefix in robot.joints:
        yield from _poses(reader, robot, prefix, episode_name, t_ns)
        yield from _grippers(reader, robot, prefix, t_ns)
    names = tuple(name for part in robot.joints.values() for name in part)
    for source, name, at_ns in (
        ("states", "joint_position_rad", t_ns),
        ("master_actions", "command.joint_position_rad", due_ns),
    ):
        spec = vector_channel(name, len(names), Unit.RADIAN, names=names)
        yield Stream(spec=spec, t_ns=at_ns, values=_joints(reader, robot, source, len(t_ns)))
    yield _raw(reader, robot, t_ns)


def has_poses(reader: LmdbReader, robot: InternDataRobot, episode_name: str) -> bool:
    """Whether every arm's pose is stored in the robot's base, or can be moved there."""
    return all(
        ("states.gripper.pose" if prefix == "" else _EE[prefix]) in reader
        and T_robot_arm_of(robot, prefix, episode_name) is not None
        for prefix in robot.joints
    )


def _poses(
    reader: LmdbReader, robot: InternDataRobot, prefix: str, episode_name: str, t_ns: Times
) -> Iterator[Stream]:
    side, T_robot_arm = robot.side(prefix), T_robot_arm_of(robot, prefix, episode_name)
    if prefix and T_robot_arm is not None and has_poses(reader, robot, episode_name):
        values = T_robot_arm @ required_column(reader, _EE[prefix], (4, 4), len(t_ns))
        yield Stream(spec=pose_channel(f"{side}.T_base_eef"), t_ns=t_ns, values=values)
    if prefix:
        return
    due_ns = t_ns + PERIOD_NS
    for source, name, at_ns in (("states", "", t_ns), ("master_actions", "command.", due_ns)):
        key = f"{source}.gripper.pose"
        rows = column(reader, key, (6,), len(t_ns))
        if rows is None:
            continue
        if not np.isfinite(rows).all():
            raise SourceError(Code.NOT_FINITE, "NaN or infinity", where=f"{reader.where}:{key}")
        values = transform(rotmat_from_euler(rows[:, 3:], "xyz"), rows[:, :3])
        yield Stream(spec=pose_channel(f"{name}{side}.T_base_eef"), t_ns=at_ns, values=values)


def _grippers(
    reader: LmdbReader, robot: InternDataRobot, prefix: str, t_ns: Times
) -> Iterator[Stream]:
    """The opening, and the command: openness is 1 open, 0 closed, of the target that the step applies."""
    side = robot.side(prefix)
    stored = required_column(reader, f"states.{prefix}gripper.position", (1,), len(t_ns))
    spec = gripper_channel(f"{side}.gripper_opening", binary=robot.has_binary_state)
    yield Stream(spec=spec, t_ns=t_ns, values=np.clip(stored / robot.open_at, 0.0, 1.0))
    commanded = required_column(reader, f"master_actions.{prefix}gripper.openness", (1,), len(t_ns))
    spec = gripper_channel(f"command.{side}.gripper_opening", binary=True)
    yield Stream(spec=spec, t_ns=t_ns + PERIOD_NS, values=np.clip(commanded, 0.0, 1.0))


def _joints(reader: LmdbReader, robot: InternDataRobot, source: str, num_rows: int) -> Array:
    parts = []
    for prefix, names in robot.joints.items():
        key = f"{source}.{prefix}joint.position"
        rows = required_column(reader, key, (len(names),), num_rows)
        if np.abs(rows).max() > LARGEST_RAD:
            problem = f"up to {np.abs(rows).max():g}; expected radians"
            raise SourceError(Code.UNKNOWN_LAYOUT, problem, where=f"{reader.where}:{key}")
        parts.append(rows)
    return np.concatenate(parts, axis=1)


def _raw(reader: LmdbReader, robot: InternDataRobot, t_ns: Times) -> Stream:
    """Everything that was commanded, as it is stored; gripper.position is the width one step later."""
    parts, names = [], []
    for prefix, joints in robot.joints.items():
        for field, width in (
            ("joint.position", len(joints)),
            ("gripper.position", 1),
            ("gripper.openness", 1),
        ):
            rows = column(reader, f"master_actions.{prefix}{field}", (width,), len(t_ns))
            if rows is not None:
                parts.append(rows)
                names += [f"{prefix}{field}" + (f".{k}" if width > 1 else "") for k in range(width)]
    spec = vector_channel("raw_command", len(names), Unit.SOURCE, names=tuple(names), hold=True)
    return Stream(spec=spec, t_ns=t_ns, values=np.concatenate(parts, axis=1))
