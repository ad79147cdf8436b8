"""The 21 points of a stored hand in the frame of the state: stored are its end-effector's pose, and the points in the wrist frame."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from schemas.embodiment import embodiment_for
from schemas.geometry import Array, inverse
from schemas.hand import NUM_JOINTS, from_wrist_frame


def hand_points(
    points: npt.ArrayLike, T_ref_hand: Array, embodiment: str, side: str
) -> Array | None:
    """[K, 63] points in the wrist frame -> [K, 21, 3] in the frame of the poses [K, 4, 4]; None for a side without known axes.

    The wrist is the end-effector's pose without the registry's constant.
    """
    T_wrist_hand = embodiment_for(embodiment).arms[side].T_src_hand
    if T_wrist_hand is None:
        return None
    in_wrist = np.asarray(points, dtype=np.float64).reshape(-1, NUM_JOINTS, 3)
    return from_wrist_frame(in_wrist, T_ref_hand @ inverse(T_wrist_hand))
