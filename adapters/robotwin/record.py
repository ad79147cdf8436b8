"""One RoboTwin 2.0 file: its two layouts, its cameras, and the facts about its conventions.

The two layouts of a RoboTwin 2.0 file, distinguished by its root keys, as one set of streams.

    legacy     joint_action/{left,right}_{arm [N, 6 or 7], gripper [N]}, endpose/<side>_{endpose [N, 7], gripper [N]}
    current    state|action/<side>_{arm_joint_states, ee_joint_states [N, 1], ee_poses [N, 7]}, data_format_version
Poses are measured: 0.12 m behind the grasp centre, in the simulator's world, xyz m and quaternion wxyz, x the approach
(`RoboTwin-Platform/RoboTwin:envs/robot/robot.py`, _trans_endpose). Joints and grippers are NOT measured, whatever their names
say: they are drive targets in force when the row was taken (get_left_arm_jointState, left_gripper_val), so joints are
kept as `raw_command` only. In the current layout row k of `action` is row k + 1 of what was recorded, and the last row is gone
(`envs/utils/pkl2hdf5.py`); it says nothing that the state does not.

RoboTwin cameras: JPEG rows, their model, and their pose turned from OpenGL to OpenCV axes.

    <camera>/{rgb | colors} [N] fixed-length strings, JPEG, red and blue swapped (see the facts below)
    <camera>/{intrinsic_cv | intrinsic_matrix} [N, 3, 3] or [3, 3] pixels
    <camera>/{cam2world_gl | extrinsics_matrix | extrinsic_matrix} [N, 4, 4]: x right, y UP, z BACKWARD, in the world
    <camera>/extrinsic_cv [N, 3, 4], legacy only: world to camera, OpenCV axes
The poses of the arms are in the same world, so T_base_cam is T_world_cam here. Wrist cameras move.
Source: `RoboTwin-Platform/RoboTwin:envs/camera/camera.py` (get_config). Not read: depth, point clouds, segmentation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from adapters.containers.hdf5 import Hdf5File
from adapters.containers.hdf5_camera import StorageOrder, camera_name, hdf5_camera
from adapters.containers.poses import poses_of_rows
from schemas.episode import (
    SIDES,
    Camera,
    Stream,
    Unit,
    gripper_channel,
    pose_channel,
    vector_channel,
)
from schemas.errors import Code, SourceError
from schemas.fact import Certainty, Fact, fact
from schemas.geometry import ROTATION_TOLERANCE, Array, inverse, rotation_error
from schemas.rate import rate_from

# -- generations ---------------------------------------------------------------------------------------------------

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


# -- facts ---------------------------------------------------------------------------------------------------------

ROBOT = f"{REPO}:envs/robot/robot.py"
RECORDER = f"{REPO}:envs/_base_task.py, envs/utils/pkl2hdf5.py"
CODE, INFERRED = Certainty.CODE, Certainty.INFERRED


def facts_of(layout: Generation, *, has_pose: bool) -> list[Fact]:
    """What the code of the simulator says; where the arms stand is in no file."""
    row = "targets of the same row" if layout is LEGACY else "recorded one row later"
    targets = f"drive targets, joints rad and grippers, {row}; the achieved pose is the action"
    gripper = "0 closed .. 1 open; the target in force, not a measurement"
    bounds = "rows at the ends of a motion are 0, 1 or up to 15 physics steps apart; counted as 15"
    swapped = "JPEG of RGB pictures by an encoder that expects BGR: red and blue swapped back"
    facts = [
        fact("layout", layout.name, CODE, "root keys of the file"),
        fact("action_kind", targets, CODE, ROBOT),
        fact("gripper_polarity", gripper, CODE, ROBOT, for_actions=True),
        fact("row_timing", bounds, CODE, RECORDER),
        fact("colour", swapped, CODE, f"{REPO}:envs/utils/pkl2hdf5.py, issue 473"),
        fact("success_rule", "only seeds that succeed are recorded", INFERRED, RECORDER),
    ]
    if has_pose:
        frame = "0.12 m behind the grasp centre, x approach; world of the simulator"
        world = "no arm base is stored; robots face +y of the world"
        facts += [
            fact("eef_rotation_form", "quat_wxyz", CODE, ROBOT, for_actions=True),
            fact("eef_frame", frame, CODE, ROBOT, for_actions=True),
            fact("base_frame", world, INFERRED, ROBOT),
        ]
    return facts


# -- cameras -------------------------------------------------------------------------------------------------------

COLOUR = StorageOrder(encoded_is_bgr=True)
CV_FROM_GL = np.diag([1.0, -1.0, -1.0, 1.0])  # the same camera with y down and z forward
MAX_DIFFERENCE = 1e-3  # metres or matrix entries, between the two ways that a legacy file says it
SOURCE = f"{REPO}:envs/camera/camera.py"


def read_cameras(
    file: Hdf5File, layout: Generation, t_ns: npt.NDArray[np.int64]
) -> tuple[list[Camera], list[Stream], list[Fact]]:
    """Every camera with pictures. A wrong pose or model spoils no action: it is left out, and a fact says why.

    Raises:
        SourceError: MISSING_CHANNEL (no camera at all), FRAME_COUNT, CORRUPT_IMAGE, TOO_LARGE.
    """
    cameras: list[Camera] = []
    streams: list[Stream] = []
    facts: list[Fact] = []
    for name in file.children(layout.vision):
        group = f"{layout.vision}/{name}"
        if f"{group}/{layout.picture}" not in file:
            continue
        K = _K_cam(file, f"{group}/{layout.intrinsics}")
        key = f"{group}/{layout.picture}"
        cameras.append(hdf5_camera(file, key, name, t_ns, colour=COLOUR, K_cam=K))
        for T, pose_fact in _poses(file, layout, group, len(t_ns)):
            facts.append(pose_fact)
            if T is not None:
                spec = pose_channel(f"T_base_cam.{camera_name(name)}")
                streams.append(Stream(spec=spec, t_ns=t_ns, values=T))
    if not cameras:
        found_names = (
            f"no camera with {layout.picture!r} among {list(file.children(layout.vision))}"
        )
        raise SourceError(Code.MISSING_CHANNEL, found_names, where=f"{file.where}:{layout.vision}")
    return cameras, streams, facts


def _K_cam(file: Hdf5File, key: str) -> Array | None:
    """[3, 3] when the file has one that holds for the whole episode."""
    if key not in file or file.shape(key)[-2:] != (3, 3):
        return None
    K = file.array(key).astype(np.float64).reshape(-1, 3, 3)
    is_one = np.isfinite(K).all() and len(K) > 0 and np.abs(K - K[:1]).max() < 1e-3
    return K[0] if is_one else None


def _poses(
    file: Hdf5File, layout: Generation, group: str, num_rows: int
) -> Iterator[tuple[Array | None, Fact]]:
    """At most one: [N, 4, 4] T_world_cam in OpenCV axes, or None with the reason."""
    name = f"extrinsics.{group.rpartition('/')[2]}"
    key = next((k for k in (f"{group}/{n}" for n in layout.cam2world_gl) if k in file), "")
    if not key:
        return
    T_world_cam = _matrices(file, key, num_rows)
    if T_world_cam is None:
        yield None, fact(name, "left out: no rigid transforms", Certainty.UNKNOWN, key)
        return
    T_world_cam = T_world_cam @ CV_FROM_GL
    cv_key = f"{group}/{layout.world2cam_cv}"
    T_cam_world = _matrices(file, cv_key, num_rows) if layout.world2cam_cv else None
    if T_cam_world is None:
        yield T_world_cam, fact(name, "OpenGL axes, turned to OpenCV", Certainty.CODE, SOURCE)
    elif np.abs(inverse(T_cam_world) - T_world_cam).max() > MAX_DIFFERENCE:
        why = "left out: cam2world_gl and extrinsic_cv disagree"
        yield None, fact(name, why, Certainty.UNKNOWN, "compared in this episode")
    else:
        value = "OpenGL axes, turned to OpenCV; extrinsic_cv agrees"
        yield T_world_cam, fact(name, value, Certainty.VERIFIED, "compared in this episode")


def _matrices(file: Hdf5File, key: str, num_rows: int) -> Array | None:
    """[N, 4, 4] from [N, 4, 4], [N, 3, 4] or one of them; None when they are no rigid transforms."""
    if key not in file or file.shape(key)[-2:] not in ((3, 4), (4, 4)):
        return None
    matrices = file.array(key).astype(np.float64)
    matrices = matrices.reshape(-1, *matrices.shape[-2:])
    if len(matrices) not in (1, num_rows):
        return None
    T = np.tile(np.eye(4), (num_rows, 1, 1))
    T[:, :3] = matrices[:, :3]
    is_rigid = np.isfinite(T).all() and rotation_error(T[:, :3, :3]).max() <= ROTATION_TOLERANCE
    return T if is_rigid else None
