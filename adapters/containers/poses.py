"""Poses and headset cameras as sources state them: rows of position and rotation, 4 x 4 matrices, FISHEYE624.

Rows of position and rotation as rigid poses, refused before any maths where they cannot be poses.

Homogeneous 4 x 4 matrices as sources store them: transposed ones are detected before they are used as poses.

A camera on a headset as Meta's calibrations state it: FISHEYE624 on a rigid device.

Two spellings of the parameters: 15 (f, cx, cy, k0..k5, p0, p1, s0..s3; Project Aria) and 16 (fx, fy, cx, cy, then the same;
HOT3D's Quest 3). Source: `facebookresearch/hand_tracking_toolkit:hand_tracking_toolkit/camera.py from_json` (code). Axes are
OpenCV's; pixel (0, 0) is the centre of the first pixel (the same file). The projection was compared with projectaria-tools on
four real calibrations: equal to 1e-12 px (verified).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schemas.camera_model import Lens
from schemas.errors import Code, SourceError
from schemas.geometry import ROTMAT_FROM, Array, inverse, transform

# -- pose rows -----------------------------------------------------------------------------------------------------

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


# -- pose matrices -------------------------------------------------------------------------------------------------

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


# -- fisheye camera ------------------------------------------------------------------------------------------------

NUM_SHARED_F, NUM_TWO_F = 15, 16
# A quarter turn about the optical axis: what was right is now down (x' = -y, y' = x).
T_TURNED_CAM = transform([[0, -1, 0], [1, 0, 0], [0, 0, 1]], np.zeros(3))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FisheyeCamera:
    """`size` is (width, height) of the pictures that `K_cam` is for, None where the calibration does not say."""

    label: str
    T_device_cam: Array  # [4, 4]
    K_cam: Array  # [3, 3]
    lens: Lens
    size: tuple[int, int] | None = None


def fisheye_camera(
    label: str, params: Sequence[float], T_device_cam: Array, size: tuple[int, int] | None
) -> FisheyeCamera:
    """The camera of 15 or 16 parameters.

    Raises:
        SourceError: UNKNOWN_LAYOUT for any other number of them, NOT_FINITE.
    """
    values = np.asarray(params, dtype=np.float64)
    if values.shape not in ((NUM_SHARED_F,), (NUM_TWO_F,)):
        problem = f"{len(params)} parameters; FISHEYE624 has {NUM_SHARED_F} or {NUM_TWO_F}"
        raise SourceError(Code.UNKNOWN_LAYOUT, problem, where=label)
    if not np.isfinite(values).all():
        raise SourceError(Code.NOT_FINITE, "NaN or infinity among the parameters", where=label)
    fx, fy, cx, cy = values[[0, 0, 1, 2]] if len(values) == NUM_SHARED_F else values[:4]
    return FisheyeCamera(
        label=label,
        T_device_cam=T_device_cam,
        K_cam=np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]]),
        lens=Lens(model="fisheye624", params=tuple(map(float, values[-12:]))),
        size=size,
    )


def rigid(quat_wxyz: Sequence[float], translation_m: Sequence[float], where: str) -> Array:
    """[4, 4] from a scalar-first quaternion and metres; raises as `poses_of_rows`."""
    if len(quat_wxyz) != 4 or len(translation_m) != 3:
        problem = f"{len(quat_wxyz)} + {len(translation_m)} numbers; a pose has 4 + 3"
        raise SourceError(Code.SHAPE_MISMATCH, problem, where=where)
    return np.asarray(poses_of_rows([[*translation_m, *quat_wxyz]], "quat_wxyz", where)[0])


def turned_clockwise(camera: FisheyeCamera) -> FisheyeCamera:
    """The camera that takes the same pictures turned by 90 degrees clockwise: pixel (u, v) comes to (height - 1 - v, u).

    With x' = -y and y' = x the model keeps its form: p' = (-p1, p0), s' = (-s2, -s3, s0, s1) (derived; tested against
    projectaria-tools).
    """
    if camera.size is None:
        problem = "a camera of unknown image size cannot be rotated; state the size"
        raise SourceError(Code.MISSING_META, problem, where=camera.label)
    k, (p0, p1), (s0, s1, s2, s3) = (
        camera.lens.params[:6],
        camera.lens.params[6:8],
        camera.lens.params[8:],
    )
    width, height = camera.size
    (fx, _, cx), (_, fy, cy) = camera.K_cam[0], camera.K_cam[1]
    return FisheyeCamera(
        label=camera.label,
        T_device_cam=camera.T_device_cam @ inverse(T_TURNED_CAM),
        K_cam=np.array([[fy, 0, height - 1 - cy], [0, fx, cx], [0, 0, 1.0]]),
        lens=Lens(model="fisheye624", params=(*k, -p1, p0, -s2, -s3, s0, s1)),
        size=(height, width),
    )
