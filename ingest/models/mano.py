"""MANO parameters to 21 points and a wrist pose, through `smplx`. The model files are licensed and the user's own.

All ways in which sources write MANO come together before the model: PCA coefficients and axis-angles become absolute rotation
matrices (mean pose added unless `is_flat_hand_mean`), the model poses the fingers about its own wrist, and the global rotation
and the place are applied after it in float64. Sources: `vchoutas/smplx:smplx/body_models.py` (MANOLayer takes absolute
rotations and adds no mean; wrist = J0(beta) + transl, rotation about J0), CODE; `hassony2/manopth` with center_idx=0
(wrist = trans), CODE; `microsoft/VITRA:data/data.md` (left hand = mirrored right model, V = R M (V_R - J0) + T), VERIFIED on its
example. The x components of the left model's shape directions have the wrong sign in the official file (smplx issue 48): fixed
unless the labels were fitted with them (ARCTIC).
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ingest.models.hand_kinematics import HandRig, canonical21, rig_of
from ingest.models.mano_file import PARENTS16, ManoModel, read_mano
from schemas.errors import Code, ConfigError, SourceError
from schemas.geometry import Array, rotmat_from_rotvec, transform
from schemas.hand import Mask, fingertip_vertices, mirrored_points
from schemas.hand_track import ManoPose

if TYPE_CHECKING:
    import torch

    from ingest.models.mano_fit import ManoFit

SIDES = ("left", "right")
CHUNK = 4096  # samples at a time: some 30 MB
MAX_FINGER_RAD = 4 * np.pi  # two whole turns: no fit gives that, but 13 degrees read as radians do
REGISTER = (
    "MANO is licensed: register and download it at https://mano.is.tue.mpg.de, and set EICORPUS_MANO_DIR to the folder that "
    "holds MANO_RIGHT.pkl and MANO_LEFT.pkl"
)


def hand_layer(rig: HandRig, device: str = "cpu") -> Any:
    """`smplx.MANOLayer` of a rig: 21 "vertices", of which the first 16 are the joints.

    Raises:
        ConfigError: the `hands` extra is not installed, or there is no such device.
    """
    try:
        import smplx
        import torch
        from smplx.utils import Struct
    except ModuleNotFoundError as error:
        problem = f"{error.name} is not installed"
        raise ConfigError(problem, remedy="run pip install 'eicorpus[hands]'") from error
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device {device!r}: torch sees no GPU here", remedy="use 'cpu'")
    data = Struct(
        v_template=rig.rest,
        shapedirs=rig.shapedirs,
        posedirs=np.concatenate([np.zeros((16, 3, 135)), rig.tip_posedirs]),
        J_regressor=np.eye(16, 21),
        weights=np.concatenate([np.eye(16), rig.tip_weights]),
        kintree_table=np.array([PARENTS16, range(16)]),
        f=np.zeros((1, 3), dtype=np.int64),
        hands_components=np.eye(45),
        hands_mean=np.zeros(45),
    )
    with redirect_stdout(io.StringIO()):  # smplx prints that MANO has only 10 shape coefficients
        layer = smplx.MANOLayer(model_path="", data_struct=data, num_betas=rig.shapedirs.shape[-1])
    return layer.to(device).eval()


@contextmanager
def one_thread() -> Iterator[None]:
    """The operations here are tiny: on a busy machine more threads only wait for each other, ten times as long."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def posed_points(layer: Any, hand_rotmat: torch.Tensor, betas: torch.Tensor) -> torch.Tensor:
    """[N, 21, 3] points in the rig's order, wrist joint at 0, MANO axes; differentiable.

    Args:
        layer: from `hand_layer`.
        hand_rotmat: [N, 15, 3, 3] absolute rotations, each relative to its parent.
        betas: [N, B].
    """
    import torch

    identity = torch.eye(3, dtype=hand_rotmat.dtype, device=hand_rotmat.device)
    out = layer(
        betas=betas, global_orient=identity.expand(len(hand_rotmat), 1, 3, 3), hand_pose=hand_rotmat
    )
    points = torch.cat([out.joints, out.vertices[:, 16:]], dim=1)
    return points - points[:, :1]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ManoHand:
    """One side's model, ready: see `ManoHands.hand`."""

    model: ManoModel
    rig: HandRig
    layer: Any
    device: str

    def joints21_and_wrist(self, mano: ManoPose) -> tuple[Array, Array]:
        """As `ManoHands.joints21_and_wrist`, for the side's own model."""
        keypoints = self.in_wrist_frame(self.rotmats(mano), mano.betas)
        wrist_m = mano.trans_m
        if mano.trans_is == "smplx_transl":
            wrist_m = mano.trans_m + self.rig.wrist_at_rest(mano.betas)
        return _placed(keypoints, mano.global_orient, wrist_m)

    def rotmats(self, mano: ManoPose) -> Array:
        """[N, 15, 3, 3] absolute finger rotations of whichever form the pose is in."""
        if mano.hand_rotmat is not None:
            return mano.hand_rotmat
        rotvec_rad = mano.hand_axis_angle_rad
        if mano.hand_pca is not None:
            rotvec_rad = mano.hand_pca @ self.model.hands_components[: mano.hand_pca.shape[1]]
        if rotvec_rad is None:
            raise ValueError("the MANO pose has no finger angles")
        _check_radians(rotvec_rad)
        mean_rad = 0.0 if mano.is_flat_hand_mean else self.model.hands_mean
        return rotmat_from_rotvec((rotvec_rad + mean_rad).reshape(-1, 15, 3))

    def in_wrist_frame(self, hand_rotmat: Array, betas: Array) -> Array:
        """[N, 21, 3] points, canonical order, wrist at 0, MANO axes; betas [10] or [N, 10]. Rows with NaN come out as NaN."""
        import torch

        betas = np.broadcast_to(betas, (len(hand_rotmat), np.shape(betas)[-1]))
        out = np.empty((len(hand_rotmat), 21, 3))
        with one_thread(), torch.inference_mode():
            for start in range(0, len(out), CHUNK):
                part = slice(start, start + CHUNK)
                turned, shape = (
                    torch.as_tensor(np.array(a[part]), dtype=torch.float32, device=self.device)
                    for a in (hand_rotmat, betas)
                )
                out[part] = posed_points(self.layer, turned, shape).cpu().numpy()
        return canonical21(out)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ManoHands:
    """Both hands of the user's MANO. Build it with `open`; a hand is made ready when it is first asked for."""

    models: dict[str, ManoModel]
    fingertips: str
    left_shapedirs_fixed: bool
    device: str
    _ready: dict[tuple[str, bool], ManoHand] = field(default_factory=dict)

    @classmethod
    def open(
        cls,
        mano_dir: Path | None,
        *,
        fingertips: str,
        left_shapedirs_fixed: bool = True,
        device: str = "cpu",
    ) -> Self:
        """Read MANO_RIGHT.pkl and MANO_LEFT.pkl.

        Args:
            mano_dir: the folder of the two files; None when the user named none.
            fingertips: `smplx` or `manopth`: which vertices are the fingertips. They lie some millimetres apart.
            left_shapedirs_fixed: whether `hand("left")` has the x components of its shape directions corrected.
            device: where torch computes.

        Raises:
            ConfigError: no folder, no files, files that are not MANO's, an unknown option, or torch or smplx missing.
        """
        fingertip_vertices(fingertips, "right")
        if mano_dir is None:
            raise ConfigError("this source needs the MANO hand model", remedy=REGISTER)
        paths = {side: mano_dir / f"MANO_{side.upper()}.pkl" for side in SIDES}
        missing = [path.name for path in paths.values() if not path.is_file()]
        if missing:
            raise ConfigError(
                f"the folder has no {' and no '.join(missing)}",
                remedy=REGISTER,
                where=str(mano_dir),
            )
        models = {side: read_mano(path, side) for side, path in paths.items()}
        model = cls(
            models=models,
            fingertips=fingertips,
            left_shapedirs_fixed=left_shapedirs_fixed,
            device=device,
        )
        model.hand("right")  # a missing extra or device is told now, not in the middle of a run
        return model

    def hand(self, side: str, *, left_shapedirs_fixed: bool | None = None) -> ManoHand:
        """The side's own model. `left_shapedirs_fixed` None: as this was opened with."""
        is_fixed = (
            self.left_shapedirs_fixed if left_shapedirs_fixed is None else left_shapedirs_fixed
        )
        key = (side, is_fixed or side == "right")
        if key not in self._ready:
            model = self.models[side]
            if side == "left":
                model = _with_shapedirs(model, self.models["right"], is_fixed=is_fixed)
            rig = rig_of(model, self.fingertips)
            layer = hand_layer(rig, self.device)
            self._ready[key] = ManoHand(model=model, rig=rig, layer=layer, device=self.device)
        return self._ready[key]

    def joints21_and_wrist(self, side: str, mano: ManoPose) -> tuple[Array, Array]:
        """The hand that these parameters tell, in the frame in which they tell it.

        Returns:
            [N, 21, 3] metres in canonical order, and [N, 4, 4] the wrist with MANO's axes.

        Raises:
            SourceError: BAD_ANNOTATION for finger angles that must be degrees.
            ValueError: parameters without a definition: a mirrored right hand, or smplx's translation for a mirrored hand.
        """
        if mano.model == "own":
            fixed = mano.has_shapedirs_fix
            return self.hand(side, left_shapedirs_fixed=fixed).joints21_and_wrist(mano)
        if side != "left" or mano.trans_is != "wrist":
            raise ValueError(
                f"the {side} hand of the mirrored right model does not support trans {mano.trans_is!r}"
            )
        right = self.hand("right")
        keypoints = mirrored_points(right.in_wrist_frame(right.rotmats(mano), mano.betas))
        return _placed(keypoints, mano.global_orient, mano.trans_m)

    def fit(self, side: str, points: Array, has: Mask) -> ManoFit:
        """`fit_mano` of the side's own model."""
        from ingest.models.mano_fit import fit_mano  # it imports this module

        return fit_mano(self.hand(side), points, has)


def _check_radians(rotvec_rad: Array) -> None:
    turn_rad = np.linalg.norm(rotvec_rad.reshape(-1, 3), axis=1)
    if np.any(turn_rad > MAX_FINGER_RAD):
        problem = f"a finger joint turns by {np.nanmax(turn_rad):.0f} rad; expected radians, and these may be degrees"
        raise SourceError(Code.BAD_ANNOTATION, problem, where="MANO hand pose")


def _placed(keypoints: Array, rotmat: Array, wrist_m: Array) -> tuple[Array, Array]:
    """Points in the wrist frame -> in the frame in which the wrist has `rotmat` [N, 3, 3] and `wrist_m` [N, 3]."""
    points = np.einsum("nab,njb->nja", rotmat, keypoints) + wrist_m[:, None]
    return points, transform(rotmat, wrist_m)


def _with_shapedirs(left: ManoModel, right: ManoModel, *, is_fixed: bool) -> ManoModel:
    """The left model with the x components of its shape directions corrected, or as the official file has them.

    In the official file they equal the right's, where a mirrored hand has the opposite (smplx issue 48).
    Some users' files are corrected already, so the file is checked.
    """
    same, opposite = (
        float(np.abs(left.shapedirs[:, 0] - sign * right.shapedirs[:, 0]).sum()) for sign in (1, -1)
    )
    if (opposite < same) == is_fixed:
        return left
    turned = left.shapedirs.copy()
    turned[:, 0] *= -1
    return replace(left, shapedirs=turned)
