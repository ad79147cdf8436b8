"""The cameras of one OakInk2 sequence: three around, one on the head, single pictures at 30 Hz with their poses.

    data/<sequence>/<serial>/<frame id, six digits>.png or .jpg     848 x 480 (other sizes may occur)
    cam_intr[name][frame id] [3, 3];  cam_extr[name][frame id] [4, 4] world -> camera, OpenCV axes
Pictures are read one at a time. Source: `oakink/OakInk2-PreviewTool:src/oakink2_preview/{dataset/stream_preview,viz/gui}.py` (code;
its older form reads .png, the README of the format says .jpg).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from adapters.containers.image_header import image_header
from adapters.containers.lazy_pictures import LazyPictures, PictureFolder
from adapters.containers.pickled_numbers import mapping, numbers
from adapters.containers.pose_matrices import rigid_matrices
from adapters.containers.safe_path import inside
from adapters.oakink2.annotation import Ids, OakInk2Annotation
from schemas.episode import Camera, EncodedImages, Stream, pose_channel
from schemas.errors import Code, SourceError
from schemas.geometry import Array, inverse

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


def _pictures(root: Path, sequence: str, serial: str, frame_ids: Ids) -> LazyPictures:
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
    return LazyPictures(names, PictureFolder(folder=folder, where=where))


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
