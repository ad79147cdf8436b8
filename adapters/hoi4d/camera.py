"""The head camera of one HOI4D sequence: its pictures, intrinsics and pose.

    align_rgb/image.mp4             1920 x 1080; upstream decodes it at 15 Hz, frame k at k / 15 s
    camera_params/ZY*/intrin.npy    [3, 3] of that camera, for 1920 x 1080, no distortion
    3Dseg/output.log                Redwood trajectory, five lines a frame: three integers, then T_world_cam (4 x 4), metres
Sources: `leolyliu/HOI4D-Instructions:{README.md,utils/decode.py}` (doc, code). Camera to world: the authors' `prepare_4Dseg/
scene2frame.py` takes Open3D's `extrinsic` for world to camera, and `isl-org/Open3D:cpp/open3d/io/file_format/FileLOG.cpp` inverts
what it reads to get it; `RchalYang/EgoVLA_Release:human_plan/dataset_preprocessing/hoi4d/utils.py` agrees (code). Poses count by
their place in the file, as in all three. The world is the reconstruction's; its up direction is not documented.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from adapters.containers.npy_array import npy_array
from adapters.containers.pose_matrices import rigid_matrices
from adapters.containers.raw_file import raw_file_of
from adapters.containers.safe_path import inside
from adapters.containers.sidecar import Sidecar, read_sidecar
from adapters.containers.video_probe import frame_times_ns
from adapters.hoi4d.hands import CAMERA
from adapters.hoi4d.tree import Said
from schemas.episode import Camera, Stream, VideoSpan, pose_channel
from schemas.errors import Code, SourceError
from schemas.fact import Certainty, Fact, fact
from schemas.geometry import Array
from schemas.rate import NS_PER_S, instants_ns
from schemas.regular_file import is_there

RATE_HZ = Fraction(15)
K_SIZE_PX = (1920, 1080)
LINES = 5  # of the log, a pose


def camera_of(root: Path, name: str, video: Path) -> tuple[Camera, Said]:
    """The camera with the container's own clock, from zero.

    Raises:
        SourceError: CORRUPT_VIDEO, CORRUPT_RECORD or BAD_ANNOTATION (intrinsics that are no matrix).
    """
    times = frame_times_ns(video)
    params = f"camera_params/{name.split('/')[0]}/intrin.npy"
    raw_files, facts, K_cam = [raw_file_of(video, root)], list[Fact](), None
    path = inside(root, params)
    if is_there(path):
        K_cam = _intrinsics(path, params)
        raw_files.append(raw_file_of(path, root))
    else:
        value = f"{params} is not there: the in-view test cannot be made"
        facts.append(fact("intrinsics", value, Certainty.UNKNOWN, "this folder"))
    camera = Camera(
        name=CAMERA,
        frames=VideoSpan(path=str(video), first_frame=0, num_frames=len(times)),
        t_ns=times - times[0],
        K_cam=K_cam,
        K_size=None if K_cam is None else K_SIZE_PX,
    )
    return camera, (raw_files, facts)


def _intrinsics(path: Path, where: str) -> Array:
    K_cam = npy_array(path, where)
    if K_cam.shape != (3, 3) or not np.isfinite(K_cam).all():
        problem = f"the matrix has shape {list(K_cam.shape)} or non-finite values; expected 3 x 3"
        raise SourceError(Code.BAD_ANNOTATION, problem, where=where)
    return K_cam


def decoded_instants(camera: Camera) -> npt.NDArray[np.int64]:
    """[N] instants of the frames that `ffmpeg -vf fps=15` makes of the video: hands and poses are numbered by them.

    A frame up to a quarter of a period after the last picture counts: times are rounded in the container.
    """
    assert camera.t_ns is not None
    last = int(camera.t_ns[-1])
    count = (4 * last * int(RATE_HZ) + NS_PER_S) // (4 * NS_PER_S) + 1
    return instants_ns(count, RATE_HZ)


def camera_pose(root: Path, log: str, t_ns: npt.NDArray[np.int64]) -> tuple[list[Stream], Said]:
    """`T_world_cam.ego` of the frames that have one; nothing, and a fact, when there is no log.

    Raises:
        SourceError: CORRUPT_RECORD, TRUNCATED, NOT_A_ROTATION (transposed, or no pose).
    """
    if not is_there(root / log):
        value = f"{log} is not there: the hands stay in the camera"
        return [], ([], [fact("camera_pose_file", value, Certainty.UNKNOWN, "this folder")])
    text, raw = read_sidecar(root, Sidecar(path=log))
    T = rigid_matrices(_matrices(text, log), log)
    facts = []
    if len(T) != len(t_ns):
        value = f"{len(T)} poses, {len(t_ns)} frames at 15 Hz: the shorter counts"
        facts.append(fact("camera_poses_clamped", value, Certainty.VERIFIED, "the two files"))
    T, t_ns = T[: len(t_ns)], t_ns[: len(T)]
    stream = Stream(spec=pose_channel(f"T_world_cam.{CAMERA}"), t_ns=t_ns, values=T)
    return [stream], ([raw], facts)


def _matrices(text: str, where: str) -> Array:
    """[N, 4, 4] of a Redwood log; lines that begin with # are no part of it."""
    lines = [line.split() for line in text.splitlines() if line.strip() and line[0] != "#"]
    if not lines or len(lines) % LINES:
        problem = f"{len(lines)} lines; expected five per pose; the file may be truncated; download it again"
        raise SourceError(Code.TRUNCATED, problem, where=where)
    heads = lines[::LINES]
    rows = [line for k, line in enumerate(lines) if k % LINES]
    if any(len(head) != 3 for head in heads) or any(len(row) != 4 for row in rows):
        problem = "expected three integers and four rows of four numbers per pose"
        raise SourceError(Code.CORRUPT_RECORD, problem, where=where)
    try:
        return np.array(rows, dtype=np.float64).reshape(-1, 4, 4)
    except ValueError as error:
        raise SourceError(Code.CORRUPT_RECORD, f"not a number: {error}", where=where) from error
