"""HOT3D's two hands: UmeTrack's model of a hand, wrist poses and MANO's parameters.

UmeTrack's hand: 20 joint angles on a person's skeleton give 20 landmarks.

Source: `facebookresearch/hand_tracking_toolkit:hand_tracking_toolkit/hand_models/umetrack_{hand_model,skinning}.py` (code).
The profile is a LEFT hand in millimetres. Each finger has four hinges, thumb to pinky; a hinge turns about its own axis through
its own rest position: X = T(p) R(a, angle) T(-p). Bone 2 + 3 f + k of finger f moves with the product of its first k + 2 hinges;
bones 0 and 1 are the wrist. A right hand is the left one with x negated IN the wrist frame. Angles 20 and 21 (the forearm)
are not used, there as here. Landmarks 0..19 are layout `umetrack20`; landmark 5 is the wrist's origin, landmark 20 the palm.

HOT3D's two hands: UmeTrack gives wrist and landmarks, MANO's parameters go along.

Verified on the Aria and Quest 3 samples: UmeTrack's `wrist_xform` is the wrist; MANO's translation is smplx's `transl`, 8 to 11 cm
from it; the two orientations differ by a constant of each hand (7.2, 5.8, 5.2, 1.6 degrees, over time below 0.25). Decoded with
smplx: PCA of 15 components, mean pose added (flat_hand_mean False), the left model's first shape direction negated
(`facebookresearch/hand_tracking_toolkit:hand_tracking_toolkit/hand_models/mano_hand_model.py`, code).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from adapters.containers.poses import poses_of_rows
from schemas.errors import Code, SourceError
from schemas.fact import Certainty, Fact, fact
from schemas.geometry import Array, rotmat_from_rotvec, transform
from schemas.hand_track import HandTrack, ManoPose

# -- umetrack ------------------------------------------------------------------------------------------------------

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


# -- hands ---------------------------------------------------------------------------------------------------------

WRIST_AXES = "umetrack"
NUM_PCA = 15
TOOLKIT = "facebookresearch/hand_tracking_toolkit"
MEASURED = "measured on the Aria and Quest 3 samples"
FACTS = (
    fact("wrist_pose", "umetrack wrist_xform", Certainty.VERIFIED, MEASURED, for_actions=True),
    fact("wrist_axes", "umetrack", Certainty.VERIFIED, MEASURED, for_actions=True),
    fact("fingers", "UmeTrack forward kinematics", Certainty.CODE, TOOLKIT, for_actions=True),
    fact("mano_trans", "smplx transl: wrist = J0 + transl", Certainty.VERIFIED, MEASURED),
    fact("mano_flat_hand_mean", "false, PCA-15", Certainty.CODE, TOOLKIT),
)
_NO_POSE = (0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """One hand in one frame, in the world. `wrist`: t x y z, q w x y z. None: that model was not fitted."""

    wrist: Sequence[float] | None = None
    angles_rad: Sequence[float] | None = None
    mano_theta: Sequence[float] | None = None
    mano_rotvec_rad: Sequence[float] | None = None  # global_orient; or `mano_wxyz`
    mano_wxyz: Sequence[float] | None = None
    mano_trans_m: Sequence[float] | None = None


NOT_SEEN = Observed()


@dataclass(slots=True, kw_only=True)
class HandRows:
    """What the frames of a recording say of one hand, frame by frame."""

    side: str
    rows: list[Observed] = field(default_factory=list)

    def track(
        self,
        t_ns: npt.NDArray[np.int64],
        usable: npt.NDArray[np.bool_],
        profile: HandProfile | None,
        betas: Sequence[float] | None,
        view: str | None,
    ) -> tuple[HandTrack | None, list[Fact]]:
        """The hand over all frames `t_ns` [N], present where it was fitted and the frame is `usable`; None: never fitted.

        MANO's parameters go along only if every present frame has them: they would be made up elsewhere.

        Raises:
            SourceError: as `poses_of_rows`; SHAPE_MISMATCH for other counts of angles or parameters.
        """
        has_wrist = np.array([r.wrist is not None for r in self.rows])
        has_mano = np.array([r.mano_theta is not None for r in self.rows])
        if not (has_wrist | has_mano).any():
            return None, []
        if not has_wrist.any():
            mano = self._mano(has_mano, betas)
            if mano is None:
                message = "MANO poses have no betas, and there are no UmeTrack poses"
                raise SourceError(Code.MISSING_META, message, where=self.side)
            present = has_mano & usable
            return HandTrack(side=self.side, t_ns=t_ns, present=present, mano=mano, view=view), []
        present = has_wrist & usable
        rows = np.array([r.wrist if r.wrist is not None else _NO_POSE for r in self.rows])
        T_world_wrist = poses_of_rows(rows, "quat_wxyz", f"{self.side} UmeTrack wrist")
        joints = None
        if profile is not None:
            angles = self._filled("angles_rad", has_wrist, NUM_ANGLES)
            joints = landmarks_m(profile, angles, T_world_wrist, self.side)
        lost = int((present & ~has_mano).sum())
        track = HandTrack(
            side=self.side,
            t_ns=t_ns,
            present=present,
            joints_m=joints,
            layout=LAYOUT,
            T_frame_wrist=T_world_wrist,
            wrist_axes=WRIST_AXES,
            mano=None if lost else self._mano(has_mano, betas),
            view=view,
        )
        message = f"left out: {lost} of {int(present.sum())} frames have none"
        name = f"mano.{self.side}"
        return track, [fact(name, message, Certainty.VERIFIED, "this recording")] if lost else []

    def _filled(self, name: str, has: npt.NDArray[np.bool_], width: int) -> Any:
        """[N, width], zeros where the hand was not fitted; fewer than 22 angles (clips say 20) are followed by zeros."""
        out = np.zeros((len(self.rows), width))
        for k in np.flatnonzero(has):
            values = getattr(self.rows[k], name)
            least = 20 if name == "angles_rad" else width
            if values is None or not least <= len(values) <= width:
                problem = f"{0 if values is None else len(values)} values; expected {width}"
                raise SourceError(
                    Code.SHAPE_MISMATCH, problem, where=f"{self.side} {name}, frame {k}"
                )
            out[k, : len(values)] = values
        return out

    def _mano(self, has: npt.NDArray[np.bool_], betas: Sequence[float] | None) -> ManoPose | None:
        if not has.any() or betas is None:
            return None
        if any(self.rows[k].mano_wxyz is not None for k in np.flatnonzero(has)):
            rows = np.array(
                [[*_three(r.mano_trans_m), *(r.mano_wxyz or _NO_POSE[3:])] for r in self.rows]
            )
            rotmat = poses_of_rows(rows, "quat_wxyz", f"{self.side} MANO wrist")[:, :3, :3]
        else:
            rotmat = rotmat_from_rotvec([_three(r.mano_rotvec_rad) for r in self.rows])
        return ManoPose(
            global_orient=rotmat,
            trans_m=np.array([_three(r.mano_trans_m) for r in self.rows]),
            trans_is="smplx_transl",
            betas=np.array(betas, dtype=np.float64),
            hand_pca=self._filled("mano_theta", has, NUM_PCA),
            is_flat_hand_mean=False,
            has_shapedirs_fix=True,
        )


def _three(values: Sequence[float] | None) -> Sequence[float]:
    return (0.0, 0.0, 0.0) if values is None else values
