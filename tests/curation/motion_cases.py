"""What the tests of motion and action measures share: which measures they are, and paths to measure."""

from __future__ import annotations

from typing import Any

import numpy as np

from schemas.geometry import Array
from tests.curation.arms import (
    ArmPath,
    view_of,
)

MINE = (
    "motion",
    "smoothness",
    "limits",
    "reversals",
    "gripper",
    "command",
    "columns",
    "validity",
    "length",
    "endpoints",
    "swap",
    "replay",
    "trajectory",
)


ORIGIN, AHEAD = np.zeros(3), np.array([0.3, 0.0, 0.0])


def line(*knots: tuple[int, float], axis: int = 0) -> Array:
    """[K, 3] straight lines between (timestep, metres) along an axis."""
    at, metres = zip(*knots, strict=True)
    out = np.zeros((at[-1] + 1, 3))
    out[:, axis] = np.interp(np.arange(at[-1] + 1), at, metres)
    return out


def one(position_m: Array, **more: Any) -> Any:
    return view_of({"left": ArmPath(position_m=position_m, **more)})
