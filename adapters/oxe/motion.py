"""Raw arrays of one arm out of an episode's steps, and the poses they mean. All maths is in `schemas.geometry`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from adapters.containers.rlds_steps import Steps
from adapters.oxe.registry import MATRIX_FORMS, ArmEntry, BaseEntry, Slot
from schemas.errors import Code, SourceError
from schemas.geometry import ROTMAT_FROM, inverse, rotation_error, transform

Array = npt.NDArray[np.float64]
QUAT_TOLERANCE = 0.05  # how far a stored quaternion's norm may be from 1
BOTTOM = np.array([0.0, 0.0, 0.0, 1.0])


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmArrays:
    """What one arm has in one episode, as stored: [T, n] each, None where this set or version has none."""

    position: Array | None
    rotation: Array | None
    rotation_copy: Array | None
    T_state_base: Array | None  # [T, 4, 4] pose of the base in the frame of the eef state
    gripper: Array | None  # [T], its weights applied
    command_position: Array | None
    command_rotation: Array | None
    command_gripper: Array | None  # [T]


def slot_values(steps: Steps, slot: Slot) -> Array:
    """[T, n] float64 values of a slot.

    Raises:
        SourceError: as `Steps.numbers`; SHAPE_MISMATCH when the leaf is too short for the slot.
    """
    flat = np.asarray(steps.numbers(slot.key), dtype=np.float64).reshape(steps.num_steps, -1)
    part = flat[:, slot.start : slot.stop : slot.step]
    needed = 1 if slot.stop is None or slot.stop <= 0 else slot.stop
    if flat.shape[1] < needed or part.shape[1] == 0:
        problem = f"{flat.shape[1]} values per step; the registry needs [{slot.start}:{slot.stop}]"
        raise SourceError(Code.SHAPE_MISMATCH, problem, where=slot.key)
    return part


def read_arm(steps: Steps, arm: ArmEntry) -> ArmArrays:
    """Every slot of an arm that features.json declares. Raises SourceError as `slot_values`."""
    eef, gripper, command = arm.eef, arm.gripper, arm.command
    state_gripper = _values(steps, gripper.slot if gripper else None)
    command_gripper = _values(steps, command.gripper if command else None)
    return ArmArrays(
        position=_values(steps, eef.position if eef else None),
        rotation=_values(steps, eef.rotation if eef else None),
        rotation_copy=_values(
            steps, eef.copy_of_rotation.slot if eef and eef.copy_of_rotation else None
        ),
        T_state_base=_base(steps, eef.base if eef else None),
        gripper=None
        if state_gripper is None or gripper is None
        else _weighted(state_gripper, gripper.weights, gripper.slot.key),
        command_position=_values(steps, command.position if command else None),
        command_rotation=_values(steps, command.rotation if command else None),
        command_gripper=None if command_gripper is None else command_gripper[:, 0],
    )


def _values(steps: Steps, slot: Slot | None) -> Array | None:
    if slot is None or f"steps/{slot.key}" not in steps.leaves:
        return None
    return slot_values(steps, slot)


def _weighted(values: Array, weights: tuple[float, ...], key: str) -> Array:
    if values.shape[1] < len(weights):
        problem = f"{values.shape[1]} gripper values; the registry has weights for {len(weights)}"
        raise SourceError(Code.SHAPE_MISMATCH, problem, where=key)
    return np.asarray(values[:, : len(weights)] @ np.array(weights))


def _base(steps: Steps, base: BaseEntry | None) -> Array | None:
    if base is None:
        return None
    position, rotation = _values(steps, base.position), _values(steps, base.rotation)
    if position is None or rotation is None:
        return None
    return poses(position, rotation, base.form, where=base.position.key)


def poses(position: Array | None, rotation: Array, form: str, *, where: str) -> Array:
    """[T, 4, 4] from positions [T, 3] in metres and rotations [T, n] of that form; a matrix form holds both.

    Raises:
        SourceError: NOT_FINITE, NOT_A_ROTATION, SHAPE_MISMATCH.
    """
    if form in MATRIX_FORMS:
        return _matrices(rotation, form, where)
    if position is None or position.shape[1] != 3:
        problem = (
            f"positions of shape {None if position is None else position.shape}, expected [T, 3]"
        )
        raise SourceError(Code.SHAPE_MISMATCH, problem, where=where)
    if not np.isfinite(position).all():
        raise SourceError(Code.NOT_FINITE, "NaN or infinity in a position", where=where)
    return transform(rotmats(rotation, form, where=where), position)


def rotmats(rotation: Array, form: str, *, where: str) -> Array:
    """[T, 3, 3] from [T, n] of a form of `ROTMAT_FROM`. Raises SourceError NOT_FINITE, NOT_A_ROTATION, SHAPE_MISMATCH."""
    if not np.isfinite(rotation).all():
        raise SourceError(Code.NOT_FINITE, "NaN or infinity in a rotation", where=where)
    width = 4 if form.startswith("quat") else 3
    if form != "rotmat" and form != "rot6d_cols" and rotation.shape[1] != width:
        problem = f"{rotation.shape[1]} rotation values; {form} needs {width}"
        raise SourceError(Code.SHAPE_MISMATCH, problem, where=where)
    if form.startswith("quat"):
        worst = float(np.abs(np.linalg.norm(rotation, axis=1) - 1.0).max())
        if worst > QUAT_TOLERANCE:
            problem = (
                f"a quaternion norm differs from 1 by {worst:.3g}; expected below {QUAT_TOLERANCE}"
            )
            raise SourceError(Code.NOT_A_ROTATION, problem, where=where)
    return ROTMAT_FROM[form](rotation)


def _matrices(values: Array, form: str, where: str) -> Array:
    if values.shape[1] != 16:
        raise SourceError(
            Code.SHAPE_MISMATCH, f"{values.shape[1]} values, expected 16", where=where
        )
    if not np.isfinite(values).all():
        raise SourceError(Code.NOT_FINITE, "NaN or infinity in a pose matrix", where=where)
    T = values.reshape(-1, 4, 4)
    T = np.swapaxes(T, 1, 2) if form == "matrix4x4_col_major" else T
    if np.abs(T[:, 3] - BOTTOM).max() > 1e-3 or rotation_error(T[:, :3, :3]).max() > 1e-2:
        problem = f"not a rigid 4x4 transform in {form}"
        raise SourceError(Code.NOT_A_ROTATION, problem, where=where)
    return T


def eef_poses(arrays: ArmArrays, form: str, *, where: str) -> Array:
    """[T, 4, 4] T_base_eef in the source's own eef frame, the robot's base divided out where it is stored."""
    if arrays.rotation is None:
        raise SourceError(
            Code.MISSING_CHANNEL, "the registry declares no end-effector rotation", where=where
        )
    T = poses(arrays.position, arrays.rotation, form, where=where)
    return T if arrays.T_state_base is None else inverse(arrays.T_state_base) @ T


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaCommand:
    """How a delta action is meant: scales to metres and radians, rotation form (None: it has none), axes."""

    scale_m: float
    scale_rad: float
    form: str | None
    frame: str  # state: axes of the eef state; eef: axes of the eef itself


def delta_targets(
    T_base_eef: Array, arrays: ArmArrays, how: DeltaCommand, *, where: str
) -> tuple[Array, npt.NDArray[np.bool_]]:
    """[T, 4, 4] commanded poses and [T] which of them mean anything.

    `state`: p + dp, R(delta) @ R. `eef`: p + R dp, R @ R(delta). An action without rotation keeps the orientation. A
    quaternion delta of zero norm is no command.
    """
    if arrays.command_position is None:
        raise SourceError(Code.MISSING_CHANNEL, "the action has no position", where=where)
    R, p = T_base_eef[:, :3, :3], T_base_eef[:, :3, 3]
    dp = arrays.command_position * how.scale_m
    dR, valid = _delta_rotations(arrays.command_rotation, how, len(p), where)
    if how.frame == "eef":
        return transform(R @ dR, p + (R @ dp[..., None])[..., 0]), valid
    return transform(dR @ R, p + dp), valid


def _delta_rotations(
    rotation: Array | None, how: DeltaCommand, count: int, where: str
) -> tuple[Array, npt.NDArray[np.bool_]]:
    valid = np.ones(count, dtype=bool)
    if how.form is None or rotation is None:
        return np.broadcast_to(np.eye(3), (count, 3, 3)), valid
    if not how.form.startswith("quat"):
        return rotmats(rotation * how.scale_rad, how.form, where=where), valid
    valid = np.linalg.norm(rotation, axis=1) > 1e-6
    unit = np.array([0.0, 0.0, 0.0, 1.0] if how.form == "quat_xyzw" else [1.0, 0.0, 0.0, 0.0])
    return rotmats(np.where(valid[:, None], rotation, unit), how.form, where=where), valid
