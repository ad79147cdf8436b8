"""DROID cameras: one wrist and two external ZED cameras, their left pictures as MP4, poses from trajectory.h5.

    recordings/MP4/{serial}.mp4              left pictures; picture k belongs to row k (reader: rerun's example)
    recordings/MP4/{serial}-stereo.mp4       both pictures side by side: not read, a camera is one picture
    recordings/SVO/{serial}.svo              ZED's own format: needs its SDK, not read
    observation/timestamp/cameras/{serial}_estimated_capture [N] ms of the workstation
    observation/camera_extrinsics/{serial}_left [N, 6] xyz m, Euler xyz rad: camera in the robot's base; the wrist one moves
    observation/camera_intrinsics/{serial}_left [N, 3, 3], in some versions
    observation/camera_type/{serial} [N]     0 = wrist
The look that ends an episode is recorded by the cameras but gets no row, so a file may have one picture more than rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from adapters.containers.hdf5 import Hdf5File
from adapters.containers.safe_path import exists_inside, inside
from adapters.containers.video_probe import probe_video
from adapters.droid.motion import NS_PER_MS, DroidClock, read_T_base
from schemas.episode import Camera, Stream, VideoSpan, pose_channel
from schemas.errors import Code, SourceError
from schemas.fact import Certainty, Fact, fact
from schemas.geometry import Array
from schemas.regular_file import path_exists

EXTRA_PICTURES = 2
MAX_SKEW_MS = 1000  # further apart, the two columns are not of one clock
READER = "rerun-io/python-example-droid-dataset:src/raw.py"


@dataclass(frozen=True, slots=True, kw_only=True)
class DroidCameras:
    cameras: tuple[Camera, ...]
    streams: tuple[Stream, ...]
    facts: tuple[Fact, ...]
    paths: tuple[Path, ...]


def missing_videos(folder: Path) -> str:
    """Why an episode's folder has no picture that can be read, or nothing."""
    if any((folder / "recordings/MP4").glob("*[0-9].mp4")):
        return ""
    if any((folder / "recordings").rglob("*.svo")):
        return "only SVO recordings, which need the ZED SDK; convert them to MP4 first"
    if any((folder / "recordings").rglob("*-stereo.mp4")):
        return (
            "only stereo MP4 files with two images side by side; download the single-image videos"
        )
    return "no recordings/MP4/<serial>.mp4; download them"


def read_cameras(
    file: Hdf5File, root: Path, folder: str, serials: dict[str, str], clock: DroidClock
) -> DroidCameras:
    """The cameras that have an MP4. `serials` maps wrist, ext1, ext2 to serial numbers.

    Raises:
        SourceError: MISSING_VIDEO (none at all), FRAME_COUNT, CORRUPT_VIDEO, UNSAFE_PATH.
    """
    cameras, streams, facts, paths = [], [], [], []
    for name, serial in serials.items():
        path = inside(root, folder, "recordings", "MP4", f"{serial}.mp4")
        if not path_exists(path):
            why = f"left out: no {serial}.mp4"
            facts.append(fact(f"camera.{name}", why, Certainty.VERIFIED, "files of this episode"))
            continue
        video = probe_video(path)
        num_rows = len(clock.t_ns)
        if not num_rows <= video.num_frames <= num_rows + EXTRA_PICTURES:
            problem = f"{video.num_frames} images for {num_rows} rows; expected one per row"
            raise SourceError(Code.FRAME_COUNT, problem, where=f"{folder}/{serial}.mp4")
        K = _K_cam(file, serial, (video.width_px, video.height_px))
        t_ns, timing = _instants(file, name, serial, clock)
        frames = VideoSpan(path=str(path), first_frame=0, num_frames=num_rows)
        size = None if K is None else (video.width_px, video.height_px)
        cameras.append(Camera(name=name, frames=frames, t_ns=t_ns, K_cam=K, K_size=size))
        streams += _T_base_cam(file, name, serial, clock)
        facts.append(timing)
        paths.append(path)
    if not cameras:
        raise SourceError(
            Code.MISSING_VIDEO,
            missing_videos(root / folder) or f"none of {serials}",
            where=folder,
        )
    if streams:
        what = "T_base_cam, OpenCV axes; visibly biased in some episodes"
        facts.append(
            fact("extrinsics", what, Certainty.UNVERIFIED, "droid-dataset/droid issues 10, 61, 64")
        )
    return DroidCameras(
        cameras=tuple(cameras), streams=tuple(streams), facts=tuple(facts), paths=tuple(paths)
    )


def serials_of(file: Hdf5File, metadata: dict[str, object]) -> dict[str, str]:
    """wrist, ext1, ext2 -> serial number: from the metadata, else type 0 is the wrist and the others go by number.

    Raises:
        SourceError: BAD_ANNOTATION when a serial number is none (it becomes a file name).
    """
    named = {name: metadata.get(f"{name}_cam_serial") for name in ("wrist", "ext1", "ext2")}
    serial_of_name = {name: str(serial) for name, serial in named.items() if serial is not None}
    if not serial_of_name:
        serials = file.children("observation/camera_type")
        types = {s: int(file.rows(f"observation/camera_type/{s}").ravel()[0]) for s in serials}
        others = (s for s in serials if types[s] != 0)
        serial_of_name = {f"ext{k}": s for k, s in enumerate(others, start=1)}
        serial_of_name |= dict([("wrist", s) for s in serials if types[s] == 0][:1])
    for serial in serial_of_name.values():
        if not (serial.isascii() and serial.isalnum()):
            raise SourceError(
                Code.BAD_ANNOTATION, f"camera serial {serial[:40]!r}", where=file.where
            )
    return serial_of_name


def since_first_sample(
    file: Hdf5File, root: Path, folder: str, serials: dict[str, str], clock: DroidClock
) -> DroidClock:
    """The clock with its zero at the earliest picture or row: pictures are taken before the row that holds them."""
    captures = (
        _captured(file, serial, clock)
        for serial in serials.values()
        if exists_inside(root, folder, "recordings", "MP4", f"{serial}.mp4")
    )
    first_ns = min([0, *(int(t_ns[0]) for t_ns in captures if t_ns is not None)])
    if clock.start_ms is None:
        return clock
    start_ms = clock.start_ms + first_ns // NS_PER_MS
    return replace(clock, t_ns=clock.t_ns - first_ns, start_ms=start_ms)


def _captured(file: Hdf5File, serial: str, clock: DroidClock) -> npt.NDArray[np.int64] | None:
    """When each picture was taken by the camera's own estimate, or None where that is not usable."""
    key = f"observation/timestamp/cameras/{serial}_estimated_capture"
    if clock.start_ms is None or key not in file or file.shape(key) != clock.t_ns.shape:
        return None
    t_ns = (np.round(file.rows(key)).astype(np.int64) - clock.start_ms) * NS_PER_MS
    is_near = np.abs(t_ns - clock.t_ns).max() < MAX_SKEW_MS * NS_PER_MS
    return t_ns if is_near and np.all(np.diff(t_ns) > 0) else None


def _instants(
    file: Hdf5File, name: str, serial: str, clock: DroidClock
) -> tuple[npt.NDArray[np.int64], Fact]:
    t_ns, topic = _captured(file, serial, clock), f"camera_clock.{name}"
    if t_ns is not None:
        return t_ns, fact(topic, "estimated_capture", Certainty.CODE, READER)
    return clock.t_ns, fact(topic, "the row's time", Certainty.INFERRED, "no usable capture times")


def _T_base_cam(file: Hdf5File, name: str, serial: str, clock: DroidClock) -> list[Stream]:
    """The left eye's pose on the rows' clock; a wrong one spoils no action, so it is only left out."""
    key = f"observation/camera_extrinsics/{serial}_left"
    if key not in file or file.shape(key) != (len(clock.t_ns), 6):
        return []
    T = read_T_base(file, key, len(clock.t_ns))
    return [Stream(spec=pose_channel(f"T_base_cam.{name}"), t_ns=clock.t_ns, values=T)]


def _K_cam(file: Hdf5File, serial: str, size: tuple[int, int]) -> Array | None:
    """[3, 3] where the file has one for pictures of this size; the usual files keep it in the SVO only."""
    key = f"observation/camera_intrinsics/{serial}_left"
    if key not in file or file.shape(key)[1:] != (3, 3):
        return None
    K = file.rows(key, 3, 3)[0]
    fits = np.isfinite(K).all() and 0 < K[0, 2] < size[0] and 0 < K[1, 2] < size[1] and K[0, 0] > 0
    return K if fits else None
