"""When an end-effector stays where it is, despite the error of the pose estimate.

The limits are those of rest (`arm.IDLE_M_S`), asked of half a second and not of a tenth: an estimate that wanders by a millimetre
passes 0.01 m/s from one timestep to the next and yet stays within a few millimetres. A window is still when all its positions lie
within 2.5 mm of their mean (0.01 m/s for half a second) and three deviations of the error, its rotations likewise. The error is taken
from second differences, of which motion leaves the smallest quarter alone; it widens a limit to at most the double. Ours.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ingest.curation.measurements.arm import IDLE_M_S, IDLE_OPENING_S, IDLE_RAD_S, ArmTrack
from ingest.curation.measurements.view import Mask
from schemas.geometry import Array, rotvec_from_rotmat

WINDOW_S = 0.5
DEVIATIONS = 3.0
# Of white errors in three axes: the lower quarter of a length is 1.10 deviations of an axis, a second difference has sqrt(6) of them.
QUARTER = 1.10 * 6**0.5


def is_stationary(arm: ArmTrack) -> Mask:
    """[K - 1] steps at which it stays and neither opens, closes nor bends a finger."""
    return stays_stationary(arm) & _jaws_rest(arm)


def stays_stationary(arm: ArmTrack) -> Mask:
    """[K - 1] steps that are at rest, or lie in a window of half a second throughout which the wrist is; the jaws may work."""
    width = round(WINDOW_S * arm.rate_hz)
    out = (arm.metres * arm.rate_hz < IDLE_M_S) & (arm.radians * arm.rate_hz < IDLE_RAD_S)
    if len(out) < width:
        return np.asarray(out)
    way, angle = IDLE_M_S * WINDOW_S / 2, IDLE_RAD_S * WINDOW_S / 2
    turned = _turned(arm)
    within = sliding_window_view(arm.known, width).all(axis=1)
    within &= _radius(arm.position_m, width) < _limit(way, arm.position_m, arm.valid)
    within &= _radius(turned, width) < _limit(angle, turned, arm.valid)
    for shift in range(width):
        out[shift : shift + len(within)] |= within
    return np.asarray(out)


def error(place: Array, valid: Mask) -> float:
    """Deviation of an axis of [K, 3] places by the error of what measures them."""
    bends = np.diff(place, 2, axis=0)[valid[:-2] & valid[1:-1] & valid[2:]]
    sizes = np.linalg.norm(bends, axis=1)
    return float(np.quantile(sizes, 0.25)) / QUARTER if len(sizes) else 0.0


def _turned(arm: ArmTrack) -> Array:
    """[K, 3] rotation vectors added up step by step; steps of a gap are none."""
    step = np.zeros((len(arm.valid), 3))
    known = np.flatnonzero(arm.known)
    step[known + 1] = rotvec_from_rotmat(
        arm.rotmat[known + 1] @ np.swapaxes(arm.rotmat[known], 1, 2)
    )
    return np.asarray(np.cumsum(step, axis=0))


def _radius(place: Array, width: int) -> Array:
    """[K - width] the largest distance from their mean of `width` + 1 places in a row."""
    windows = sliding_window_view(place, width + 1, axis=0)  # [W, 3, width + 1]
    off = windows - windows.mean(axis=2, keepdims=True)
    return np.asarray(np.linalg.norm(off, axis=1).max(axis=1))


def _limit(least: float, place: Array, valid: Mask) -> float:
    return min(least + DEVIATIONS * error(place, valid), 2 * least)


def _jaws_rest(arm: ArmTrack) -> Mask:
    """[K - 1] the gripper and the fingers, as in `Arm.is_idle`."""
    out = np.ones(len(arm.known), dtype=bool)
    if arm.opening is not None:
        out &= np.abs(np.diff(arm.opening)) * arm.rate_hz < IDLE_OPENING_S
    if arm.finger_rad is not None:
        bent = np.abs(np.diff(arm.finger_rad, axis=0)).mean(axis=1)
        out &= bent * arm.rate_hz < IDLE_RAD_S
    return out
