"""HOT3D's two hands: UmeTrack gives wrist and landmarks, MANO's parameters go along.

Verified on the Aria and Quest 3 samples: UmeTrack's `wrist_xform` is the wrist; MANO's translation is smplx's `transl`, 8 to 11 cm
from it; the two orientations differ by a constant of each hand (7.2, 5.8, 5.2, 1.6 degrees, over time below 0.25). Decoded with
smplx: PCA of 15 components, mean pose added (flat_hand_mean False), the left model's first shape direction negated
(`facebookresearch/hand_tracking_toolkit:hand_tracking_toolkit/hand_models/mano_hand_model.py`, code).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from adapters.containers.pose_rows import poses_of_rows
from adapters.hot3d.umetrack import LAYOUT, NUM_ANGLES, HandProfile, landmarks_m
from schemas.errors import Code, SourceError
from schemas.fact import Certainty, Fact, fact
from schemas.geometry import rotmat_from_rotvec
from schemas.hand_track import HandTrack, ManoPose

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
