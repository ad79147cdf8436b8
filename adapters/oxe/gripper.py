"""Gripper commands of Open X-Embodiment to opening, 1 open and 0 closed.

The operations are those that octo and openvla apply (code: octo-models/octo:octo/data/utils/data_utils.py and
octo/data/oxe/oxe_standardization_transforms.py), written here from their description; which set uses which is registry data.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

PULSE = 0.1  # a relative command beyond this opens or closes (octo rel2abs_gripper_actions)
OPEN_ABOVE, CLOSED_BELOW = 0.95, 0.05  # octo binarize_gripper_actions
BINARY_OPS = ("rel2abs", "binarize")  # their results are held, never blended


def rel2abs(pulses: Array) -> Array:
    """[T] pulses (+1 close, -1 open) latched to 0 or 1.

    Before the first pulse the gripper is in the state opposite to what that pulse asks for; without any pulse it is
    open.
    """
    wants_open = np.where(pulses < -PULSE, 1.0, np.where(pulses > PULSE, 0.0, np.nan))
    return _latched(wants_open)


def _latched(targets: Array) -> Array:
    """The latest decided value at each step; before the first one its opposite; open when none is decided."""
    decided = np.flatnonzero(~np.isnan(targets))
    if len(decided) == 0:
        return np.ones_like(targets)
    latest = np.searchsorted(decided, np.arange(len(targets)), side="right") - 1
    held = targets[decided[np.maximum(latest, 0)]]
    return np.where(latest < 0, 1.0 - targets[decided[0]], held)


def binarize(opening: Array) -> Array:
    """[T] 0..1 to 0 or 1: above 0.95 open, below 0.05 closed, in between the NEXT decided value.

    A trailing run that is never decided keeps the raw last value, as octo has it.
    """
    value = np.where(opening > OPEN_ABOVE, 1.0, np.where(opening < CLOSED_BELOW, 0.0, np.nan))
    decided = np.flatnonzero(~np.isnan(value))
    following = np.searchsorted(decided, np.arange(len(opening)), side="left")
    padded = np.append(value[decided], opening[-1:])
    return np.asarray(padded[following])


GRIPPER_OPS: dict[str, Callable[[Array], Array]] = {
    "identity": lambda x: x,
    "invert": lambda x: 1.0 - x,
    "clip01": lambda x: np.clip(x, 0.0, 1.0),
    "clip01_invert": lambda x: 1.0 - np.clip(x, 0.0, 1.0),
    "rel2abs": rel2abs,
    "binarize": binarize,
    "from_state_invert": lambda state: 1.0 - state,  # takes the gripper state: no command is stored
    "div255_invert": lambda x: 1.0 - x / 255.0,
    "pm1_to_01": lambda x: (x + 1.0) / 2.0,
    "pm1_to_01_invert": lambda x: (1.0 - x) / 2.0,
}


def opening_from_command(values: Array, op: str) -> Array:
    """[T] commanded opening in [0, 1] from the raw gripper element [T]; KeyError for an operation that is not one."""
    return np.clip(GRIPPER_OPS[op](np.asarray(values, dtype=np.float64)), 0.0, 1.0)
