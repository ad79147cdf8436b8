"""AgiBot World proprio_stats.h5, the measured half: one robot episode's state as canonical streams.

N rows, 30 Hz; float64; a dataset that is not used is float32 of shape (0,). Marks: [V] verified on real files, [D] the
authors' document as kept in `34328/AgiBot_eef_extraction:agibot_world_itrd.md`, [I] inferred.
    timestamp                  [N] int64 ns [D]
    state/joint/position       [N, 14] rad, left 7 then right 7 [D]
    state/end/position         [N, 2, 3] m, left then right: arm_{left,right}_link7 in base_link [V]
    state/end/orientation      [N, 2, 4] quaternion xyzw [D, V]
    state/effector/position    [N, 2] gripper: 35 open .. 120 closed, or OmniPicker 0 .. 118 [V]; [N, 12] hand, rad [D]
[V] of the pose: forward kinematics of G1.urdf to link7 agrees with `AgibotTech/GE-Sim-V2:assets/demo_00*` to 3.6e-6 m and
4.5e-4 deg. The document calls it the pose of the fingers, which it is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from adapters.containers.hdf5 import Hdf5File
from schemas.episode import SIDES, Stream, Unit, gripper_channel, pose_channel, vector_channel
from schemas.errors import Code, SourceError
from schemas.fact import Certainty, Fact
from schemas.geometry import Array, rotmat_from_quat_xyzw, transform
from schemas.rate import instants_ns

RATE_HZ = Fraction(30)  # [D]
JOINTS = tuple(f"{side}_arm_joint{k}" for side in SIDES for k in range(1, 8))  # order [D]
BETA_ABOVE = 20.0  # a beta gripper never reads below about 35, an OmniPicker opens to 0 [I]
GRIPPER_RANGE = (-5.0, 150.0)  # readings outside belong to neither known scale
QUAT_NORM_TOLERANCE = 1e-2
DOC = "34328/AgiBot_eef_extraction:agibot_world_itrd.md"
GESIM = "FK of G1.urdf against AgibotTech/GE-Sim-V2:assets/demo_00*, 3.6e-6 m, 4.5e-4 deg"
PICTURES = "AgibotTech/Genie-Envisioner:gesim_video_gen_examples, pictures against readings"


def fact(name: str, value: str, how: Certainty, source: str, *, for_actions: bool = False) -> Fact:
    """A Fact that does not affect actions by default."""
    return Fact(name=name, value=value, certainty=how, source=source, is_for_actions=for_actions)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AgibotState:
    """The measured rows. `effector` is as stored; `effector_in_action_units` is [N, 2] 0 open .. 1 closed or [N, 12] rad.

    It is None when the readings belong to no known gripper scale.
    """

    t_ns: npt.NDArray[np.int64]
    joints_rad: Array
    xyz_m: Array
    quat_xyzw: Array
    effector: Array
    effector_in_action_units: Array | None
    embodiment: str
    facts: tuple[Fact, ...]

    @property
    def num_rows(self) -> int:
        return len(self.t_ns)


def read_state(file: Hdf5File) -> AgibotState:
    """The measured rows of an open proprio_stats.h5.

    Raises:
        SourceError: MISSING_CHANNEL (absent or unused), SHAPE_MISMATCH, EMPTY_EPISODE.
    """
    joints = _rows(file, "state/joint/position", 14)
    num_rows = len(joints)
    xyz = _rows(file, "state/end/position", 2, 3, num_rows=num_rows)
    quat = _rows(file, "state/end/orientation", 2, 4, num_rows=num_rows)
    effector = _rows(file, "state/effector/position", num_rows=num_rows)
    t_ns, clock = _clock(file, num_rows)
    embodiment, in_action_units, facts = _effector(effector, file.where)
    return AgibotState(
        t_ns=t_ns,
        joints_rad=joints,
        xyz_m=xyz,
        quat_xyzw=quat,
        effector=effector,
        effector_in_action_units=in_action_units,
        embodiment=embodiment,
        facts=(
            fact("eef_rotation_form", "quat_xyzw", Certainty.VERIFIED, GESIM, for_actions=True),
            fact("eef_frame", "link7 in base_link", Certainty.VERIFIED, GESIM, for_actions=True),
            fact("rate", "30 Hz", Certainty.DOCUMENTED, DOC, for_actions=True),
            clock,
            *facts,
        ),
    )


def state_streams(state: AgibotState, where: str) -> list[Stream]:
    """Joints, both arms' link7 poses, and grippers or hands.

    Raises:
        SourceError: CLOCK_NOT_INCREASING, NOT_FINITE, NOT_A_ROTATION.
    """
    spec = vector_channel("joint_position_rad", 14, Unit.RADIAN, names=JOINTS)
    streams = [Stream(spec=spec, t_ns=state.t_ns, values=state.joints_rad)]
    streams += pose_streams("", state.t_ns, state.xyz_m, state.quat_xyzw, where=where)
    if state.effector_in_action_units is not None:
        streams += effector_streams("", state.t_ns, state.effector_in_action_units)
    return streams


def pose_streams(
    prefix: str,
    t_ns: npt.NDArray[np.int64],
    xyz_m: Array,
    quat_xyzw: Array,
    *,
    where: str,
    valid: npt.NDArray[np.bool_] | None = None,
) -> list[Stream]:
    """`<prefix><side>.T_base_eef` of both arms from xyz [N, 2, 3] and quaternions [N, 2, 4]; `prefix` "" or "command."."""
    if not np.isfinite(quat_xyzw).all():
        raise SourceError(Code.NOT_FINITE, f"{prefix}end/orientation", where=where)
    worst = float(np.abs(np.linalg.norm(quat_xyzw, axis=-1) - 1).max())
    if worst > QUAT_NORM_TOLERANCE:
        problem = f"{prefix}end/orientation: a quaternion norm is off 1 by {worst:.3g}"
        raise SourceError(Code.NOT_A_ROTATION, problem, where=where)
    T_base_link7 = transform(rotmat_from_quat_xyzw(quat_xyzw), xyz_m)
    is_valid = np.ones(len(t_ns), dtype=bool) if valid is None else valid
    return [
        Stream(
            spec=pose_channel(f"{prefix}{side}.T_base_eef"),
            t_ns=t_ns,
            values=T_base_link7[:, k],
            valid=is_valid,
        )
        for k, side in enumerate(SIDES)
    ]


def effector_streams(
    prefix: str,
    t_ns: npt.NDArray[np.int64],
    values: Array,
    valid: npt.NDArray[np.bool_] | None = None,
) -> list[Stream]:
    """Gripper openings from closed fractions [N, 2], or hand joints from [N, 12]; left first."""
    is_valid = np.ones(len(t_ns), dtype=bool) if valid is None else valid
    if values.shape[1] == 12:
        return [
            Stream(
                spec=vector_channel(f"{prefix}{side}.hand_joints_rad", 6, Unit.RADIAN),
                t_ns=t_ns,
                values=values[:, 6 * k : 6 * k + 6],
                valid=is_valid,
            )
            for k, side in enumerate(SIDES)
        ]
    opening = 1.0 - np.clip(values, 0.0, 1.0)
    return [
        Stream(
            spec=gripper_channel(f"{prefix}{side}.gripper_opening", binary=False),
            t_ns=t_ns,
            values=opening[:, k : k + 1],
            valid=is_valid,
        )
        for k, side in enumerate(SIDES)
    ]


def _rows(file: Hdf5File, key: str, *shape: int, num_rows: int | None = None) -> Array:
    """A state array as float64; no `shape` takes any width, no `num_rows` any length above zero."""
    values = file.array(key)
    where = f"{file.where}:{key}"
    if values.shape == (0,):
        raise SourceError(Code.MISSING_CHANNEL, "there, but unused: shape (0,)", where=where)
    if len(values) == 0:
        raise SourceError(Code.EMPTY_EPISODE, "no rows", where=where)
    expected = (num_rows or len(values), *(shape or values.shape[1:2]))
    if values.shape != expected:
        raise SourceError(Code.SHAPE_MISMATCH, f"{values.shape}; expected {expected}", where=where)
    return values.astype(np.float64)


def _clock(file: Hdf5File, num_rows: int) -> tuple[npt.NDArray[np.int64], Fact]:
    """Row times from the episode's own zero; nominal 30 Hz when `timestamp` is unused or all zero."""
    stamps = file.array("timestamp")
    if stamps.shape == (0,) or (stamps.shape == (num_rows,) and not stamps.any()):
        nominal = fact("clock", "nominal 30 Hz: timestamp unused", Certainty.DOCUMENTED, DOC)
        return instants_ns(num_rows, RATE_HZ), nominal
    if stamps.shape != (num_rows,) or stamps.dtype.kind not in "iu":
        problem = f"{stamps.dtype}{stamps.shape}; expected int64 ({num_rows},)"
        raise SourceError(Code.SHAPE_MISMATCH, problem, where=f"{file.where}:timestamp")
    t_ns = stamps.astype(np.int64) - np.int64(stamps[0])
    return t_ns, fact("clock", "timestamp in ns", Certainty.DOCUMENTED, DOC)


def _effector(raw: Array, where: str) -> tuple[str, Array | None, tuple[Fact, ...]]:
    """(embodiment, state in action units, facts) of the [N, 2] gripper or [N, 12] hand readings."""
    if raw.shape[1] == 12:
        order = fact(
            "hand_joint_order",
            "left [:6], right [6:]; fingers in stored order",
            Certainty.UNVERIFIED,
            f"{DOC} names the sides, not the fingers",
            for_actions=True,
        )
        return "agibot_g1_dexhand", raw, (order,)
    if raw.shape[1] != 2:
        value = f"{raw.shape}; expected (N, 2) for grippers or (N, 12) for hands"
        raise SourceError(Code.SHAPE_MISMATCH, value, where=f"{where}:state/effector/position")
    if not np.isfinite(raw).all():
        raise SourceError(Code.NOT_FINITE, "a reading", where=f"{where}:state/effector/position")
    low, high = float(raw.min()), float(raw.max())
    is_beta = low > BETA_ABOVE
    embodiment = "agibot_g1_gripper" if is_beta else "agibot_g1_omnipicker"
    if low < GRIPPER_RANGE[0] or high > GRIPPER_RANGE[1]:
        value = f"readings {low:g} .. {high:g} fit neither 35 .. 120 nor 0 .. 118: left out"
        unknown = fact("gripper_scale", value, Certainty.UNKNOWN, where, for_actions=True)
        return embodiment, None, (unknown,)
    closed = (raw - 35.0) / 85.0 if is_beta else raw / 118.0
    scale = "35 open .. 120 closed" if is_beta else "0 open .. 118 closed"
    growing = "reading grows when closing"
    return (
        embodiment,
        np.clip(closed, 0.0, 1.0),
        (
            fact("gripper_polarity", growing, Certainty.VERIFIED, PICTURES, for_actions=True),
            # A wrong scale would shift the opening by a constant factor and choose another tool; the sign stays right.
            fact("gripper_scale", scale, Certainty.INFERRED, f"episode minimum {low:.1f}"),
        ),
    )
