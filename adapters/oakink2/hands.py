"""The hands of one OakInk2 sequence: MANO by motion capture, in the world, at 120 Hz on their own clock.

    raw_mano[frame id]["rh__pose_coeffs"]   [1, 16, 4] quaternions w x y z: the wrist's rotation and 15 joints
    raw_mano[frame id]["rh__tsl"]           [1, 3] metres;  "rh__betas" [1, 10];  "lh__..." the left hand
The authors read it with manotorch, `rot_mode="quat"`, `center_idx=0`: `tsl` is the wrist, the rotations are absolute (no mean pose is
added to quaternions), and the left model's shape directions are as the official file has them. A frame without the keys is one without
that hand. Source: `oakink/OakInk2-PreviewTool:src/oakink2_preview/launch/viz/seg_3d.py`, `lixiny/manotorch:manotorch/manolayer.py` (code).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from adapters.containers.pickled_numbers import mapping, numbers
from adapters.oakink2.annotation import OakInk2Annotation
from schemas.episode import SIDES
from schemas.errors import Code, SourceError
from schemas.geometry import Array, rotmat_from_quat_wxyz
from schemas.hand_track import HandTrack, ManoPose

PREFIX = {"left": "lh", "right": "rh"}
SHAPES = {"pose_coeffs": (16, 4), "tsl": (3,), "betas": (10,)}
UNIT_NORM_TOLERANCE = 1e-2


def hands_of(annotation: OakInk2Annotation, view: str | None) -> tuple[HandTrack, ...]:
    """The hands that are there, at every motion capture frame; `view` is the camera that sees them.

    Raises:
        SourceError: MISSING_CHANNEL (no hand anywhere), NOT_FINITE, NOT_A_ROTATION (no unit quaternions), SHAPE_MISMATCH,
            CORRUPT_RECORD, UNKNOWN_LAYOUT.
    """
    tracks = tuple(track for side in SIDES if (track := _hand(annotation, side, view)) is not None)
    if not tracks:
        problem = "no frame of mocap_frame_id_list has lh__ or rh__ parameters"
        raise SourceError(Code.MISSING_CHANNEL, problem, where=f"{annotation.where}:raw_mano")
    return tracks


def _hand(annotation: OakInk2Annotation, side: str, view: str | None) -> HandTrack | None:
    """One hand, or None when no frame has it. Its shape is the median over the sequence."""
    where = f"{annotation.where}:raw_mano"
    ids = annotation.mocap_ids
    rows = [_row(annotation.raw_mano.get(int(fid)), side, f"{where}/{fid}") for fid in ids]
    present = np.array([values is not None for values in rows])
    present_rows = [values for values in rows if values is not None]
    if not present_rows:
        return None
    quat_wxyz = np.tile([1.0, 0.0, 0.0, 0.0], (len(ids), 16, 1))
    trans_m = np.zeros((len(ids), 3))
    quat_wxyz[present] = [values["pose_coeffs"] for values in present_rows]
    trans_m[present] = [values["tsl"] for values in present_rows]
    _check(quat_wxyz, trans_m, annotation, f"{where} {PREFIX[side]}")
    rotmat = rotmat_from_quat_wxyz(quat_wxyz)
    return HandTrack(
        side=side,
        t_ns=annotation.ns(ids),
        present=present,
        mano=ManoPose(
            global_orient=rotmat[:, 0],
            hand_rotmat=rotmat[:, 1:],
            trans_m=trans_m,
            trans_is="wrist",
            betas=np.median([values["betas"] for values in present_rows], axis=0),
            is_flat_hand_mean=True,
            has_shapedirs_fix=False,
        ),
        view=view,
    )


def _row(row: Any, side: str, where: str) -> dict[str, Array] | None:
    """The parameters of one hand in one frame; None where it is not there."""
    if row is None:
        return None
    keys = {name: f"{PREFIX[side]}__{name}" for name in SHAPES}
    fields = mapping(row, where)
    if not any(key in fields for key in keys.values()):
        return None
    return {
        name: numbers(fields.get(key), SHAPES[name], f"{where}/{key}") for name, key in keys.items()
    }


def _check(quat_wxyz: Array, trans_m: Array, annotation: OakInk2Annotation, where: str) -> None:
    finite = np.isfinite(quat_wxyz).all(axis=(1, 2)) & np.isfinite(trans_m).all(axis=1)
    if not finite.all():
        fid = annotation.mocap_ids[int(np.flatnonzero(~finite)[0])]
        raise SourceError(Code.NOT_FINITE, f"NaN or infinity in frame {fid}", where=where)
    off = np.abs(np.linalg.norm(quat_wxyz, axis=2) - 1).max(axis=1)
    if off.max() > UNIT_NORM_TOLERANCE:
        at = int(off.argmax())
        problem = f"frame {annotation.mocap_ids[at]}: the norm of a quaternion differs from 1 by {off[at]:.3g}"
        raise SourceError(Code.NOT_A_ROTATION, problem, where=where)
