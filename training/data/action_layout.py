"""Embodiment numbers, which never change within a run, and the place of each named action element in the one vector that all embodiments share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from schemas.episode import SIDES
from schemas.errors import ConfigError
from schemas.hand import joint_names
from schemas.manifest import Manifest

LATENT_BODY = "latent_action"  # of latent actions that the policy says (`latent_targets`)


def embodiments_of(manifest: Manifest) -> tuple[str, ...]:
    """Every body of a manifest, all splits, sorted."""
    return tuple(sorted(manifest.rows["embodiment"].unique().to_pylist()))


def grown(saved: Sequence[str], names: Iterable[str]) -> tuple[str, ...]:
    """A saved list with new embodiments appended: fine-tuning adds, and keeps the order."""
    return (*saved, *sorted(set(names) - set(saved)))


def check_known(saved: Sequence[str], names: Iterable[str], *, where: str) -> None:
    """
    Raises:
        ConfigError: a body that a checkpoint has no adapter for.
    """
    strangers = sorted(set(names) - set(saved))
    if strangers:
        known = f"known to the checkpoint: {', '.join(saved)}"
        repair = "add it by `eicorpus train --recipe finetune --init-from RUN`"
        raise ConfigError(f"unknown embodiment {strangers[0]}; {known}", remedy=repair, where=where)


MAX_HAND_JOINTS = 16  # the most of a robot hand in `schemas/embodiments.yaml`'s data sets
NUM_KEYPOINT_VALUES = 63
SIDE_WIDTH = 3 + 3 + 1 + NUM_KEYPOINT_VALUES + MAX_HAND_JOINTS
ACTION_WIDTH = len(SIDES) * SIDE_WIDTH
_JOINTS = "hand_joints_rad"


@cache
def slot_names() -> tuple[str, ...]:
    """[172] what each slot is called."""
    points = [f"hand_keypoints_m.{joint}.{axis}" for joint in joint_names() for axis in "xyz"]
    parts = [f"delta_position_m.{axis}" for axis in "xyz"]
    parts += [f"delta_rotvec_rad.{axis}" for axis in "xyz"]
    parts += ["gripper_opening", *points]
    parts += [f"{_JOINTS}.{joint}" for joint in range(MAX_HAND_JOINTS)]
    return tuple(f"{side}.{part}" for side in SIDES for part in parts)


@cache
def _slots() -> Mapping[str, int]:
    slots = {name: slot for slot, name in enumerate(slot_names())}
    for side in SIDES:  # a slice of one element has no number
        slots[f"{side}.{_JOINTS}"] = slots[f"{side}.{_JOINTS}.0"]
    return MappingProxyType(slots)


def part_slots(part: str) -> npt.NDArray[np.int64]:
    """Slots of one part of one side, `left.delta_position_m` say, in order."""
    at = [i for i, n in enumerate(slot_names()) if n == part or n.startswith(f"{part}.")]
    return np.array(at, dtype=np.int64)


def part_of_slots() -> npt.NDArray[np.int64]:
    """[172] a number for each part of each side that a slot belongs to: position, rotation, opening, keypoints, joints."""
    parts = [".".join(name.split(".")[:2]) for name in slot_names()]
    return np.array([sorted(set(parts)).index(part) for part in parts], dtype=np.int64)


def slots_of(names: Sequence[str], *, where: str) -> npt.NDArray[np.int64]:
    """[E] the slot of each element.

    Args:
        names: of `schemas.trained_action.trained_names`.
        where: whose they are, for the message.

    Raises:
        ConfigError: a hand has more joints than there are slots, or an element has no slot at all.
    """
    leave = "exclude it: run `eicorpus manifest build` with --where \"embodiment <> '...'\""
    for side in SIDES:
        joints = [n for n in names if n == f"{side}.{_JOINTS}" or n.startswith(f"{side}.{_JOINTS}.")]  # fmt: skip
        if len(joints) > MAX_HAND_JOINTS:
            problem = f"{len(joints)} joints of the {side} hand; expected at most {MAX_HAND_JOINTS}"
            raise ConfigError(problem, remedy=leave, where=where)
    odd = [name for name in names if name not in _slots()]
    if odd:
        problem = f"{len(odd)} action elements have no slot in the action vector, {odd[0]!r} first"
        raise ConfigError(
            f"{problem}; expected those of training/data/action_layout.py",
            remedy=leave,
            where=where,
        )
    return np.array([_slots()[name] for name in names], dtype=np.int64)
