"""The cameras of a scene: cam_{serial}/color.mp4 with the instant of each picture in timestamps.npy.

timestamps.npy: dict with `color` and `depth`, lists of epoch milliseconds; picture i of color.mp4 belongs to color[i]
(`rh20t/rh20t_api:rh20t_api/extract.py`, code). Cameras run unequally. Pictures are 1280x720 or, resized, 640x360; the nominal
rate of the file says nothing. Depth lies in a parallel tree and is not read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from adapters.containers.listing import natural_key
from adapters.containers.safe_path import inside
from adapters.containers.video_probe import probe_video
from adapters.rh20t.calibration import NS_PER_MS, Calibration, load_dict, stamps_ms
from adapters.rh20t.scenes import Rh20tScene
from schemas.episode import Camera, VideoSpan
from schemas.errors import Code, SourceError
from schemas.fact import Certainty, Fact, fact
from schemas.regular_file import path_exists

FOLDER = re.compile(r"cam_([0-9A-Za-z]{1,40})")
MAX_CAMERAS = 32
K_SIZE = (1280, 720)  # of the calibration, whatever the size of the pictures


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recorded:
    """One camera as recorded: `ms` [N] epoch milliseconds of the first N pictures of its file."""

    serial: str
    video: Path
    stamps: Path
    ms: npt.NDArray[np.int64]
    size: tuple[int, int]

    @property
    def name(self) -> str:
        return f"cam_{self.serial.lower()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recordings:
    """Every camera of a scene that shows anything, by serial."""

    cameras: tuple[Recorded, ...]
    facts: tuple[Fact, ...]

    @property
    def first_ms(self) -> int:
        return min(int(camera.ms[0]) for camera in self.cameras)

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(path for camera in self.cameras for path in (camera.video, camera.stamps))


def read_cameras(root: Path, scene: Rh20tScene, finish_ms: int | None) -> Recordings:
    """Up to `finish_ms`. A camera without pictures is left out, with a fact.

    Raises:
        SourceError: MISSING_VIDEO (no camera at all), EMPTY_EPISODE (nothing before `finish_ms`), MISSING_FILE,
            FRAME_COUNT, CLOCK_NOT_INCREASING, CORRUPT_VIDEO, UNSAFE_PATH, or as `load_dict` and `stamps_ms`.
    """
    folders = sorted(inside(root, scene.folder).glob("cam_*"), key=lambda p: natural_key(p.name))
    if len(folders) > MAX_CAMERAS:
        problem = f"{len(folders)} cameras; expected at most {MAX_CAMERAS}"
        raise SourceError(Code.UNKNOWN_LAYOUT, problem, where=scene.folder)
    cameras, facts = [], []
    for folder in folders:
        camera = _read(root, scene, folder.name, finish_ms)
        if isinstance(camera, Recorded):
            cameras.append(camera)
        else:
            facts.append(fact(f"camera.{folder.name}", camera, Certainty.VERIFIED, "its files"))
    if not cameras:
        problem = f"no camera has images: {[f.value for f in facts]}"
        code = Code.EMPTY_EPISODE if folders and finish_ms is not None else Code.MISSING_VIDEO
        raise SourceError(code, problem, where=scene.folder)
    return Recordings(cameras=tuple(cameras), facts=tuple(facts))


def _read(root: Path, scene: Rh20tScene, name: str, finish_ms: int | None) -> Recorded | str:
    """One camera, or why it is left out."""
    where = f"{scene.folder}/{name}"
    match = FOLDER.fullmatch(name)
    if match is None:
        raise SourceError(Code.UNKNOWN_LAYOUT, "expected cam_<serial>", where=where)
    video, stamps = (inside(root, where, file) for file in ("color.mp4", "timestamps.npy"))
    if not path_exists(video):
        return "left out: no color.mp4"
    ms = stamps_ms(load_dict(stamps, f"{where}/timestamps.npy").get("color"), where)
    if not len(ms):
        return "left out: no picture has a stamp"
    if np.any(np.diff(ms) <= 0):
        problem = "timestamps of the colour images repeat or decrease"
        raise SourceError(Code.CLOCK_NOT_INCREASING, problem, where=where)
    probe = probe_video(video)
    if probe.num_frames != len(ms):
        problem = f"{probe.num_frames} images for {len(ms)} timestamps; expected one for each"
        raise SourceError(Code.FRAME_COUNT, problem, where=where)
    kept = ms if finish_ms is None else ms[ms <= finish_ms]
    if not len(kept):
        return f"left out: its first picture, {ms[0]} ms, comes after the finish at {finish_ms} ms"
    size = (probe.width_px, probe.height_px)
    return Recorded(serial=match[1], video=video, stamps=stamps, ms=kept, size=size)


def camera_of(recorded: Recorded, calibration: Calibration | None, zero_ms: int) -> Camera:
    """With the intrinsics of its serial where there are some and the picture has their shape."""
    K = calibration.K_cam(recorded.serial) if calibration else None
    has_its_shape = recorded.size[0] * K_SIZE[1] == recorded.size[1] * K_SIZE[0]
    is_known = K is not None and has_its_shape
    frames = VideoSpan(path=str(recorded.video), first_frame=0, num_frames=len(recorded.ms))
    return Camera(
        name=recorded.name,
        frames=frames,
        t_ns=(recorded.ms - zero_ms) * NS_PER_MS,
        K_cam=K if is_known else None,
        K_size=K_SIZE if is_known else None,
    )
