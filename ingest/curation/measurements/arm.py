"""One end-effector of an episode as the motion measures read it: its poses, its steps, and which of them are known.

K timesteps, K - 1 steps; step k goes from timestep k to k + 1. Everything is a length, an angle or a speed, never an axis, so
no number changes with the base frame, the handedness of the arm or a constant transform at the wrist. Hence a pose whose axes
are unknown (`observation.source_eef_pose.<side>`) is as good as a canonical one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ingest.transforms.resample import Mask, runs
from schemas.episode import SIDES
from schemas.geometry import Array, geodesic_rad, rotmat_from_rot6d_cols

if TYPE_CHECKING:  # the view offers the arms
    from ingest.curation.measurements.view import EpisodeView

# A step below all of these is rest (quality_signals.md 3; measured there on AgiBot).
IDLE_M_S, IDLE_RAD_S, IDLE_OPENING_S = 0.01, 0.05, 0.05
MIN_PATH_M = 0.05  # smoothness is scale-free: a motionless arm scores like a moving one (ibid.)


@dataclass(frozen=True, kw_only=True, eq=False)
class ArmTrack:
    """`position_m` [K, 3], `rotmat` [K, 3, 3], `valid` [K]; `opening` [K] and where it is valid, None without a gripper."""

    side: str
    rate_hz: float
    stride: int = (
        1  # timesteps of one source period: between source samples there are only straight lines
    )
    position_m: Array
    rotmat: Array
    valid: Mask
    opening: Array | None = None
    opening_valid: Mask | None = None
    is_opening_commanded: bool = (
        False  # nobody measures it: the opening that was due at each timestep
    )
    finger_rad: Array | None = None  # [K, n] joints of a robot's hand

    @cached_property
    def step_m(self) -> Array:
        """[K - 1, 3]"""
        return np.diff(self.position_m, axis=0)

    @cached_property
    def metres(self) -> Array:
        """[K - 1] length of each step."""
        return np.asarray(np.linalg.norm(self.step_m, axis=1))

    @cached_property
    def radians(self) -> Array:
        """[K - 1] angle of each step."""
        return geodesic_rad(self.rotmat[:-1], self.rotmat[1:])

    @cached_property
    def known(self) -> Mask:
        """[K - 1] both ends are valid."""
        return np.asarray(self.valid[:-1] & self.valid[1:])

    @cached_property
    def is_idle(self) -> Mask:
        """[K - 1] neither moves, nor turns, nor opens, nor bends a finger."""
        idle = (self.metres * self.rate_hz < IDLE_M_S) & (self.radians * self.rate_hz < IDLE_RAD_S)
        if self.opening is not None:
            idle &= np.abs(np.diff(self.opening)) * self.rate_hz < IDLE_OPENING_S
        if self.finger_rad is not None:
            turned = np.abs(np.diff(self.finger_rad, axis=0)).mean(axis=1)
            idle &= turned * self.rate_hz < IDLE_RAD_S
        return np.asarray(idle)

    @cached_property
    def calm_m(self) -> Array:
        """[K - 2, 3] positions averaged with weights 1, 2, 1, for what takes two derivatives or more.

        That removes exactly the alternation between samples and midpoints that linear resampling of 5, 15 or 25 Hz leaves on a 10 Hz
        grid, which at 15 Hz would pass for 10 % of acceleration; a sine of 0.5 Hz keeps 98 %, of 1 Hz 90 %.
        """
        p = self.position_m
        return np.asarray((p[:-2] + 2 * p[1:-1] + p[2:]) / 4)

    @cached_property
    def acceleration_m_s2(self) -> Array:
        """[n] sizes, wherever five timesteps in a row are valid."""
        if len(self.valid) < 5:
            return np.empty(0)
        known = np.lib.stride_tricks.sliding_window_view(self.valid, 5).all(axis=1)
        bends = np.diff(self.calm_m, 2, axis=0)[known]
        return np.asarray(np.linalg.norm(bends, axis=1) * self.rate_hz**2)

    @cached_property
    def path_m(self) -> float:
        """Way over all known steps."""
        return float(self.metres[self.known].sum())

    @cached_property
    def runs(self) -> list[tuple[int, int]]:
        """Timesteps [start, end) of the stretches without a gap."""
        return runs(self.valid)

    @cached_property
    def thinned(self) -> ArmTrack:
        """The arm at its source's pace, for what takes derivatives; itself for a source of 5 Hz and above.

        A slower source (RT-1 at 3 Hz) stands on the grid as straight lines whose kinks `calm_m` does not remove, and kinks are all jerk.
        """
        if self.stride <= 2:
            return self
        n = self.stride
        return ArmTrack(
            side=self.side,
            rate_hz=self.rate_hz / n,
            position_m=self.position_m[::n],
            rotmat=self.rotmat[::n],
            valid=self.valid[::n],
        )

    @property
    def moves(self) -> bool:
        """Whether smoothness means anything for it."""
        return self.path_m > MIN_PATH_M


def arms_of(view: EpisodeView) -> tuple[ArmTrack, ...]:
    """The arms with at least one known step; none when a hand is seen by a moving camera of unknown pose.

    Such poses are in the camera's frame: their motion is the camera's too.
    """
    if not view.row.get("camera_motion_removed", True):
        return ()
    arms = [_arm(view, side) for side in SIDES]
    return tuple(arm for arm in arms if arm is not None and arm.known.any())


def _arm(view: EpisodeView, side: str) -> ArmTrack | None:
    position = view.part("observation.state", f"{side}.position_m")
    rot6d = view.part("observation.state", f"{side}.rot6d_cols")
    valid = view.valid("observation.state", f"{side}.position_m")
    if position is None or rot6d is None:
        name = f"source_eef_pose.{side}"
        pose = view.columns.get(f"observation.{name}")
        if pose is None:
            return None
        position, rot6d = pose[:, :3], pose[:, 3:]
        valid = view.valid("observation.state", name)
    opening, opening_valid, is_commanded = _opening(view, side)
    return ArmTrack(
        side=side,
        rate_hz=view.rate_hz,
        stride=_stride(view),
        position_m=position,
        rotmat=rotmat_from_rot6d_cols(rot6d),
        valid=valid,
        opening=opening,
        opening_valid=opening_valid,
        is_opening_commanded=is_commanded,
        finger_rad=view.part("observation.state", f"{side}.hand_joints_rad"),
    )


def _opening(view: EpisodeView, side: str) -> tuple[Array | None, Mask, bool]:
    """[K] opening, where it is valid, and whether it is the command: without a measured gripper, what was due is taken."""
    name = f"{side}.gripper_opening"
    is_commanded = name in view.command_only
    feature = "action" if is_commanded else "observation.state"
    values, valid = view.part(feature, name), view.valid(feature, name)
    if values is None or not is_commanded:
        return None if values is None else values[:, 0], valid, False
    # action[k] is due at timestep k + 1; nothing is due at the first timestep.
    due = np.concatenate([values[:1, 0], values[:-1, 0]])
    return due, np.concatenate([[False], valid[:-1]]), True


def _stride(view: EpisodeView) -> int:
    source_rate_hz = view.row.get("source_rate_hz") or view.rate_hz
    return max(1, int(np.ceil(view.rate_hz / source_rate_hz - 1e-6)))


def switches(level: npt.NDArray[np.int8]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.int8]]:
    """Where a level of -1, 0 or 1 that holds through 0 (hysteresis) changes sign, and to which sign. [n], [n]

    A 0 before the first sign is no sign, so leaving it is no switch.
    """
    known = np.flatnonzero(level)
    signs = level[known]
    changed = np.flatnonzero(signs[1:] != signs[:-1]) + 1
    return known[changed], signs[changed]


def worst(values: list[tuple[float, int]], *, largest: bool = True) -> tuple[float, int] | None:
    """Of (value, denominator) per arm the worst value with its own denominator; None of nothing."""
    if not values:
        return None
    return max(values, key=lambda f: f[0]) if largest else min(values, key=lambda f: f[0])
