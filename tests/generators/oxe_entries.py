"""A synthetic episode of any entry of the Open X-Embodiment registry: every leaf that the entry names, none of it constant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from adapters.oxe.registry import ArmEntry, OxeSet, Slot
from jobs.demo.raw.oxe import Key, jpeg, write_set

STEPS = 12
ROTATION_WIDTH = {
    "matrix4x4_row_major": 16,
    "matrix4x4_col_major": 16,
    "rotmat": 9,
    "rot6d_cols": 6,
}


def write_entry(root: Path, entry: OxeSet) -> dict[str, np.ndarray]:
    """A version directory of one episode of STEPS steps; returns what each numeric leaf holds, [STEPS, n] by key."""
    rng = np.random.default_rng(len(entry.name))
    leaves = {
        key: rng.uniform(0.1, 0.9, (STEPS, width)) for key, width in sorted(_widths(entry).items())
    }
    for arm in entry.arms.values():
        _fill(leaves, arm, rng)
    spec: dict[Key, tuple] = {
        _path(k): ("tensor", (v.shape[1],), "float32") for k, v in leaves.items()
    }
    episode: dict[Key, object] = {_path(key): values for key, values in leaves.items()}
    for camera in entry.cameras:
        spec[_path(camera.key)] = ("image", (16, 16, 3), "uint8", "jpeg")
        pictures = rng.integers(0, 255, (STEPS, 16, 16, 3), dtype=np.uint8)
        episode[_path(camera.key)] = [jpeg(p) for p in pictures]
    write_set(root / entry.tfds_name / "1.0.0", spec, [episode])
    return {key: values.astype(np.float32) for key, values in leaves.items()}


def slots_of(arm: ArmEntry) -> list[tuple[Slot, int]]:
    """Every slot of an arm and how many numbers it needs where it is open to the end."""
    out: list[tuple[Slot | None, int]] = []
    if arm.eef is not None:
        width = _rotation_width(arm.eef.form, arm.eef.candidates)
        out += [(arm.eef.position, 3), (arm.eef.rotation, width)]
        if copy := arm.eef.copy_of_rotation:
            out.append((copy.slot, _rotation_width(None, copy.candidates)))
        if base := arm.eef.base:
            out += [(base.position, 3), (base.rotation, _rotation_width(base.form, ()))]
    if arm.gripper is not None:
        out.append((arm.gripper.slot, len(arm.gripper.weights)))
    if command := arm.command:
        width = _rotation_width(command.form, command.candidates)
        out += [(command.position, 3), (command.rotation, width), (command.gripper, 1)]
    return [(slot, width) for slot, width in out if slot is not None]


def _rotation_width(form: str | None, candidates: tuple[str, ...]) -> int:
    name = form or (candidates[0] if candidates else "")
    return ROTATION_WIDTH.get(name, 4 if name.startswith("quat") else 3)


def _widths(entry: OxeSet) -> dict[str, int]:
    needed = [pair for arm in entry.arms.values() for pair in slots_of(arm)]
    needed += [(slot, 7) for slot in (entry.joints.slots if entry.joints else ())]
    widths: dict[str, int] = {}
    for slot, open_width in needed:
        end = (
            slot.stop
            if slot.stop is not None and slot.stop > 0
            else max(slot.start, 0) + open_width
        )
        beside = -min(slot.start, slot.stop or 0, 0)  # counted from the end of the leaf
        widths[slot.key] = max(widths.get(slot.key, 1), end + beside)
    if not any(key.startswith("action") for key in widths):
        widths["action"] = 7  # of which the registry knows nothing
    return widths


def _fill(leaves: dict[str, np.ndarray], arm: ArmEntry, rng: np.random.Generator) -> None:
    """Rotations that are rotations, a walk of millimetres for positions, jaws that open and close."""
    position_m = np.cumsum(rng.uniform(0.001, 0.004, (STEPS, 3)), axis=0) + 0.3
    turn = Rotation.from_rotvec(np.cumsum(rng.uniform(0.005, 0.02, (STEPS, 3)), axis=0))
    if eef := arm.eef:
        _put(leaves, eef.position, position_m)
        _put(leaves, eef.rotation, _written(turn, eef.form, eef.candidates, position_m))
        if eef.copy_of_rotation:
            copy = eef.copy_of_rotation
            _put(leaves, copy.slot, _written(turn, None, copy.candidates, position_m))
        if eef.base:
            _put(leaves, eef.base.rotation, _written(turn, eef.base.form, (), position_m))
    if command := arm.command:
        step = Rotation.from_rotvec(rng.uniform(0.005, 0.02, (STEPS, 3)))
        _put(leaves, command.position, rng.uniform(0.001, 0.004, (STEPS, 3)))
        _put(leaves, command.rotation, _written(step, command.form, command.candidates, position_m))
        _put(leaves, command.gripper, np.where(np.arange(STEPS) < 6, 0.9, 0.1)[:, None])


def _put(leaves: dict[str, np.ndarray], slot: Slot | None, values: np.ndarray) -> None:
    if slot is None:
        return
    where = leaves[slot.key][:, slot.start : slot.stop : slot.step]
    width = min(where.shape[1], values.shape[1])
    where[:, :width] = values[:, :width]


def _written(
    turn: Rotation, form: str | None, candidates: tuple[str, ...], position_m: np.ndarray
) -> np.ndarray:
    name = form or (candidates[0] if candidates else "rotvec")
    if name.startswith("quat"):
        xyzw = turn.as_quat()
        return xyzw if name == "quat_xyzw" else np.roll(xyzw, 1, axis=1)
    if name.startswith("matrix"):
        T = np.tile(np.eye(4), (len(position_m), 1, 1))
        T[:, :3, :3], T[:, :3, 3] = turn.as_matrix(), position_m
        return (T if name.endswith("row_major") else np.swapaxes(T, 1, 2)).reshape(-1, 16)
    return turn.as_rotvec()  # an Euler angle of any order is a rotation


def _path(key: str) -> Key:
    return tuple(key.split("/"))
