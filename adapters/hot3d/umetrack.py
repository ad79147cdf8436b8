"""UmeTrack's hand: 20 joint angles on a person's skeleton give 20 landmarks.

Source: `facebookresearch/hand_tracking_toolkit:hand_tracking_toolkit/hand_models/umetrack_{hand_model,skinning}.py` (code).
The profile is a LEFT hand in millimetres. Each finger has four hinges, thumb to pinky; a hinge turns about its own axis through
its own rest position: X = T(p) R(a, angle) T(-p). Bone 2 + 3 f + k of finger f moves with the product of its first k + 2 hinges;
bones 0 and 1 are the wrist. A right hand is the left one with x negated IN the wrist frame. Angles 20 and 21 (the forearm)
are not used, there as here. Landmarks 0..19 are layout `umetrack20`; landmark 5 is the wrist's origin, landmark 20 the palm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from schemas.errors import Code, SourceError
from schemas.geometry import Array, rotmat_from_rotvec, transform

LAYOUT = "umetrack20"
NUM_ANGLES, NUM_HINGES, NUM_LANDMARKS = 22, 20, 20
NUM_FINGERS, NUM_BONES = 5, 17
MM_PER_M = 1000.0
LARGEST_MM = 1000.0  # a hand in metres would lie within 1, one in micrometres beyond this
SMALLEST_MM = 20.0
_MIRROR = np.array([-1.0, 1.0, 1.0])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HandProfile:
    """A person's left hand. `weights` [20, 17]: how much each landmark moves with each bone."""

    hinge_axes: Array  # [20, 3] unit
    hinge_rest_m: Array  # [20, 3]
    landmark_rest_m: Array  # [20, 3]
    weights: Array


def hand_profile(model: Mapping[str, Any], where: str) -> HandProfile:
    """From the JSON object `hand_model` of a user profile, or `umetrack` of a clip's hand shapes.

    Raises:
        SourceError: BAD_ANNOTATION (a key, shape or size that is none of a hand in millimetres).
    """
    try:
        axes = np.array(model["joint_rotation_axes"], dtype=np.float64)[:NUM_HINGES]
        rest = np.array(model["joint_rest_positions"], dtype=np.float64)[:NUM_HINGES]
        landmarks = np.array(model["landmark_rest_positions"], dtype=np.float64)[:NUM_LANDMARKS]
        bones = np.array(model["landmark_rest_bone_indices"])[:NUM_LANDMARKS]
        weights = np.array(model["landmark_rest_bone_weights"], dtype=np.float64)[:NUM_LANDMARKS]
        scale = float(np.max(model.get("hand_scale", 1.0)))
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(
            Code.BAD_ANNOTATION, f"not a hand model: {error!r}", where=where
        ) from error
    if not axes.shape == rest.shape == landmarks.shape == (20, 3) or bones.shape != weights.shape:
        problem = f"axes {axes.shape}, rest {rest.shape}, landmarks {landmarks.shape}"
        raise SourceError(Code.BAD_ANNOTATION, f"{problem}; expected at least 20 rows", where=where)
    reach_mm = float(np.nan_to_num(np.abs(landmarks), nan=np.inf).max())
    if not SMALLEST_MM < reach_mm < LARGEST_MM or scale != 1.0:  # the authors' code ignores a scale
        problem = f"the hand is {reach_mm:.3g} mm long with hand_scale {scale}; expected millimetres and scale 1"
        raise SourceError(Code.BAD_ANNOTATION, problem, where=where)
    dense = np.zeros((NUM_LANDMARKS, NUM_BONES))
    used = weights != 0
    if bones.dtype.kind not in "iu" or not ((bones[used] >= 0) & (bones[used] < NUM_BONES)).all():
        raise SourceError(Code.BAD_ANNOTATION, "a bone index outside the 17 bones", where=where)
    rows = np.broadcast_to(np.arange(NUM_LANDMARKS)[:, None], bones.shape)
    dense[rows[used], bones[used]] = weights[used]
    norm = np.linalg.norm(axes, axis=1)
    if not np.allclose(norm, 1.0, atol=1e-2) or not np.allclose(dense.sum(axis=1), 1.0, atol=1e-3):
        problem = "a hinge axis is not of length 1, or the weights of a landmark do not sum to 1"
        raise SourceError(Code.BAD_ANNOTATION, problem, where=where)
    return HandProfile(
        hinge_axes=axes,
        hinge_rest_m=rest / MM_PER_M,
        landmark_rest_m=landmarks / MM_PER_M,
        weights=dense,
    )


def landmarks_m(profile: HandProfile, angles_rad: Array, T_ref_wrist: Array, side: str) -> Array:
    """[N, 20, 3] landmarks in the frame of the wrist poses [N, 4, 4], from [N, 22] hinge angles."""
    bones = _bones(profile, np.asarray(angles_rad, dtype=np.float64)[:, :NUM_HINGES])
    rest = np.concatenate([profile.landmark_rest_m, np.ones((NUM_LANDMARKS, 1))], axis=1)
    in_wrist = np.einsum("lb,nbij,lj->nli", profile.weights, bones, rest)[..., :3]
    if side == "right":
        in_wrist = in_wrist * _MIRROR
    R, p = T_ref_wrist[:, :3, :3], T_ref_wrist[:, None, :3, 3]
    return np.asarray(np.einsum("nij,nlj->nli", R, in_wrist) + p)


def _bones(profile: HandProfile, angles_rad: Array) -> Array:
    """[N, 17, 4, 4] where each bone is, in the wrist frame of the left hand."""
    R = rotmat_from_rotvec(angles_rad[..., None] * profile.hinge_axes)
    rest = profile.hinge_rest_m
    hinges = transform(R, rest - np.einsum("nhij,hj->nhi", R, rest))
    hinges = hinges.reshape(-1, NUM_FINGERS, 4, 4, 4)
    out = np.tile(np.eye(4), (len(angles_rad), NUM_BONES, 1, 1))
    moved = hinges[:, :, 0]
    for k in range(3):
        moved = moved @ hinges[:, :, k + 1]
        out[:, 2 + k :: 3] = moved
    return out
