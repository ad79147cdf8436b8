"""The helmet camera of one TACO sequence: its video, intrinsics and pose.

    Egocentric_RGB_Videos/<triplet>/<sequence>/color.mp4                                    1920 x 1080, 30 Hz
    Egocentric_Camera_Parameters/<triplet>/<sequence>/egocentric_intrinsic.txt              [3, 3], no distortion
    Egocentric_Camera_Parameters/<triplet>/<sequence>/egocentric_frame_extrinsic.npy        [N, 4, 4] world -> camera, OpenCV axes
Source: `leolyliu/TACO-Instructions:dataset_utils/project_pose_to_egocentric_view.py` (code).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from adapters.containers.npy_array import npy_array
from adapters.containers.pose_matrices import rigid_matrices
from adapters.containers.raw_file import raw_file_of
from adapters.containers.safe_path import inside
from adapters.containers.sidecar import Sidecar, read_sidecar
from adapters.containers.video_probe import VideoProbe, probe_video
from schemas.episode import Camera, RawFile, Stream, VideoSpan, pose_channel
from schemas.errors import Code, SourceError
from schemas.geometry import Array, inverse

CAMERA = "ego"
FULL_SIZE_PX = (1920, 1080)
PARAMETERS = "Egocentric_Camera_Parameters"


def video_of(root: Path, sequence: str) -> Path:
    """Where the video is, or would be."""
    return inside(root, "Egocentric_RGB_Videos", sequence, "color.mp4")


def T_world_cam_of(root: Path, sequence: str) -> Array:
    """[N, 4, 4] camera to world: the file holds the inverse.

    Raises:
        SourceError: MISSING_FILE, SHAPE_MISMATCH, NOT_A_ROTATION (a transposed matrix), EMPTY_EPISODE, CORRUPT_RECORD.
    """
    path = _poses(root, sequence)
    name = path.relative_to(root.resolve()).as_posix()
    T_cam_world = npy_array(path, name)
    if T_cam_world.ndim != 3 or T_cam_world.shape[1:] != (4, 4):
        problem = f"has the shape {list(T_cam_world.shape)}; expected [N, 4, 4]"
        raise SourceError(Code.SHAPE_MISMATCH, problem, where=name)
    if len(T_cam_world) == 0:
        raise SourceError(Code.EMPTY_EPISODE, "the file has no camera poses", where=name)
    return inverse(rigid_matrices(T_cam_world, name))


def _poses(root: Path, sequence: str) -> Path:
    return inside(root, PARAMETERS, sequence, "egocentric_frame_extrinsic.npy")


def camera_of(
    root: Path, sequence: str, T_world_cam: Array, t_ns: npt.NDArray[np.int64]
) -> tuple[Camera, Stream, tuple[RawFile, ...]]:
    """The camera and its pose at every frame of the video, and the fingerprints of its files.

    Raises:
        SourceError: FRAME_COUNT: frames were lost in recording, as the authors say of some videos, and it is unknown which;
            MISSING_VIDEO, CORRUPT_VIDEO, MISSING_FILE, BAD_ANNOTATION.
    """
    video = video_of(root, sequence)
    probe = probe_video(video)
    if probe.num_frames != len(T_world_cam):
        problem = f"{probe.num_frames} frames for {len(T_world_cam)} poses; it is unknown which frames are missing"
        raise SourceError(Code.FRAME_COUNT, problem, where=f"{sequence}/color.mp4")
    K_cam, raw = _intrinsics(root, sequence)
    camera = Camera(
        name=CAMERA,
        frames=VideoSpan(path=str(video), first_frame=0, num_frames=probe.num_frames),
        t_ns=t_ns,
        K_cam=K_cam,
        K_size=_size_of(K_cam, probe, raw.path),
    )
    spec = pose_channel(f"T_world_cam.{CAMERA}")
    raw_files = (raw_file_of(video, root), raw_file_of(_poses(root, sequence), root), raw)
    return camera, Stream(spec=spec, t_ns=t_ns, values=T_world_cam), raw_files


def _intrinsics(root: Path, sequence: str) -> tuple[Array, RawFile]:
    text, raw = read_sidecar(
        root, Sidecar(path=f"{PARAMETERS}/{sequence}/egocentric_intrinsic.txt")
    )
    try:
        K_cam = np.array([float(word) for word in text.split()])
    except ValueError as error:
        raise SourceError(Code.BAD_ANNOTATION, f"not numbers: {error}", where=raw.path) from error
    if K_cam.shape != (9,) or not np.isfinite(K_cam).all():
        problem = f"{K_cam.size} numbers; expected a 3 x 3 matrix"
        raise SourceError(Code.BAD_ANNOTATION, problem, where=raw.path)
    return K_cam.reshape(3, 3), raw


def _size_of(K_cam: Array, probe: VideoProbe, where: str) -> tuple[int, int]:
    """The pictures that K is for: the video's own, or those of the release where this is a smaller copy of it.

    The principal point distinguishes them, which lies near the middle.
    """
    for size in ((probe.width_px, probe.height_px), FULL_SIZE_PX):
        if all(abs(K_cam[i, 2] / size[i] - 0.5) < 0.25 for i in (0, 1)):
            return size
    problem = f"the principal point {K_cam[:2, 2].tolist()} does not fit images of {FULL_SIZE_PX}"
    raise SourceError(Code.BAD_ANNOTATION, problem, where=where)
