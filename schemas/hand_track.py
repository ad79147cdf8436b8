"""One hand as its source tells it, on the source's own clock: what an adapter hands over, and nothing derived.

A source gives joints, or a wrist pose, or parameters of MANO, or several of these; in the world or in a camera. The stage
`ingest/transforms/hands.py` makes the canonical wrist pose and the 21 points of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.errors import Code, SourceError
from schemas.geometry import ROTATION_TOLERANCE, Array, rotation_error
from schemas.hand import layout, wrist_axes

WORLD = "world"
TRANS_MEANINGS = ("wrist", "smplx_transl")
MODELS = ("own", "mirrored_right")


def _frozen(array: npt.ArrayLike, dtype: Any = np.float64) -> Any:
    out = np.array(array, dtype=dtype)
    out.flags.writeable = False
    return out


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ManoPose:
    """MANO parameters of N samples.

    `global_orient` [N, 3, 3]. The fingers in ONE of three forms: `hand_axis_angle_rad` [N, 45] or `hand_pca` [N, k], to both of
    which the model's mean pose is added unless `is_flat_hand_mean`; or `hand_rotmat` [N, 15, 3, 3], absolute. `trans_m` [N, 3] is
    the wrist joint (`wrist`) or smplx's translation (`smplx_transl`: wrist = J0(betas) + trans): 9-10 cm apart. `betas` [10].
    `model`: `own`, the side's own model, or `mirrored_right`, the x-mirrored right one (VITRA), whose finger pose is in the right
    hand's convention. `has_shapedirs_fix`: the x of the left model's shape directions was negated (smplx issue 48) when fitted.
    """

    global_orient: Array
    trans_m: Array
    trans_is: str
    betas: Array
    hand_axis_angle_rad: Array | None = None
    hand_pca: Array | None = None
    hand_rotmat: Array | None = None
    is_flat_hand_mean: bool
    model: str = "own"
    has_shapedirs_fix: bool = True

    def __post_init__(self) -> None:
        if self.trans_is not in TRANS_MEANINGS or self.model not in MODELS:
            raise ValueError(f"unknown trans_is {self.trans_is!r} or model {self.model!r}")
        forms = [
            f for f in (self.hand_axis_angle_rad, self.hand_pca, self.hand_rotmat) if f is not None
        ]
        if len(forms) != 1:
            raise ValueError("expected exactly one form of the finger pose")
        N = len(self.trans_m)
        shapes = {"global_orient": (N, 3, 3), "trans_m": (N, 3), "betas": (10,)}
        if self.hand_axis_angle_rad is not None:
            shapes["hand_axis_angle_rad"] = (N, 45)
        if self.hand_rotmat is not None:
            shapes["hand_rotmat"] = (N, 15, 3, 3)
        if self.hand_pca is not None:
            shapes["hand_pca"] = (N, min(np.shape(self.hand_pca)[-1], 45))
        for name, shape in shapes.items():
            if np.shape(getattr(self, name)) != shape:
                problem = f"{np.shape(getattr(self, name))}; expected {shape}"
                raise SourceError(Code.SHAPE_MISMATCH, problem, where=f"MANO {name}")
        for name in shapes:
            object.__setattr__(self, name, _frozen(getattr(self, name)))

    def only(self, rows: npt.NDArray[np.bool_]) -> ManoPose:
        """The parameters of the samples where `rows` [N] is True."""
        forms = ("hand_axis_angle_rad", "hand_pca", "hand_rotmat")
        parameters = {f: getattr(self, f)[rows] for f in forms if getattr(self, f) is not None}
        return replace(
            self, global_orient=self.global_orient[rows], trans_m=self.trans_m[rows], **parameters
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HandTrack:
    """N samples of one hand.

    Values where `present` is False may be anything (NaN too) and become zero or the identity.

    side: left or right, as the source says.
    t_ns: [N] int64, strictly increasing, from the episode's zero.
    present: [N] bool, the source says that it sees or tracks this hand.
    frame: "world", or the name of the camera of this episode in whose optical frame (OpenCV) all values are; of it the
        episode has the pictures, or the pose (`T_world_cam.<camera>`), or both.
    joints_m: [N, J, 3] metres in the order of `layout` (schemas/hands.yaml).
    confidence: [N, J] in 0..1 for the same joints; None when the source has none.
    T_frame_wrist: [N, 4, 4] the source's own wrist pose, its axes named by `wrist_axes`.
    mano: parameters; used for joints and wrist when the others are not given.
    view: the camera of this episode whose picture the in-view test looks at; None when there is none.

    Raises:
        SourceError: a present sample that is not finite or no rotation, a wrong shape, or a clock that does not increase.
    """

    side: str
    t_ns: npt.NDArray[np.int64]
    present: npt.NDArray[np.bool_]
    frame: str = WORLD
    joints_m: Array | None = None
    layout: str = "canonical21"
    confidence: Array | None = None
    T_frame_wrist: Array | None = None
    wrist_axes: str = "mano"
    mano: ManoPose | None = None
    view: str | None = None

    def __post_init__(self) -> None:
        if self.side not in ("left", "right"):
            raise ValueError(f"unknown side {self.side!r}")
        wrist_axes(self.wrist_axes)
        if self.joints_m is None and self.T_frame_wrist is None and self.mano is None:
            raise ValueError("a hand needs joints, a wrist pose or MANO parameters")
        if self.t_ns.dtype != np.int64:
            raise TypeError(f"t_ns must be int64 nanoseconds, found {self.t_ns.dtype}")
        N, J = len(self.t_ns), layout(self.layout).count
        where = f"{self.side} hand"
        for name, shape in (
            ("present", (N,)),
            ("joints_m", (N, J, 3)),
            ("confidence", (N, J)),
            ("T_frame_wrist", (N, 4, 4)),
        ):
            value = getattr(self, name)
            if value is not None and np.shape(value) != shape:
                problem = f"{np.shape(value)}; expected {shape}"
                raise SourceError(Code.SHAPE_MISMATCH, problem, where=f"{where} {name}")
        if self.mano is not None and len(self.mano.trans_m) != N:
            problem = f"{len(self.mano.trans_m)} MANO samples for {N} timestamps"
            raise SourceError(Code.SHAPE_MISMATCH, problem, where=where)
        if N == 0:
            raise SourceError(Code.EMPTY_EPISODE, "the stream has no samples", where=where)
        if np.any(np.diff(self.t_ns) <= 0):
            at = int(np.flatnonzero(np.diff(self.t_ns) <= 0)[0])
            problem = f"timestamps must increase, but sample {at + 1} has {self.t_ns[at + 1]} ns after {self.t_ns[at]} ns"
            raise SourceError(Code.CLOCK_NOT_INCREASING, problem, where=where)
        self._freeze(where)

    def _freeze(self, where: str) -> None:
        present = _frozen(self.present, bool)
        object.__setattr__(self, "present", present)
        object.__setattr__(self, "t_ns", _frozen(self.t_ns, np.int64))
        for name, empty in (("joints_m", 0.0), ("confidence", 0.0), ("T_frame_wrist", np.eye(4))):
            value = getattr(self, name)
            if value is None:
                continue
            value = np.array(value, dtype=np.float64)
            finite = np.isfinite(value).reshape(len(value), -1).all(axis=1)
            if not finite[present].all():
                at = int(np.flatnonzero(present & ~finite)[0])
                problem = (
                    f"NaN or infinity at sample {at}, although the hand is marked present there"
                )
                raise SourceError(Code.NOT_FINITE, problem, where=f"{where} {name}")
            value[~present] = empty
            object.__setattr__(self, name, _frozen(value))
        if self.T_frame_wrist is not None:
            worst = float(np.max(rotation_error(self.T_frame_wrist[:, :3, :3])))
            if worst > ROTATION_TOLERANCE:
                problem = f"rotation deviates from a rotation matrix by {worst:.2g}; expected below {ROTATION_TOLERANCE}"
                raise SourceError(Code.NOT_A_ROTATION, problem, where=where)
