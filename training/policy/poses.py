"""From motions, as a network says them, back to poses, and how far two poses are apart. NumPy: none of it needs a gradient.

A motion is of the body: T_{k+1} = T_k @ dT_body (`schemas/trained_action.py`), so it is put on the right.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from schemas.geometry import (
    Array,
    geodesic_rad,
    position_of,
    rotmat_from_rotvec,
    rotmat_of,
    transform,
)

_HALF_TURN = np.diag([1.0, -1.0, -1.0])  # about x, the approach of `hand_xfz`


def integrated(motions: npt.ArrayLike, T_now: npt.ArrayLike | None = None) -> Array:
    """Where K motions lead, one after the other.

    Args:
        motions: [..., K, 6] position in metres and rotation vector in radians of each, seen from the hand before it.
        T_now: [..., 4, 4] pose that the first starts from; None is the identity, so that poses are seen from the hand of now.

    Returns:
        [..., K, 4, 4] pose after each motion.
    """
    steps = np.asarray(motions, dtype=np.float64)
    dT_body = transform(rotmat_from_rotvec(steps[..., 3:]), steps[..., :3])
    out = np.empty_like(dT_body)
    T = np.eye(4) if T_now is None else np.asarray(T_now, dtype=np.float64)
    for k in range(steps.shape[-2]):
        T = T @ dT_body[..., k, :, :]
        out[..., k, :, :] = T
    return out


def unbroken(valid: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """[..., K] up to which motion a pose can be told: behind an unknown one it cannot, even where motions are known again."""
    return np.logical_and.accumulate(valid, axis=-1)


def position_error_m(T_a: Array, T_b: Array) -> Array:
    """[...] mean over the three axes of the absolute difference of positions [..., 4, 4], metres."""
    return np.asarray(np.abs(position_of(T_a) - position_of(T_b)).mean(axis=-1))


def rotation_error_rad(T_a: Array, T_b: Array, *, is_symmetric: npt.ArrayLike = False) -> Array:
    """[...] angle between poses [..., 4, 4], radians in [0, pi].

    Args:
        is_symmetric: [...] bool, or one for all: a parallel gripper that is turned by half a turn about its approach (x of
            `hand_xfz`) grasps the same. The smaller of the two angles counts then, which is at most pi / 2 about x.
    """
    R_a, R_b = rotmat_of(T_a), rotmat_of(T_b)
    plain = geodesic_rad(R_a, R_b)
    turned = geodesic_rad(R_a @ _HALF_TURN, R_b)
    return np.where(np.asarray(is_symmetric, dtype=bool), np.minimum(plain, turned), plain)
