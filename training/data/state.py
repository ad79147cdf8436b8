"""The measured pose of now as a token, for recipes that ask for it (`data.with_state`).

52 = 2 x 26 elements of `observation.state`, absolute and as stored: per side `position_m` 3, `rot6d_cols` 6, `gripper_opening` 1,
`hand_joints_rad` 16. They are metres, direction cosines, a fraction and radians, all of order one, so they are not normalised. What a body does not
have, and what was not measured, is 0.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from schemas.episode import SIDES
from schemas.trained_action import Named
from training.data.action_layout import MAX_HAND_JOINTS

PARTS = (
    ("position_m", 3),
    ("rot6d_cols", 6),
    ("gripper_opening", 1),
    ("hand_joints_rad", MAX_HAND_JOINTS),
)
STATE_WIDTH = len(SIDES) * sum(width for _, width in PARTS)


def measured_slices(state_valid: Named) -> frozenset[str]:
    """The slices of `observation.valid` that hold at any timestep."""
    is_measured = (state_valid.values.astype(np.float64) > 0.5).any(axis=0)
    return frozenset(np.array(state_valid.names, dtype=np.str_)[is_measured].tolist())


def state_vector(state: Named, state_valid: Named) -> npt.NDArray[np.float32]:
    """[K, 52] of `observation.state` and `observation.valid`."""
    out = np.zeros((len(state.values), STATE_WIDTH), dtype=np.float32)
    first = 0
    for side in SIDES:
        for part, width in PARTS:
            values = state.part(f"{side}.{part}")
            if values is not None:
                seen = state_valid.is_set(f"{side}.{part}")
                out[:, first : first + values.shape[1]] = np.where(seen[:, None], values, 0)
            first += width
    return out
