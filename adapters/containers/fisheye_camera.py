"""A camera on a headset as Meta's calibrations state it: FISHEYE624 on a rigid device.

Two spellings of the parameters: 15 (f, cx, cy, k0..k5, p0, p1, s0..s3; Project Aria) and 16 (fx, fy, cx, cy, then the same;
HOT3D's Quest 3). Source: `facebookresearch/hand_tracking_toolkit:hand_tracking_toolkit/camera.py from_json` (code). Axes are
OpenCV's; pixel (0, 0) is the centre of the first pixel (the same file). The projection was compared with projectaria-tools on
four real calibrations: equal to 1e-12 px (verified).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from adapters.containers.pose_rows import poses_of_rows
from schemas.camera_model import Lens
from schemas.errors import Code, SourceError
from schemas.geometry import Array, inverse, transform

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
