"""The head camera of one EgoDex recording: its pictures, intrinsics and pose.

    camera/intrinsic     [3, 3] float32, one for the file, no distortion
    transforms/camera    [T, 4, 4] float32 camera -> world, OpenCV axes
Sources: `HongzheBi/H_RDT:datasets/pretrain/egodex_dataset.py`, `IstariRobotics/egohub:egohub/adapters/egodex/egodex.py` (axes).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from adapters.containers.hdf5 import Hdf5File
from adapters.containers.pose_matrices import rigid_matrices
from adapters.containers.video_probe import VideoProbe
from schemas.episode import Camera, Stream, VideoSpan, pose_channel
from schemas.fact import Certainty, Fact, fact

CAMERA = "ego"
POSES = "transforms/camera"
# One matrix in all files seen, for pictures of this size; a copy of the videos that was made smaller keeps it.
K_CENTRE_PX, K_SIZE_PX = (960.0, 540.0), (1920, 1080)


def camera_of(
    file: Hdf5File, video: Path, t_ns: npt.NDArray[np.int64], probe: VideoProbe
) -> Camera:
    """The first len(t_ns) frames, which are the first rows."""
    K_cam = file.rows("camera/intrinsic", 3, num_rows=3)
    is_known = (K_cam[0, 2], K_cam[1, 2]) == K_CENTRE_PX
    return Camera(
        name=CAMERA,
        frames=VideoSpan(path=str(video), first_frame=0, num_frames=len(t_ns)),
        t_ns=t_ns,
        K_cam=K_cam,
        K_size=K_SIZE_PX if is_known else (probe.width_px, probe.height_px),
    )


def camera_pose(file: Hdf5File, t_ns: npt.NDArray[np.int64]) -> Stream:
    """`T_world_cam.ego`: stored as camera -> world in OpenCV axes, so taken as it is."""
    values = rigid_matrices(file.rows(POSES, 4, 4)[: len(t_ns)], f"{file.where}:{POSES}")
    return Stream(spec=pose_channel(f"T_world_cam.{CAMERA}"), t_ns=t_ns, values=values)


def clamped(num_rows: int, num_frames: int) -> Iterator[Fact]:
    """The fact that one of the two files is longer."""
    if num_rows != num_frames:
        value = f"{num_rows} rows, {num_frames} frames: the shorter counts"
        yield fact("length_clamped", value, Certainty.VERIFIED, "the two files")
