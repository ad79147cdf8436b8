"""The action as a model is trained on it, derived from the absolute vectors of the corpus. The only place that says how.

Representation `delta_body_rotvec_1`, per timestep k of a segment of K timesteps:

    <side>.delta_position_m  3   the motion inv(T_k) @ T_{k+1} of the hand (`hand_xfz`), seen from the hand itself
    <side>.delta_rotvec_rad  3   its rotation: axis times angle
    <side>.gripper_opening, <side>.hand_keypoints_m, <side>.hand_joints_rad   the target itself, as stored

T_{k+1} is `action[k]`, the target for timestep k + 1. T_k is the target before it, `action[k-1]`; where a run of valid actions
begins it is the measured pose, `observation.state[k]`. So the motions of a run, put one after the other, lead from where the hand was
through every target (a state in each T_k would count the lag of a controller again and again), and for achieved
actions, whose target is the next state, it is the motion from state to state.

A rotation vector, not six numbers of a matrix: no motion is zero, so quantiles lie around it, and none of its elements is nearly constant
(the first column of a small rotation is (1, 0, 0)). It is ambiguous only at half a turn between two timesteps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schemas.episode import SIDES
from schemas.geometry import (
    Array,
    inverse,
    position_of,
    rotmat_from_rot6d_cols,
    rotmat_of,
    rotvec_from_rotmat,
    transform,
)

REPRESENTATION = "delta_body_rotvec_1"  # another name whenever any value would change
AS_STORED = ("gripper_opening", "hand_keypoints_m", "hand_joints_rad")
Mask = npt.NDArray[np.bool_]
_NO_TURN = np.array([1.0, 0, 0, 0, 1, 0])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Named:
    """A stored feature of an episode: `values` [K, n] and what its n elements are called."""

    values: npt.NDArray[np.generic]
    names: tuple[str, ...]

    def part(self, name: str) -> Array | None:
        """[K, m] float64: the slice called `name`; None when there is none."""
        at = [i for i, n in enumerate(self.names) if n == name or n.startswith(f"{name}.")]
        return self.values[:, at].astype(np.float64) if at else None

    def is_set(self, *names: str) -> Mask:
        """[K] whether all of these masks hold; a mask that is not there never does."""
        out = np.ones(len(self.values), dtype=bool)
        for name in names:
            mask = self.part(name)
            out &= False if mask is None else mask[:, 0] > 0.5
        return out


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainedAction:
    """E named elements at K timesteps. Where `valid` is False the value is 0 and means nothing."""

    names: tuple[str, ...]  # E
    values: Array  # [K, E]
    valid: Mask  # [K, E]


def trained_names(action_names: Sequence[str]) -> tuple[str, ...]:
    """The elements that `trained_action` derives from an action vector with these element names."""
    out: list[str] = []
    for side in SIDES:
        if _has_pose(action_names, side):
            out += [f"{side}.delta_position_m.{axis}" for axis in "xyz"]
            out += [f"{side}.delta_rotvec_rad.{axis}" for axis in "xyz"]
        for part in AS_STORED:
            name = f"{side}.{part}"
            out += [n for n in action_names if n == name or n.startswith(f"{name}.")]
    return tuple(out)


def trained_action(
    *, action: Named, action_valid: Named, state: Named, state_valid: Named
) -> TrainedAction:
    """Derive the representation for the K timesteps of one segment; its first row begins a run.

    Args:
        action, state: [K, n] absolute vectors (`action`, `observation.state`), of float32 or float64.
        action_valid, state_valid: [K, m] a mask for each slice (`action.valid`, `observation.valid`).

    Returns:
        Elements in the order of `trained_names`; as many valid motions of a hand as it has valid actions that a valid pose
        precedes.
    """
    values: list[Array] = []
    valid: list[Mask] = []
    for side in SIDES:
        if _has_pose(action.names, side):
            motion, known = _motion(side, action, action_valid, state, state_valid)
            values.append(motion)
            valid.append(np.repeat(known[:, None], 6, axis=1))
        for part in AS_STORED:
            stored = action.part(f"{side}.{part}")
            if stored is not None:
                known = action_valid.is_set(f"{side}.{part}")
                values.append(np.where(known[:, None], stored, 0.0))
                valid.append(np.repeat(known[:, None], stored.shape[1], axis=1))
    count = len(action.values)
    return TrainedAction(
        names=trained_names(action.names),
        values=np.concatenate([np.zeros((count, 0)), *values], axis=1),
        valid=np.concatenate([np.zeros((count, 0), dtype=bool), *valid], axis=1),
    )


def _has_pose(names: Sequence[str], side: str) -> bool:
    return {f"{side}.position_m.x", f"{side}.rot6d_cols.xx"} <= set(names)


def _motion(
    side: str, action: Named, action_valid: Named, state: Named, state_valid: Named
) -> tuple[Array, Mask]:
    """[K, 6] position in metres and rotation vector in radians of every motion, and [K] where it is known."""
    parts = (f"{side}.position_m", f"{side}.rot6d_cols")
    aimed, seen = action_valid.is_set(*parts), state_valid.is_set(*parts)
    goes_on = np.concatenate([[False], aimed[:-1]]) if len(aimed) else aimed
    T_target = _pose_or_identity(action, side, aimed)
    T_state = _pose_or_identity(state, side, seen)
    T_before = np.concatenate([T_state[:1], T_target[:-1]])
    T_from = np.where(goes_on[:, None, None], T_before, T_state)
    known = aimed & (goes_on | seen)
    dT_body = inverse(T_from) @ T_target
    motion = np.concatenate([position_of(dT_body), rotvec_from_rotmat(rotmat_of(dT_body))], axis=1)
    return np.where(known[:, None], motion, 0.0), known


def _pose_or_identity(vector: Named, side: str, valid: Mask) -> Array:
    """[K, 4, 4]; the identity where the stored filler need not be a pose."""
    position_m, turn = vector.part(f"{side}.position_m"), vector.part(f"{side}.rot6d_cols")
    if position_m is None or turn is None:  # a state without the pose that the action has
        return np.broadcast_to(np.eye(4), (len(valid), 4, 4))
    where = valid[:, None]
    rotmat = rotmat_from_rot6d_cols(np.where(where, turn, _NO_TURN))
    return transform(rotmat, np.where(where, position_m, 0.0))
