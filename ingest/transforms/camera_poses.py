"""Camera poses that another program estimated for a video: ViPE, MegaSAM and HaWoR, as each writes them.

    <folder>/pose/<video>.npz                     ViPE     data [N, 4, 4] camera to world, inds [N]
    <folder>/<video>_droid.npz                    MegaSAM  cam_c2w [N, 4, 4] camera to world, one for EACH frame
    <folder>/<video>/SLAM/hawor_slam_w_scale_*.npz  HaWoR  traj [N, 7] t xyz + quaternion xyzw, camera to world; scale; tstamp
below the folder the user names. <folder> mirrors where the video lies below the raw root (many sets call every video alike), <video> is
its name without the ending. OpenCV axes in all three. Lengths: HaWoR's are multiplied by its `scale`; ViPE's are near metric,
MegaSAM's are in the scale of its depths: the scale is a fact of its own, UNVERIFIED, and bars the policy.
Sources: nv-tlabs/vipe:vipe/utils/io.py, mega-sam/mega-sam:camera_tracking_scripts/test_demo.py, HaWoR
lib/eval_utils/custom_utils.py (CODE). That HaWoR's `traj` has one row a frame unless it has as many as `tstamp` is INFERRED.
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from tokenize import TokenError
from typing import Literal

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy_format

from adapters.containers.poses import rigid_matrices
from adapters.containers.video_probe import count_frames, frame_times_ns
from schemas.episode import Camera, Episode, Stream, VideoSpan, VideoWindow, pose_channel
from schemas.errors import Code, SourceError
from schemas.fact import Certainty, Fact
from schemas.geometry import (
    ROTATION_TOLERANCE,
    Array,
    rotation_error,
    rotmat_from_quat_xyzw,
    transform,
)
from schemas.rate import ns_from_seconds

MAX_MEMBER_BYTES = 256 << 20  # two million poses
# A zip and a .npy header are each parsed by several layers, and each has its own way to fail.
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    TokenError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    EOFError,
    OSError,
    RuntimeError,
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EstimatedPoses:
    """T_world_cam [N, 4, 4] of the frames `index` [N] of a video, counted from its first."""

    program: str
    index: npt.NDArray[np.int64]
    T_world_cam: Array
    path: str
    is_every_frame: bool = False


def with_camera_poses(episode: Episode, folder: Path) -> Episode:
    """The episode with a `T_world_cam` stream for each camera that has a pose file and no pose of its own.

    Raises:
        SourceError: a pose file that is there cannot be read, or holds no poses.
    """
    added: list[Stream] = []
    facts: list[Fact] = []
    for camera in episode.cameras:
        name = f"T_world_cam.{camera.name}"
        video = camera.frames
        if episode.stream(name) is not None or not isinstance(video, VideoSpan | VideoWindow):
            continue
        poses = poses_of(*_named(Path(video.path), Path(episode.ref.root), folder))
        if poses is None:
            continue
        _check_length(poses, Path(video.path))
        added.append(_on_the_cameras_clock(name, poses, camera))
        facts.append(
            Fact(
                name=f"camera_pose_source.{camera.name}",
                value=poses.program,
                certainty=Certainty.CODE,
                source=f"{Path(poses.path).name}: the layout, axes and direction of that program",
            )
        )
        facts.append(
            Fact(
                name=f"camera_pose_scale.{camera.name}",
                value="estimated",
                certainty=Certainty.UNVERIFIED,
                source=f"{poses.program}: near-metric at best, nothing here measures it",
            )
        )
    if not added:
        return episode
    return replace(episode, streams=(*episode.streams, *added), facts=(*episode.facts, *facts))


def _named(video: Path, root: Path, folder: Path) -> tuple[str, Path]:
    """The video's name, and the folder that mirrors its own below the raw root."""
    if video.is_relative_to(root):
        return video.stem, folder / video.relative_to(root).parent
    return video.stem, folder


def _check_length(poses: EstimatedPoses, video: Path) -> None:
    """A program that gives one pose a frame must give as many as there are frames: else it is another video's file."""
    if poses.is_every_frame and len(poses.index) != (count := count_frames(video)):
        problem = f"{len(poses.index)} poses for a video of {count} frames"
        raise SourceError(
            Code.FRAME_COUNT, f"{problem}; the file may belong to another video", where=poses.path
        )


def poses_of(video: str, folder: Path) -> EstimatedPoses | None:
    """What one of the three programs found for the video of that name, or None when there is no file."""
    vipe = folder / "pose" / f"{video}.npz"
    if vipe.is_file():
        arrays = _members(vipe, ("data", "inds"))
        return _checked("ViPE", vipe, arrays["data"], arrays["inds"])
    mega = folder / f"{video}_droid.npz"
    if mega.is_file():
        poses = _members(mega, ("cam_c2w",))["cam_c2w"]
        return _checked("MegaSAM", mega, poses, None)
    hawor = sorted((folder / video / "SLAM").glob("hawor_slam_w_scale_*.npz"))
    if hawor:
        return _hawor(hawor[0])
    return None


def _hawor(path: Path) -> EstimatedPoses:
    arrays = _members(path, ("traj", "scale", "tstamp"))
    traj, scale, stamps = arrays["traj"], arrays["scale"].reshape(-1), arrays["tstamp"].reshape(-1)
    if traj.ndim != 2 or traj.shape[1] != 7 or len(scale) != 1:
        shapes = f"traj {traj.shape}, scale {arrays['scale'].shape}"
        raise SourceError(
            Code.SHAPE_MISMATCH, f"{shapes}; expected [N, 7] and one scale", where=str(path)
        )
    if not 0 < scale[0] < np.inf:
        raise SourceError(
            Code.BAD_ANNOTATION, f"scale {scale[0]}; expected above 0", where=str(path)
        )
    if not (np.isfinite(traj).all() and (np.linalg.norm(traj[:, 3:], axis=1) > 0.5).all()):
        raise SourceError(
            Code.NOT_FINITE, "traj contains NaN, infinity or a zero quaternion", where=str(path)
        )
    poses = transform(rotmat_from_quat_xyzw(traj[:, 3:]), traj[:, :3] * scale[0])
    return _checked("HaWoR", path, poses, stamps if len(stamps) == len(traj) else None)


def _members(path: Path, names: tuple[str, ...]) -> dict[str, Array]:
    """Only the named arrays: MegaSAM keeps all its pictures in the same file. Never a pickle, never a bomb."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {name: _member(archive, name, str(path)) for name in names}
    except KeyError as error:
        problem = f"no {error.args[0]}; expected {', '.join(names)}"
        raise SourceError(Code.UNKNOWN_LAYOUT, problem, where=str(path)) from error
    except _BROKEN as error:
        raise SourceError(
            Code.CORRUPT_RECORD, f"not a camera pose file: {str(error)[:200]}", where=str(path)
        ) from error


def _member(archive: zipfile.ZipFile, name: str, where: str) -> Array:
    """One array of plain numbers, no larger than its member, as float64."""
    if archive.getinfo(f"{name}.npy").file_size > MAX_MEMBER_BYTES:
        problem = f"{name} is larger than {MAX_MEMBER_BYTES} bytes"
        raise SourceError(Code.TOO_LARGE, problem, where=where)
    data = archive.read(f"{name}.npy")
    stream = io.BytesIO(data)
    read_header = {
        (1, 0): npy_format.read_array_header_1_0,
        (2, 0): npy_format.read_array_header_2_0,
    }[npy_format.read_magic(stream)]
    shape, is_fortran, dtype = read_header(stream)
    if dtype.kind not in "fiu":
        raise SourceError(
            Code.CORRUPT_RECORD, f"{name} holds {dtype}; expected numbers", where=where
        )
    body = data[stream.tell() :]
    if math.prod(shape) * dtype.itemsize != len(body):
        problem = f"{name} declares {shape} of {dtype}, which does not match its {len(body)} bytes"
        raise SourceError(Code.TRUNCATED, problem, where=where)
    order: Literal["F", "C"] = "F" if is_fortran else "C"
    return np.frombuffer(body, dtype).reshape(shape, order=order).astype(np.float64)


def _checked(program: str, path: Path, poses: Array, index: Array | None) -> EstimatedPoses:
    """`index` None: pose i is of frame i."""
    if poses.ndim != 3 or poses.shape[1:] != (4, 4) or not len(poses):
        raise SourceError(
            Code.SHAPE_MISMATCH, f"poses {poses.shape}; expected [N, 4, 4]", where=str(path)
        )
    frame_numbers = np.arange(len(poses), dtype=np.float64) if index is None else index.reshape(-1)
    frames = frame_numbers.astype(np.int64)
    if len(frames) != len(poses) or np.any(frames != frame_numbers) or np.any(np.diff(frames) <= 0):
        raise SourceError(
            Code.CLOCK_NOT_INCREASING, "frame numbers must be increasing integers", where=str(path)
        )
    if frames[0] < 0 or not np.isfinite(poses).all():
        raise SourceError(
            Code.NOT_FINITE, "a pose or frame number is not a number", where=str(path)
        )
    T = rigid_matrices(poses, str(path))
    worst = float(np.max(rotation_error(T[:, :3, :3])))
    if worst > ROTATION_TOLERANCE:
        raise SourceError(
            Code.NOT_A_ROTATION,
            f"rotation deviates from a rotation matrix by {worst:.2g}",
            where=str(path),
        )
    return EstimatedPoses(
        program=program, index=frames, T_world_cam=T, path=str(path), is_every_frame=index is None
    )


def _on_the_cameras_clock(name: str, poses: EstimatedPoses, camera: Camera) -> Stream:
    """Pose i of the file belongs to frame i of the VIDEO, of which the episode may show a part."""
    first, times_ns = _frame_times(camera)
    number = poses.index - first
    shown = (number >= 0) & (number < len(times_ns))
    if not shown.any():
        problem = f"the file has no pose for any of the {len(times_ns)} frames of the episode"
        raise SourceError(Code.NO_COMMON_TIME, problem, where=poses.path)
    return Stream(
        spec=pose_channel(name), t_ns=times_ns[number[shown]], values=poses.T_world_cam[shown]
    )


def _frame_times(camera: Camera) -> tuple[int, npt.NDArray[np.int64]]:
    """The number in the video of the episode's first frame, and the instants of its frames on the episode's clock."""
    frames = camera.frames
    if isinstance(frames, VideoSpan):
        assert camera.t_ns is not None  # Camera.__post_init__
        return frames.first_frame, camera.t_ns
    assert isinstance(frames, VideoWindow)
    start_ns, end_ns = ns_from_seconds([frames.start_s, frames.end_s]).tolist()
    times_ns = frame_times_ns(Path(frames.path))
    shown = np.flatnonzero((times_ns >= start_ns) & (times_ns < end_ns))
    if not len(shown):
        raise SourceError(
            Code.EMPTY_EPISODE, "the video has no frame in the window", where=frames.path
        )
    return int(shown[0]), times_ns[shown] - start_ns
