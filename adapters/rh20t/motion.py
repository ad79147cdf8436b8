"""What the arm did, and the facts about RH20T's conventions.

What the arm did: transformed/{tcp_base,gripper,joint}.npy, dicts by camera serial, a row at each picture of that camera.

    tcp_base.npy   serial -> [{timestamp, tcp [7] = xyz m + quaternion wxyz in the robot's base, robot_ft}]
    gripper.npy    serial -> {timestamp: {gripper_info, gripper_command}}, each [width mm, ...]
    joint.npy      serial -> {timestamp: [joints rad, then velocities for some robots]}; a download of its own, may be missing
Sources: `rh20t/rh20t_api:rh20t_api/{scene,online}.py` (code); quaternion order by the maintainers, issue 28; millimetres and
that only the first number means the same for all grippers, issue 9. The poses are NOT aligned although the folder is called
transformed: `aligned_tcp_in_base` does that, and so does this file. A robot has one state, so the rows of all cameras make one
stream, as the API does. Not read: forces, tcp.npy (the same poses seen from each camera), tactile, audio.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from adapters.containers.safe_path import inside
from adapters.rh20t.calibration import NS_PER_MS, Calibration, StampedSamples, load_dict, samples_of
from adapters.rh20t.configurations import Configuration
from schemas.episode import Stream, Unit, gripper_channel, pose_channel, vector_channel
from schemas.errors import Code, SourceError
from schemas.fact import Certainty, Fact, fact
from schemas.geometry import Array, inverse, rotmat_from_quat_wxyz, transform
from schemas.regular_file import path_exists

# -- facts ---------------------------------------------------------------------------------------------------------

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


# -- motion --------------------------------------------------------------------------------------------------------

FILES = ("tcp_base.npy", "gripper.npy", "joint.npy")
MAX_WIDTH_MM = 150.0  # the widest gripper opens 110 mm; raw counts go to 255 or 1000
NORM_TOLERANCE = 1e-2
MAX_JOINT_RAD = 4 * np.pi


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rh20tMotion:
    """Everything up to the finish. `T_base_eef` [N, 4, 4] is aligned; `pose_valid` [N]; widths in mm, joints in radians."""

    tcp: StampedSamples  # rows of xyz and wxyz, not aligned
    T_base_eef: Array
    pose_valid: npt.NDArray[np.bool_]
    width: StampedSamples
    commanded_width: StampedSamples
    joints: StampedSamples | str  # or why there are none

    @property
    def first_ms(self) -> int:
        parts = (self.tcp, self.width, self.commanded_width, self.joints)
        return min(int(part.ms[0]) for part in parts if isinstance(part, StampedSamples))


def read_motion(
    folder: Path, where: str, setup: Configuration, finish_ms: int | None
) -> Rh20tMotion:
    """Read `folder`, the scene's transformed/; `where` names it in errors.

    Raises:
        SourceError: NOT_A_ROTATION, MISSING_CHANNEL, EMPTY_EPISODE (nothing before the finish, or no pose that holds),
            UNKNOWN_LAYOUT (no millimetres), UNSAFE_PATH, or as `load_dict` and `samples_of`.
    """
    tcp_path, gripper_path, joint_path = (inside(folder, name) for name in FILES)
    tcp = _tcp(tcp_path, f"{where}/tcp_base.npy", finish_ms)
    T_base_eef, pose_valid = _aligned(tcp, setup, f"{where}/tcp_base.npy")
    gripper = load_dict(gripper_path, f"{where}/gripper.npy")
    width, commanded = (
        _widths(gripper, key, f"{where}/gripper.npy", finish_ms)
        for key in ("gripper_info", "gripper_command")
    )
    return Rh20tMotion(
        tcp=tcp,
        T_base_eef=T_base_eef,
        pose_valid=pose_valid,
        width=width,
        commanded_width=commanded,
        joints=_joints(joint_path, f"{where}/joint.npy", setup, finish_ms),
    )


def motion_streams(motion: Rh20tMotion, setup: Configuration, zero_ms: int) -> Iterator[Stream]:
    """Pose, measured and commanded opening, joints; times from `zero_ms`."""
    yield Stream(
        spec=pose_channel("left.T_base_eef"),
        t_ns=(motion.tcp.ms - zero_ms) * NS_PER_MS,
        values=motion.T_base_eef,
        valid=motion.pose_valid,
    )
    # A commanded width is in force until the next one: it is held, a measured one is not.
    for name, samples, is_held in (
        ("left.gripper_opening", motion.width, False),
        ("command.left.gripper_opening", motion.commanded_width, True),
    ):
        yield Stream(
            spec=gripper_channel(name, binary=is_held),
            t_ns=(samples.ms - zero_ms) * NS_PER_MS,
            values=np.clip(samples.values / setup.max_width_mm, 0.0, 1.0),
            valid=_is_finite(samples),
        )
    if isinstance(motion.joints, StampedSamples):
        yield Stream(
            spec=vector_channel("joint_position_rad", setup.num_joints, Unit.RADIAN),
            t_ns=(motion.joints.ms - zero_ms) * NS_PER_MS,
            values=motion.joints.values,
            valid=_is_finite(motion.joints),
        )


def _is_finite(samples: StampedSamples) -> npt.NDArray[np.bool_]:
    return np.asarray(np.isfinite(samples.values).all(axis=1), dtype=bool)


def _tcp(path: Path, where: str, finish_ms: int | None) -> StampedSamples:
    return samples_of(_tcp_rows(load_dict(path, where), where), 7, where).until(finish_ms, where)


def _aligned(
    samples: StampedSamples, setup: Configuration, where: str
) -> tuple[Array, npt.NDArray[np.bool_]]:
    """T_base_eef [N, 4, 4], and which rows hold: the API passes over NaN and all-zero poses as well."""
    poses = samples.values
    valid = np.isfinite(poses).all(axis=1) & (poses != 0).any(axis=1)
    if not valid.any():
        raise SourceError(Code.EMPTY_EPISODE, "every pose is NaN or zero", where=where)
    worst = float(np.abs(np.linalg.norm(poses[valid, 3:], axis=1) - 1.0).max())
    if worst > NORM_TOLERANCE:
        problem = f"quaternion norms differ from 1 by {worst:.2g}; expected xyz and then wxyz"
        raise SourceError(Code.NOT_A_ROTATION, problem, where=where)
    T = np.tile(np.eye(4), (len(poses), 1, 1))
    T_raw = transform(rotmat_from_quat_wxyz(poses[valid, 3:]), poses[valid, :3])
    T[valid] = inverse(setup.T_base_aligned) @ T_raw @ setup.T_tcp_aligned
    return T, np.asarray(valid, dtype=bool)


def _widths(
    gripper: Mapping[Any, Any], key: str, where: str, finish_ms: int | None
) -> StampedSamples:
    """Width in mm [N, 1]."""
    samples = samples_of(_gripper_rows(gripper, key, where), 1, where).until(finish_ms, where)
    worst = float(np.nanmax(np.abs(samples.values), initial=0.0))
    if worst > MAX_WIDTH_MM:
        problem = f"{key} up to {worst:g}; expected millimetres, at most {MAX_WIDTH_MM:g}"
        raise SourceError(Code.UNKNOWN_LAYOUT, problem, where=where)
    return samples


def _joints(
    path: Path, where: str, setup: Configuration, finish_ms: int | None
) -> StampedSamples | str:
    if not path_exists(path):
        return "left out: no joint.npy, which is a download of its own"
    rows = (row for rows in _by_serial(load_dict(path, where), dict, where) for row in rows.items())
    samples = samples_of(rows, setup.num_joints, where).until(finish_ms, where)
    worst = float(np.nanmax(np.abs(samples.values), initial=0.0))
    if worst > MAX_JOINT_RAD:
        return f"left out: up to {worst:g}, which is no joint in radians"
    return samples


def _tcp_rows(by_serial: Mapping[Any, Any], where: str) -> Iterator[tuple[Any, Any]]:
    for rows in _by_serial(by_serial, list, where):
        for row in rows:
            if not isinstance(row, dict) or not {"timestamp", "tcp"} <= row.keys():
                raise _wrong_row(row, "timestamp and tcp", where)
            yield row["timestamp"], row["tcp"]


def _gripper_rows(by_serial: Mapping[Any, Any], key: str, where: str) -> Iterator[tuple[Any, Any]]:
    for rows in _by_serial(by_serial, dict, where):
        for stamp, row in rows.items():
            if not isinstance(row, dict) or key not in row:
                raise _wrong_row(row, key, where)
            yield stamp, row[key]


def _by_serial(by_serial: Mapping[Any, Any], kind: type, where: str) -> Iterator[Any]:
    """The rows of each camera, in order of serials."""
    for serial in sorted(by_serial, key=str):
        rows = by_serial[serial]
        if not isinstance(rows, kind):
            problem = (
                f"{str(serial)[:40]} holds a {type(rows).__name__}; expected a {kind.__name__}"
            )
            raise SourceError(Code.UNKNOWN_LAYOUT, problem, where=where)
        yield rows


def _wrong_row(row: Any, expected: str, where: str) -> SourceError:
    actual = sorted(map(str, row))[:8] if isinstance(row, dict) else type(row).__name__
    return SourceError(
        Code.MISSING_CHANNEL, f"a row has {actual}; expected {expected}", where=where
    )
