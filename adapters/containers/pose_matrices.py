"""Homogeneous 4 x 4 matrices as sources store them: transposed ones are detected before they are used as poses."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from schemas.errors import Code, SourceError
from schemas.geometry import Array

LAST_ROW = (0.0, 0.0, 0.0, 1.0)
TOLERANCE = 1e-5  # float32 rounding, or a text of a few decimals


def rigid_matrices(
    values: npt.ArrayLike, where: str, used: npt.NDArray[np.bool_] | None = None
) -> Array:
    """[N, ..., 4, 4] as float64 with an exact last row; matrices of samples where `used` [N] is False may be anything.

    Raises:
        SourceError: NOT_FINITE, infinity in a used matrix; NOT_A_ROTATION, a used matrix whose last row is not 0 0 0 1: transposed, or no pose at all.
    """
    T = np.array(values, dtype=np.float64)
    off = np.abs(T[..., 3, :] - LAST_ROW).reshape(len(T), -1).max(axis=1, initial=0.0)
    wrong = ~(off <= TOLERANCE)  # NaN is wrong too
    if used is not None:
        wrong &= used
    if wrong.any():
        at = int(np.flatnonzero(wrong)[0])
        worst = np.abs(T[at, ..., 3, :] - LAST_ROW).max(axis=-1).argmax()
        problem = f"sample {at} has the last row {T[at, ..., 3, :].reshape(-1, 4)[worst].tolist()}"
        raise SourceError(
            Code.NOT_A_ROTATION, f"{problem}; expected 0 0 0 1 (transposed?)", where=where
        )
    if np.isinf(T if used is None else T[used]).any():  # NaN may stand for "not tracked"
        raise SourceError(Code.NOT_FINITE, "infinity in a pose", where=where)
    T[..., 3, :] = LAST_ROW
    return T
