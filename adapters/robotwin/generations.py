"""The two layouts of a RoboTwin 2.0 file, distinguished by its root keys, as one set of streams.

    legacy     joint_action/{left,right}_{arm [N, 6 or 7], gripper [N]}, endpose/<side>_{endpose [N, 7], gripper [N]}
    current    state|action/<side>_{arm_joint_states, ee_joint_states [N, 1], ee_poses [N, 7]}, data_format_version
Poses are measured: 0.12 m behind the grasp centre, in the simulator's world, xyz m and quaternion wxyz, x the approach
(`RoboTwin-Platform/RoboTwin:envs/robot/robot.py`, _trans_endpose). Joints and grippers are NOT measured, whatever their names
say: they are drive targets in force when the row was taken (get_left_arm_jointState, left_gripper_val), so joints are
kept as `raw_command` only. In the current layout row k of `action` is row k + 1 of what was recorded, and the last row is gone
(`envs/utils/pkl2hdf5.py`); it says nothing that the state does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from adapters.containers.hdf5 import Hdf5File
from adapters.containers.pose_rows import poses_of_rows
from schemas.episode import SIDES, Stream, Unit, gripper_channel, pose_channel, vector_channel
from schemas.errors import Code, SourceError
from schemas.fact import Certainty, Fact, fact
from schemas.geometry import Array
from schemas.rate import rate_from

PHYSICS_HZ = 250  # scene.set_timestep(1 / 250)
STEPS_PER_ROW = 15  # save_freq of every task configuration that is published
OPENING_TOLERANCE = 1e-3
REPO = "RoboTwin-Platform/RoboTwin"
CALLER = "the caller's option"


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """Where one layout keeps things; `{side}` is left or right."""

    name: str
    keys: frozenset[str]  # at the root of the file, all of them
    eef_key: str
    openings: tuple[str, ...]  # the first that is there
    targets: tuple[str, str]  # arm joints and gripper of the action
    vision: str
    picture: str
    intrinsics: str
    cam2world_gl: tuple[str, ...]
    world2cam_cv: str


LEGACY = Generation(
    name="legacy",
    keys=frozenset({"joint_action", "observation"}),
    eef_key="endpose/{side}_endpose",
    openings=("endpose/{side}_gripper", "joint_action/{side}_gripper"),
    targets=("joint_action/{side}_arm", "joint_action/{side}_gripper"),
    vision="observation",
    picture="rgb",
    intrinsics="intrinsic_cv",
    cam2world_gl=("cam2world_gl",),
    world2cam_cv="extrinsic_cv",
)
CURRENT = Generation(
    name="current",
    keys=frozenset({"state", "action", "vision"}),
    eef_key="state/{side}_ee_poses",
    openings=("state/{side}_ee_joint_states",),
    targets=("action/{side}_arm_joint_states", "action/{side}_ee_joint_states"),
    vision="vision",
    picture="colors",
    intrinsics="intrinsic_matrix",
    # The recorder writes the first, `scripts/process_data_xpolicylab.py` the second; both hold cam2world_gl.
    cam2world_gl=("extrinsics_matrix", "extrinsic_matrix"),
    world2cam_cv="",
)


def generation_of(file: Hdf5File) -> Generation:
    """Raises SourceError UNKNOWN_LAYOUT when the root keys are those of neither."""
    have = set(file.children(""))
    for generation in (LEGACY, CURRENT):
        if generation.keys <= have:
            return generation
    layouts = " or ".join(str(sorted(g.keys)) for g in (LEGACY, CURRENT))
    problem = f"the file contains {sorted(have)[:20]}; expected {layouts}"
    raise SourceError(Code.UNKNOWN_LAYOUT, problem, where=file.where)


def rate_of(file: Hdf5File, options: Mapping[str, str]) -> tuple[Fraction, Fact]:
    """Rows a second. `additional_info/frequency` is no frequency: it is the number of physics steps in a row.

    Raises:
        SourceError: BAD_ANNOTATION when that number is not from 1 to 250.
    """
    if "rate_hz" in options:
        rate = rate_from(options["rate_hz"])
        return rate, fact("rate", f"{rate} Hz", Certainty.DOCUMENTED, CALLER, for_actions=True)
    key, steps, how, says = "additional_info/frequency", STEPS_PER_ROW, Certainty.CODE, "save_freq"
    if key in file:
        frequency = float(file.array(key, max_bytes=8).ravel()[0])
        if not (1 <= frequency <= PHYSICS_HZ and frequency == int(frequency)):
            problem = f"{frequency:g}; expected physics steps per row, 1 .. {PHYSICS_HZ}"
            raise SourceError(Code.BAD_ANNOTATION, problem, where=f"{file.where}:{key}")
        steps, says = int(frequency), "additional_info/frequency"
        if not file.has_attribute("", "source_format"):  # another writer may have meant Hz
            how = Certainty.INFERRED
    rate = Fraction(PHYSICS_HZ, steps)
    source = f"{REPO}:envs/_base_task.py: {says} {steps} steps of 1/{PHYSICS_HZ} s"
    return rate, fact("rate", f"{rate} Hz", how, source, for_actions=True)


def motion_streams(
    file: Hdf5File, layout: Generation, t_ns: npt.NDArray[np.int64]
) -> Iterator[Stream]:
    """Raises SourceError: MISSING_CHANNEL, SHAPE_MISMATCH, NOT_FINITE, NOT_A_ROTATION, UNKNOWN_LAYOUT."""
    for side in SIDES:
        key = layout.eef_key.format(side=side)
        if key in file:
            rows = file.rows(key, 7, num_rows=len(t_ns))
            T = poses_of_rows(rows, "quat_wxyz", f"{file.where}:{key}")
            yield Stream(spec=pose_channel(f"{side}.T_base_eef"), t_ns=t_ns, values=T)
        spec = gripper_channel(f"{side}.gripper_opening", binary=False)
        yield Stream(spec=spec, t_ns=t_ns, values=_opening(file, layout, side, len(t_ns)))
    names: list[str] = []
    parts: list[Array] = []
    for side in SIDES:
        arm, gripper = (_columns(file, k.format(side=side), len(t_ns)) for k in layout.targets)
        names += [f"{side}_joint{k}" for k in range(1, arm.shape[1] + 1)]
        names += [f"{side}_gripper"]
        parts += [arm, gripper[:, :1]]
    spec = vector_channel("raw_command", len(names), Unit.SOURCE, names=tuple(names), hold=True)
    yield Stream(spec=spec, t_ns=t_ns, values=np.concatenate(parts, axis=1))


def num_rows_of(file: Hdf5File, layout: Generation) -> int:
    """Rows of the episode, counted where every file has them."""
    key = layout.targets[0].format(side="left")
    if not (count := file.shape(key)[0]):
        raise SourceError(Code.EMPTY_EPISODE, "no rows", where=f"{file.where}:{key}")
    return count


def _opening(file: Hdf5File, layout: Generation, side: str, num_rows: int) -> Array:
    """[N, 1], 0 closed to 1 open. The simulator clips it, so anything else is another quantity."""
    keys = [key.format(side=side) for key in layout.openings]
    key = next((key for key in keys if key in file), keys[0])
    values = _columns(file, key, num_rows)[:, :1]
    if np.abs(values - 0.5).max() > 0.5 + OPENING_TOLERANCE:
        problem = f"{values.min():g} .. {values.max():g}; expected 0 closed .. 1 open"
        raise SourceError(Code.UNKNOWN_LAYOUT, problem, where=f"{file.where}:{key}")
    return np.clip(values, 0.0, 1.0)


def _columns(file: Hdf5File, key: str, num_rows: int) -> Array:
    """[N, k], whether it is stored as [N] or [N, k]."""
    return file.rows(key, *file.shape(key)[1:2], num_rows=num_rows).reshape(num_rows, -1)
