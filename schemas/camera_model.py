"""How a point in a camera's optical frame (OpenCV: x right, y down, z forward, metres) becomes a pixel.

A lens turns the ideal ray (x/z, y/z) into a distorted one; `K_cam` turns that into pixels. The models are those that
sources state: `pinhole`; `opencv` (k1 k2 p1 p2 [k3 [k4 k5 k6]], OpenCV's calib3d); `fisheye624` (k0..k5 p0 p1 s0..s3, Project
Aria's FISHEYE624: Kannala-Brandt with six radial, two tangential and four thin-prism terms).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
NUM_PARAMS = {"pinhole": (0,), "opencv": (4, 5, 8), "fisheye624": (12,)}
MIN_DEPTH_M = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Lens:
    """A distortion model with its parameters, in the order of the model."""

    model: str = "pinhole"
    params: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if len(self.params) not in NUM_PARAMS.get(self.model, ()):
            raise ValueError(
                f"camera model {self.model!r} has {len(self.params)} parameters; expected {NUM_PARAMS}"
            )


PINHOLE = Lens()


def project(
    p_cam_m: npt.ArrayLike, K_cam: npt.ArrayLike, lens: Lens = PINHOLE
) -> tuple[Array, npt.NDArray[np.bool_]]:
    """[..., 3] points in the camera -> [..., 2] pixels, and [...] whether the lens can show the point.

    It cannot where the point is behind the camera, or so far aside that the polynomial of an `opencv` lens has turned back
    (it would put what is out of sight into the picture). Pixels of such points are not to be used.
    """
    p = np.asarray(p_cam_m, dtype=np.float64)
    in_front = p[..., 2] > MIN_DEPTH_M
    z = np.where(in_front, p[..., 2], 1.0)
    ray = p[..., :2] / z[..., None]
    in_front &= np.linalg.norm(ray, axis=-1) <= _reach(lens)
    bent = _BEND[lens.model](ray, np.asarray(lens.params, dtype=np.float64))
    K = np.asarray(K_cam, dtype=np.float64)
    return bent @ K[:2, :2].T + K[:2, 2], in_front


@lru_cache(maxsize=256)
def _reach(lens: Lens) -> float:
    """The largest |ray| up to which a ray further out falls further out; infinite for lenses without that trap."""
    if lens.model != "opencv":
        return float("inf")
    r = np.linspace(0.0, 4.0, 4001)  # 76 degrees off the axis
    k = np.zeros(8)
    k[: len(lens.params)] = lens.params
    r2 = r * r
    bent = (
        r
        * (1 + r2 * (k[0] + r2 * (k[1] + r2 * k[4])))
        / (1 + r2 * (k[5] + r2 * (k[6] + r2 * k[7])))
    )
    turned = np.flatnonzero(np.diff(bent) <= 0)
    return float(r[turned[0]]) if len(turned) else float("inf")


def _opencv(ray: Array, params: Array) -> Array:
    k = np.zeros(8)
    k[: len(params)] = params
    k1, k2, p1, p2, k3, k4, k5, k6 = k
    x, y = ray[..., 0], ray[..., 1]
    r2 = x * x + y * y
    radial = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
    out = np.empty_like(ray)
    out[..., 0] = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    out[..., 1] = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
    return out


def _fisheye624(ray: Array, params: Array) -> Array:
    """facebookresearch/projectaria_tools:core/calibration/camera_projections/FisheyeRadTanThinPrism.h."""
    k, (p0, p1), s = params[:6], params[6:8], params[8:]
    r = np.linalg.norm(ray, axis=-1)
    theta = np.arctan(r)
    th2 = theta * theta
    radial = theta * (1 + sum(k[i] * th2 ** (i + 1) for i in range(6)))
    scale = np.where(r > 1e-12, radial / np.where(r > 1e-12, r, 1.0), 1.0)
    u = ray * scale[..., None]
    x, y = u[..., 0], u[..., 1]
    r2 = x * x + y * y
    out = np.empty_like(u)
    out[..., 0] = x + (2 * x * x + r2) * p0 + 2 * x * y * p1 + s[0] * r2 + s[1] * r2 * r2
    out[..., 1] = y + (2 * y * y + r2) * p1 + 2 * x * y * p0 + s[2] * r2 + s[3] * r2 * r2
    return out


_BEND: dict[str, Any] = {
    "pinhole": lambda ray, _: ray,
    "opencv": _opencv,
    "fisheye624": _fisheye624,
}
