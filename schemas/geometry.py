"""Rotations and rigid transforms: the only rotation code in the project (NumPy, batched).

`T_a_b` [..., 4, 4] maps coordinates in b to coordinates in a (`p_a = T_a_b @ p_b`); it is also the
pose of b in a. Adjacent names cancel: `T_world_cam = T_world_base @ T_base_cam`. Lengths are metres,
angles radians. The form of a rotation is part of every name; `rot6d_cols` is the first two COLUMNS of
the matrix, column after column (Zhou et al., CVPR 2019, eq. 15).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from scipy.spatial.transform import Rotation

Array = npt.NDArray[np.float64]

ROTATION_TOLERANCE = (
    1e-3  # largest |R^T R - I| entry taken for float32 noise rather than for an error
)


def _rotation() -> type[Rotation]:
    """scipy's class. Its package takes a quarter of a second to import; a worker on plain video never needs it."""
    from scipy.spatial.transform import Rotation

    return Rotation


def transform(rotmat: npt.ArrayLike, position_m: npt.ArrayLike) -> Array:
    """Build T [..., 4, 4] from rotmat [..., 3, 3] and position [..., 3] in metres."""
    R, p = np.broadcast_arrays(
        np.asarray(rotmat, dtype=np.float64), np.asarray(position_m, dtype=np.float64)[..., None]
    )
    T = np.zeros((*R.shape[:-2], 4, 4))
    T[..., :3, :3] = R
    T[..., :3, 3] = p[..., 0]
    T[..., 3, 3] = 1.0
    return T


def inverse(T_a_b: npt.ArrayLike) -> Array:
    """T_b_a of a rigid T_a_b [..., 4, 4], without a general matrix inverse."""
    T = np.asarray(T_a_b, dtype=np.float64)
    R_b_a = np.swapaxes(T[..., :3, :3], -1, -2)
    return transform(R_b_a, -(R_b_a @ T[..., :3, 3:])[..., 0])


def position_of(T_a_b: npt.ArrayLike) -> Array:
    """Origin of b in a, [..., 3] metres."""
    return np.asarray(T_a_b, dtype=np.float64)[..., :3, 3]


def rotmat_of(T_a_b: npt.ArrayLike) -> Array:
    """Rotation part [..., 3, 3]."""
    return np.asarray(T_a_b, dtype=np.float64)[..., :3, :3]


def rotmat_from_quat_xyzw(quat: npt.ArrayLike) -> Array:
    """[..., 4] scalar-last quaternions (any positive norm) to [..., 3, 3]; ValueError on a zero norm."""
    q = np.asarray(quat, dtype=np.float64)
    return _rotation().from_quat(q.reshape(-1, 4)).as_matrix().reshape(*q.shape[:-1], 3, 3)


def rotmat_from_quat_wxyz(quat: npt.ArrayLike) -> Array:
    """[..., 4] scalar-first quaternions to [..., 3, 3]; ValueError on a zero norm."""
    return rotmat_from_quat_xyzw(np.roll(np.asarray(quat, dtype=np.float64), -1, axis=-1))


def quat_xyzw_from_rotmat(rotmat: npt.ArrayLike) -> Array:
    """[..., 3, 3] to [..., 4] scalar-last, with w >= 0."""
    R = np.asarray(rotmat, dtype=np.float64)
    quat = _rotation().from_matrix(R.reshape(-1, 3, 3)).as_quat(canonical=True)
    return np.asarray(quat).reshape(*R.shape[:-2], 4)


def rotmat_from_rotvec(rotvec_rad: npt.ArrayLike) -> Array:
    """[..., 3] rotation vectors (axis times angle, radians) to [..., 3, 3]."""
    v = np.asarray(rotvec_rad, dtype=np.float64)
    return _rotation().from_rotvec(v.reshape(-1, 3)).as_matrix().reshape(*v.shape[:-1], 3, 3)


def rotvec_from_rotmat(rotmat: npt.ArrayLike) -> Array:
    """[..., 3, 3] to [..., 3] rotation vectors, angle in [0, pi]."""
    R = np.asarray(rotmat, dtype=np.float64)
    return _rotation().from_matrix(R.reshape(-1, 3, 3)).as_rotvec().reshape(*R.shape[:-2], 3)


def rotmat_from_euler(angles_rad: npt.ArrayLike, order: str) -> Array:
    """[..., 3] Euler angles to [..., 3, 3].

    `order` follows scipy: lower case is extrinsic (fixed axes), upper case intrinsic. Extrinsic "xyz" is
    R = Rz(c) Ry(b) Rx(a), the roll-pitch-yaw of ROS, DROID and TensorFlow Graphics.
    """
    a = np.asarray(angles_rad, dtype=np.float64)
    return _rotation().from_euler(order, a.reshape(-1, 3)).as_matrix().reshape(*a.shape[:-1], 3, 3)


def roll_pitch_yaw_from_rotmat(rotmat: npt.ArrayLike) -> Array:
    """[..., 3, 3] to [..., 3] radians: R = Rz(yaw) Ry(pitch) Rx(roll). Where pitch is a quarter of a turn, one of many that give R."""
    R = np.asarray(rotmat, dtype=np.float64)
    return _rotation().from_matrix(R.reshape(-1, 3, 3)).as_euler("xyz").reshape(*R.shape[:-2], 3)


def rot6d_cols_from_rotmat(rotmat: npt.ArrayLike) -> Array:
    """[..., 3, 3] to [..., 6]: first column, then second column."""
    R = np.asarray(rotmat, dtype=np.float64)
    return np.concatenate([R[..., :, 0], R[..., :, 1]], axis=-1)


def rotmat_from_rot6d_cols(rot6d: npt.ArrayLike) -> Array:
    """[..., 6] (first column, second column) to [..., 3, 3] by Gram-Schmidt."""
    r = np.asarray(rot6d, dtype=np.float64)
    x = r[..., :3] / np.linalg.norm(r[..., :3], axis=-1, keepdims=True)
    y = r[..., 3:] - np.sum(x * r[..., 3:], axis=-1, keepdims=True) * x
    y = y / np.linalg.norm(y, axis=-1, keepdims=True)
    return np.stack([x, y, np.cross(x, y)], axis=-1)


# Every rotation form a source may use, by the name that the embodiment registry and adapters write.
ROTMAT_FROM: dict[str, Callable[[npt.ArrayLike], Array]] = {
    "rotmat": lambda v: (
        np.asarray(v, dtype=np.float64).reshape(*np.shape(v)[:-1], 3, 3)
        if np.shape(v)[-1] == 9
        else np.asarray(v, dtype=np.float64)
    ),
    "quat_xyzw": rotmat_from_quat_xyzw,
    "quat_wxyz": rotmat_from_quat_wxyz,
    "rotvec": rotmat_from_rotvec,
    "rot6d_cols": rotmat_from_rot6d_cols,
    "euler_xyz_extrinsic": lambda v: rotmat_from_euler(v, "xyz"),
    "euler_zyx_extrinsic": lambda v: rotmat_from_euler(v, "zyx"),
    "euler_xyz_intrinsic": lambda v: rotmat_from_euler(v, "XYZ"),
    "euler_zyx_intrinsic": lambda v: rotmat_from_euler(v, "ZYX"),
    "euler_zxy_extrinsic": lambda v: rotmat_from_euler(v, "zxy"),
}


def rotation_error(rotmat: npt.ArrayLike) -> Array:
    """How far [..., 3, 3] is from a proper rotation: max |R^T R - I|, or 2 where det < 0."""
    R = np.asarray(rotmat, dtype=np.float64)
    skew = np.abs(np.swapaxes(R, -1, -2) @ R - np.eye(3)).max(axis=(-1, -2))
    return np.where(np.linalg.det(R) > 0, skew, 2.0)


def geodesic_rad(rotmat_a: npt.ArrayLike, rotmat_b: npt.ArrayLike) -> Array:
    """Angle between two rotations [..., 3, 3], radians in [0, pi]; exact for small angles too."""
    relative = np.swapaxes(np.asarray(rotmat_a, dtype=np.float64), -1, -2) @ np.asarray(rotmat_b)
    return np.asarray(np.linalg.norm(rotvec_from_rotmat(relative), axis=-1))


def slerp_rotmat(t: npt.ArrayLike, rotmat: npt.ArrayLike, at: npt.ArrayLike) -> Array:
    """Spherical interpolation of rotmat [N, 3, 3] given at increasing times `t` [N], at times `at` [K].

    Raises:
        ValueError: an `at` outside [t[0], t[-1]] (nothing is extrapolated), or N < 2.
    """
    from scipy.spatial.transform import Slerp

    return Slerp(np.asarray(t), _rotation().from_matrix(np.asarray(rotmat)))(
        np.asarray(at)
    ).as_matrix()
