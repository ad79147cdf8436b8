"""One demonstration of robosuite as canonical streams.

    actions [N, 7 or 14]   per robot, OSC_POSE: six deltas in -1 .. 1, then the gripper, -1 opens, +1 closes
    obs/robot<r>_{eef_pos [N, 3], eef_quat [N, 4] xyzw, gripper_qpos [N, 2], joint_pos [N, 7] or joint_pos_{cos,sin}}
    obs/{ee_pos [N, 3], ee_ori [N, 3] rotation vector, gripper_states [N, 2], joint_states [N, 7]}         (LIBERO)
    obs/<camera>_image, <camera>_rgb [N, H, W, 3] uint8
The position is that of the grip SITE, the rotation that of the body right_hand, which is turned by Rz(-90 deg) from the site:
two frames, verified with robosuite 1.4.1. `robosuite_panda_body` in the registry expects exactly this pair. World, not base,
axes: x forward, y left, z up. A delta moves the target from the pose at issue; the controller reaches part of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from adapters.containers.hdf5 import Hdf5File
from adapters.robomimic.environment import Environment
from schemas.episode import SIDES, Stream, Unit, gripper_channel, pose_channel, vector_channel
from schemas.errors import Code, SourceError
from schemas.geometry import Array, rotmat_from_quat_xyzw, rotmat_from_rotvec, transform
from schemas.rate import instants_ns

OPEN_WIDTH_M = 0.08  # of the Panda gripper; each finger 0.04
OSC = ("dx", "dy", "dz", "drx", "dry", "drz", "gripper")


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoClock:
    """Row instants: when rows were observed, and when their actions were issued and due."""

    t_ns: npt.NDArray[np.int64]
    issue_ns: npt.NDArray[np.int64]
    due_ns: npt.NDArray[np.int64]


def clock_of(env: Environment, num_rows: int) -> DemoClock:
    """robomimic rows hold what was seen before the action; LIBERO's own rows what was seen after it."""
    ticks = instants_ns(num_rows + 1, env.rate_hz)
    seen = ticks[1:] if env.is_libero_original else ticks[:-1]
    return DemoClock(t_ns=seen, issue_ns=ticks[:-1], due_ns=ticks[1:])


def robots_in(file: Hdf5File, group: str) -> int:
    """Number of single-arm robots whose observations are there.

    Raises:
        SourceError: UNKNOWN_LAYOUT when there is none (states to be replayed), more than two, or a two-armed robot.
    """
    names = set(file.children(f"{group}/obs"))
    if {"ee_pos", "ee_ori"} <= names:
        return 1
    count = sum(f"robot{k}_eef_pos" in names for k in range(3))
    if count in (1, 2):
        return count
    problem = "neither robot0_eef_pos nor ee_pos" if count == 0 else f"{count} robots"
    todo = "expected one or two arms; replay simulator states into observations first"
    raise SourceError(
        Code.UNKNOWN_LAYOUT,
        f"{problem} in {sorted(names)[:40]}; {todo}",
        where=f"{file.where}:{group}/obs",
    )


def demo_streams(file: Hdf5File, group: str, env: Environment) -> Iterator[Stream]:
    """Raises SourceError: MISSING_CHANNEL, SHAPE_MISMATCH, EMPTY_EPISODE, NOT_FINITE, NOT_A_ROTATION."""
    num_robots = robots_in(file, group)
    shape = file.shape(f"{group}/actions")
    actions = file.rows(f"{group}/actions", *shape[1:2])
    if len(shape) != 2 or shape[1] % num_robots:
        problem = f"{list(shape)} for {num_robots} robots"
        raise SourceError(Code.SHAPE_MISMATCH, problem, where=f"{file.where}:{group}/actions")
    clock = clock_of(env, len(actions))
    joints = []
    for k in range(num_robots):
        yield _pose(file, group, k, clock, is_libero=env.is_libero)
        joints.append(_joints(file, group, k, len(actions), is_panda=env.is_panda))
        if env.is_panda:
            part = actions.reshape(len(actions), num_robots, -1)[:, k]
            yield from _gripper(file, group, k, clock, part[:, -1])
    if all(j is not None for j in joints):
        values = np.concatenate([j for j in joints if j is not None], axis=1)
        names = tuple(f"{SIDES[k]}_joint{i}" for k in range(num_robots) for i in range(1, 8))
        spec = vector_channel("joint_position_rad", len(names), Unit.RADIAN, names=names)
        yield Stream(spec=spec, t_ns=clock.t_ns, values=values)
    names = _action_names(num_robots, shape[1] // num_robots, env.controller)
    spec = vector_channel("raw_command", shape[1], Unit.SOURCE, names=names, hold=True)
    yield Stream(spec=spec, t_ns=clock.issue_ns, values=actions)


def _pose(file: Hdf5File, group: str, k: int, clock: DemoClock, *, is_libero: bool) -> Stream:
    num_rows = len(clock.t_ns)
    if is_libero:
        xyz_m = file.rows(f"{group}/obs/ee_pos", 3, num_rows=num_rows)
        rotvec = file.rows(f"{group}/obs/ee_ori", 3, num_rows=num_rows)
        _check_finite(rotvec, f"{file.where}:{group}/obs/ee_ori")
        R = rotmat_from_rotvec(rotvec)
    else:
        xyz_m = file.rows(f"{group}/obs/robot{k}_eef_pos", 3, num_rows=num_rows)
        key = f"{group}/obs/robot{k}_eef_quat"
        quat = file.rows(key, 4, num_rows=num_rows)
        _check_finite(quat, f"{file.where}:{key}")
        if np.abs(np.linalg.norm(quat, axis=1) - 1).max() > 1e-2:
            problem = "a quaternion does not have norm 1"
            raise SourceError(Code.NOT_A_ROTATION, problem, where=f"{file.where}:{key}")
        R = rotmat_from_quat_xyzw(quat)
    spec = pose_channel(f"{SIDES[k]}.T_base_eef")
    return Stream(spec=spec, t_ns=clock.t_ns, values=transform(R, xyz_m))


def _gripper(
    file: Hdf5File, group: str, k: int, clock: DemoClock, commands: Array
) -> Iterator[Stream]:
    """Opening from both finger joints, and the command: +1 closes, -1 opens, 0 leaves the target where it was."""
    key = (
        "gripper_states"
        if "gripper_states" in file.children(f"{group}/obs")
        else f"robot{k}_gripper_qpos"
    )
    qpos = file.rows(f"{group}/obs/{key}", 2, num_rows=len(clock.t_ns))
    opening = np.clip((qpos[:, :1] - qpos[:, 1:]) / OPEN_WIDTH_M, 0.0, 1.0)
    spec = gripper_channel(f"{SIDES[k]}.gripper_opening", binary=False)
    yield Stream(spec=spec, t_ns=clock.t_ns, values=opening)
    at = np.where(commands != 0, np.arange(len(commands)), -1)
    last = np.maximum.accumulate(at)
    spec = gripper_channel(f"command.{SIDES[k]}.gripper_opening", binary=True)
    target = (commands[np.maximum(last, 0)] < 0).astype(np.float64)[:, None]
    yield Stream(spec=spec, t_ns=clock.due_ns, values=target, valid=last >= 0)


def _joints(file: Hdf5File, group: str, k: int, num_rows: int, *, is_panda: bool) -> Array | None:
    """[N, 7] rad; from sine and cosine where robosuite 1.4 stored only those and the limits tell the turn."""
    obs = file.children(f"{group}/obs")
    for key in ("joint_states", f"robot{k}_joint_pos"):
        if key in obs and file.shape(f"{group}/obs/{key}")[1:] == (7,):
            return file.rows(f"{group}/obs/{key}", 7, num_rows=num_rows)
    both = [f"robot{k}_joint_pos_{f}" for f in ("sin", "cos")]
    if not (is_panda and set(both) <= set(obs)):
        return None
    sin, cos = (file.rows(f"{group}/obs/{key}", 7, num_rows=num_rows) for key in both)
    angles = np.arctan2(sin, cos)
    # A Panda's joint 6 turns from -0.02 to 3.75 rad, beyond pi: real replays wrapped to -3.12. The others stay within.
    angles[:, 5] += np.where(angles[:, 5] < -1.0, 2 * np.pi, 0.0)
    return np.asarray(angles, dtype=np.float64)


def _check_finite(values: Array, where: str) -> None:
    if not np.isfinite(values).all():
        raise SourceError(Code.NOT_FINITE, "NaN or infinity", where=where)


def _action_names(num_robots: int, width: int, controller: str) -> tuple[str, ...]:
    known = OSC if width == 7 and controller == "OSC_POSE" else tuple(map(str, range(width)))
    return tuple(f"robot{k}_{name}" for k in range(num_robots) for name in known)
