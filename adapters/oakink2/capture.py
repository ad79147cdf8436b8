"""What was captured in one OakInk2 sequence: the cameras and the hands.

The cameras of one OakInk2 sequence: three around, one on the head, single pictures at 30 Hz with their poses.

    data/<sequence>/<serial>/<frame id, six digits>.png or .jpg     848 x 480 (other sizes may occur)
    cam_intr[name][frame id] [3, 3];  cam_extr[name][frame id] [4, 4] world -> camera, OpenCV axes
Pictures are read one at a time. Source: `oakink/OakInk2-PreviewTool:src/oakink2_preview/{dataset/stream_preview,viz/gui}.py` (code;
its older form reads .png, the README of the format says .jpg).

The hands of one OakInk2 sequence: MANO by motion capture, in the world, at 120 Hz on their own clock.

    raw_mano[frame id]["rh__pose_coeffs"]   [1, 16, 4] quaternions w x y z: the wrist's rotation and 15 joints
    raw_mano[frame id]["rh__tsl"]           [1, 3] metres;  "rh__betas" [1, 10];  "lh__..." the left hand
The authors read it with manotorch, `rot_mode="quat"`, `center_idx=0`: `tsl` is the wrist, the rotations are absolute (no mean pose is
added to quaternions), and the left model's shape directions are as the official file has them. A frame without the keys is one without
that hand. Source: `oakink/OakInk2-PreviewTool:src/oakink2_preview/launch/viz/seg_3d.py`, `lixiny/manotorch:manotorch/manolayer.py` (code).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from adapters.containers.images import ImageFolder, LazyImages, image_header
from adapters.containers.poses import rigid_matrices
from adapters.containers.restricted_pickle import mapping, numbers
from adapters.containers.safe_path import inside
from adapters.oakink2.annotation import Ids, OakInk2Annotation
from schemas.episode import SIDES, Camera, EncodedImages, Stream, pose_channel
from schemas.errors import Code, SourceError
from schemas.geometry import Array, inverse, rotmat_from_quat_wxyz
from schemas.hand_track import HandTrack, ManoPose

# -- cameras -------------------------------------------------------------------------------------------------------

SUFFIXES = (".png", ".jpg", ".jpeg")
MAX_CHANGE_PX = 0.5


def camera_of(
    root: Path, sequence: str, annotation: OakInk2Annotation, name: str
) -> tuple[Camera, Stream]:
    """One camera at the frames of the annotation, and its pose where there is one.

    Raises:
        SourceError: MISSING_FILE (pictures), UNSAFE_PATH, CORRUPT_IMAGE, MISSING_CHANNEL (intrinsics or poses), SHAPE_MISMATCH,
            NOT_A_ROTATION, BAD_ANNOTATION (intrinsics that change).
    """
    t_ns = annotation.ns(annotation.frame_ids)
    images = _pictures(root, sequence, annotation.cameras[name], annotation.frame_ids)
    head = image_header(images[0], f"{sequence}/{annotation.cameras[name]}")
    camera = Camera(
        name=name,
        frames=EncodedImages(images=images),
        t_ns=t_ns,
        K_cam=_intrinsics(annotation, name),
        K_size=(head.width_px, head.height_px),
    )
    T_cam_world, valid = _poses(annotation, name)
    spec = pose_channel(f"T_world_cam.{name}")
    return camera, Stream(spec=spec, t_ns=t_ns, values=inverse(T_cam_world), valid=valid)


def _pictures(root: Path, sequence: str, serial: str, frame_ids: Ids) -> LazyImages:
    where = f"data/{sequence}/{serial}"
    folder = inside(root, "data", sequence, serial)
    try:
        files = os.listdir(folder)
    except OSError as error:
        problem = "the image folder cannot be read; unpack the sequence's tar file again"
        raise SourceError(Code.MISSING_FILE, problem, where=where) from error
    by_id = {}
    for file in files:
        stem, suffix = os.path.splitext(file)
        if suffix.lower() in SUFFIXES and stem.isascii() and stem.isdigit() and len(stem) < 12:
            by_id[int(stem)] = file
    missing = [int(fid) for fid in frame_ids if int(fid) not in by_id]
    if missing:
        problem = (
            f"{len(missing)} of {len(frame_ids)} images are missing; the first is {missing[0]:06d}"
        )
        raise SourceError(Code.MISSING_FILE, f"{problem}; unpack the tar file again", where=where)
    names = [by_id[int(fid)] for fid in frame_ids]
    for file in names:
        inside(root, "data", sequence, serial, file)  # a link may lead out of the root
    return LazyImages(names, ImageFolder(folder=folder, where=where))


def _intrinsics(annotation: OakInk2Annotation, name: str) -> Array:
    """[3, 3] the one matrix of all frames."""
    by_frame, where = _of_camera(annotation, "cam_intr", name)
    matrices = [
        numbers(by_frame[fid], (3, 3), where)
        for fid in map(int, annotation.frame_ids)
        if fid in by_frame
    ]
    if not matrices or not np.isfinite(matrices).all():
        raise SourceError(Code.MISSING_CHANNEL, "no intrinsics at these frames", where=where)
    change_px = float(np.ptp(matrices, axis=0).max())
    if change_px > MAX_CHANGE_PX:
        problem = f"the intrinsics change by {change_px:.1f} px; expected one matrix for all frames"
        raise SourceError(Code.BAD_ANNOTATION, problem, where=where)
    return np.median(matrices, axis=0)


def _poses(annotation: OakInk2Annotation, name: str) -> tuple[Array, np.ndarray]:
    """[F, 4, 4] world to camera, the identity where a frame has none, and where there is one [F]."""
    by_frame, where = _of_camera(annotation, "cam_extr", name)
    valid = np.array([int(fid) in by_frame for fid in annotation.frame_ids])
    if not valid.any():
        raise SourceError(Code.MISSING_CHANNEL, "no camera pose at these frames", where=where)
    T = np.tile(np.eye(4), (len(valid), 1, 1))
    T[valid] = [numbers(by_frame[int(fid)], (4, 4), where) for fid in annotation.frame_ids[valid]]
    return rigid_matrices(T, where), valid


def _of_camera(annotation: OakInk2Annotation, key: str, name: str) -> tuple[dict[Any, Any], str]:
    where = f"{annotation.where}:{key}/{name}"
    table = getattr(annotation, key)
    if name not in table:
        problem = f"no entry for this camera; the file has {sorted(map(str, table))[:8]}"
        raise SourceError(Code.MISSING_CHANNEL, problem, where=where)
    return mapping(table[name], where), where


# -- hands ---------------------------------------------------------------------------------------------------------

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
