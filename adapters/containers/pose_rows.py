"""Rows of position and rotation as rigid poses, refused before any maths where they cannot be poses."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from schemas.errors import Code, SourceError
from schemas.geometry import ROTMAT_FROM, Array, transform

QUATERNION_TOLERANCE = 1e-2  # of the norm: further off it is no quaternion, or another column


def poses_of_rows(rows: npt.ArrayLike, rotation_form: str, where: str) -> Array:
    """[N, 4, 4] from [N, 3 + k]: metres, then a rotation in a form of `schemas.geometry.ROTMAT_FROM`.

    Raises:
        SourceError: NOT_FINITE, or NOT_A_ROTATION for a quaternion whose norm is not 1.
    """
    values = np.asarray(rows, dtype=np.float64)
    if not np.isfinite(values).all():
        at = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
        raise SourceError(Code.NOT_FINITE, f"NaN or infinity in row {at}", where=where)
    if rotation_form.startswith("quat"):
        norm = np.linalg.norm(values[:, 3:7], axis=1)
        at = int(np.argmax(np.abs(norm - 1)))
        if abs(norm[at] - 1) > QUATERNION_TOLERANCE:
            problem = f"row {at}: quaternion norm {norm[at]:.3g}; expected 1"
            raise SourceError(Code.NOT_A_ROTATION, problem, where=where)
    return transform(ROTMAT_FROM[rotation_form](values[:, 3:]), values[:, :3])
