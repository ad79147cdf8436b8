"""RoboTwin cameras: JPEG rows, their model, and their pose turned from OpenGL to OpenCV axes.

    <camera>/{rgb | colors} [N] fixed-length strings, JPEG, red and blue swapped (see facts.py)
    <camera>/{intrinsic_cv | intrinsic_matrix} [N, 3, 3] or [3, 3] pixels
    <camera>/{cam2world_gl | extrinsics_matrix | extrinsic_matrix} [N, 4, 4]: x right, y UP, z BACKWARD, in the world
    <camera>/extrinsic_cv [N, 3, 4], legacy only: world to camera, OpenCV axes
The poses of the arms are in the same world, so T_base_cam is T_world_cam here. Wrist cameras move.
Source: `RoboTwin-Platform/RoboTwin:envs/camera/camera.py` (get_config). Not read: depth, point clouds, segmentation.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from adapters.containers.hdf5 import Hdf5File
from adapters.containers.hdf5_camera import StorageOrder, camera_name, hdf5_camera
from adapters.robotwin.generations import REPO, Generation
from schemas.episode import Camera, Stream, pose_channel
from schemas.errors import Code, SourceError
from schemas.fact import Certainty, Fact, fact
from schemas.geometry import ROTATION_TOLERANCE, Array, inverse, rotation_error

COLOUR = StorageOrder(encoded_is_bgr=True)
CV_FROM_GL = np.diag([1.0, -1.0, -1.0, 1.0])  # the same camera with y down and z forward
MAX_DIFFERENCE = 1e-3  # metres or matrix entries, between the two ways that a legacy file says it
SOURCE = f"{REPO}:envs/camera/camera.py"


def read_cameras(
    file: Hdf5File, layout: Generation, t_ns: npt.NDArray[np.int64]
) -> tuple[list[Camera], list[Stream], list[Fact]]:
    """Every camera with pictures. A wrong pose or model spoils no action: it is left out, and a fact says why.

    Raises:
        SourceError: MISSING_CHANNEL (no camera at all), FRAME_COUNT, CORRUPT_IMAGE, TOO_LARGE.
    """
    cameras: list[Camera] = []
    streams: list[Stream] = []
    facts: list[Fact] = []
    for name in file.children(layout.vision):
        group = f"{layout.vision}/{name}"
        if f"{group}/{layout.picture}" not in file:
            continue
        K = _K_cam(file, f"{group}/{layout.intrinsics}")
        key = f"{group}/{layout.picture}"
        cameras.append(hdf5_camera(file, key, name, t_ns, colour=COLOUR, K_cam=K))
        for T, pose_fact in _poses(file, layout, group, len(t_ns)):
            facts.append(pose_fact)
            if T is not None:
                spec = pose_channel(f"T_base_cam.{camera_name(name)}")
                streams.append(Stream(spec=spec, t_ns=t_ns, values=T))
    if not cameras:
        found_names = (
            f"no camera with {layout.picture!r} among {list(file.children(layout.vision))}"
        )
        raise SourceError(Code.MISSING_CHANNEL, found_names, where=f"{file.where}:{layout.vision}")
    return cameras, streams, facts


def _K_cam(file: Hdf5File, key: str) -> Array | None:
    """[3, 3] when the file has one that holds for the whole episode."""
    if key not in file or file.shape(key)[-2:] != (3, 3):
        return None
    K = file.array(key).astype(np.float64).reshape(-1, 3, 3)
    is_one = np.isfinite(K).all() and len(K) > 0 and np.abs(K - K[:1]).max() < 1e-3
    return K[0] if is_one else None


def _poses(
    file: Hdf5File, layout: Generation, group: str, num_rows: int
) -> Iterator[tuple[Array | None, Fact]]:
    """At most one: [N, 4, 4] T_world_cam in OpenCV axes, or None with the reason."""
    name = f"extrinsics.{group.rpartition('/')[2]}"
    key = next((k for k in (f"{group}/{n}" for n in layout.cam2world_gl) if k in file), "")
    if not key:
        return
    T_world_cam = _matrices(file, key, num_rows)
    if T_world_cam is None:
        yield None, fact(name, "left out: no rigid transforms", Certainty.UNKNOWN, key)
        return
    T_world_cam = T_world_cam @ CV_FROM_GL
    cv_key = f"{group}/{layout.world2cam_cv}"
    T_cam_world = _matrices(file, cv_key, num_rows) if layout.world2cam_cv else None
    if T_cam_world is None:
        yield T_world_cam, fact(name, "OpenGL axes, turned to OpenCV", Certainty.CODE, SOURCE)
    elif np.abs(inverse(T_cam_world) - T_world_cam).max() > MAX_DIFFERENCE:
        why = "left out: cam2world_gl and extrinsic_cv disagree"
        yield None, fact(name, why, Certainty.UNKNOWN, "compared in this episode")
    else:
        value = "OpenGL axes, turned to OpenCV; extrinsic_cv agrees"
        yield T_world_cam, fact(name, value, Certainty.VERIFIED, "compared in this episode")


def _matrices(file: Hdf5File, key: str, num_rows: int) -> Array | None:
    """[N, 4, 4] from [N, 4, 4], [N, 3, 4] or one of them; None when they are no rigid transforms."""
    if key not in file or file.shape(key)[-2:] not in ((3, 4), (4, 4)):
        return None
    matrices = file.array(key).astype(np.float64)
    matrices = matrices.reshape(-1, *matrices.shape[-2:])
    if len(matrices) not in (1, num_rows):
        return None
    T = np.tile(np.eye(4), (num_rows, 1, 1))
    T[:, :3] = matrices[:, :3]
    is_rigid = np.isfinite(T).all() and rotation_error(T[:, :3, :3]).max() <= ROTATION_TOLERANCE
    return T if is_rigid else None
