"""One Aria recording: its files, and what of them can be read here.

Which files make one recording: the outputs of the machine perception services and the recording they were made of.

<name>.vrs, <name>.mp4      beside      mps_<name>_vrs/{hand_tracking,slam}/...      (projectaria-mps)
recording.vrs, *.mp4        beside      mps/{hand_tracking,slam}/...                 (Meta's data sets)
hand_tracking/..., slam/...  (or trajectory/...) alone, and .vrs files alone

Everything of one Aria recording that can be read here, still on the device's clock.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from adapters.aria.mps import (
    DeviceHand,
    DeviceTrajectory,
    fits,
    online_calibration,
    read_hands,
    read_trajectory,
)
from adapters.aria.vrs import (
    ADVICE,
    RGB,
    ExportedVideo,
    VrsFile,
    exported_video,
    is_readable,
    open_vrs,
    shown_camera,
)
from adapters.containers.poses import FisheyeCamera
from adapters.containers.raw_file import raw_file_of
from adapters.containers.safe_path import inside
from schemas.episode import Camera, EncodedImages, RawFile, Stream, VideoSpan, pose_channel
from schemas.errors import Code, ConfigError, SourceError
from schemas.fact import Certainty, Fact, fact
from schemas.hand_track import HandTrack
from schemas.regular_file import path_exists

# -- tree ----------------------------------------------------------------------------------------------------------

HANDS, TRAJECTORY = "hand_tracking_results*.csv", "closed_loop_trajectory.csv"
CALIBRATION = "online_calibration.jsonl"
SLAM_FOLDERS = ("slam", "trajectory")
_MPS_OF = re.compile(r"mps_(.+)_vrs")


@dataclass(frozen=True, slots=True, kw_only=True)
class AriaRecording:
    """Paths relative to the root, "" where there is no such file."""

    name: str
    hands: str = ""
    trajectory: str = ""
    calibration: str = ""
    vrs: str = ""
    video: str = ""


def recordings(root: Path) -> Iterator[AriaRecording]:
    """Every recording below `root`, in order of its name; nothing is opened.

    Raises:
        ConfigError: there is none.
    """
    by_name = {r.name: r for r in (*_of_services(root), *_alone(root))}
    if not by_name:
        raise ConfigError(f"no {HANDS}, {TRAJECTORY} or *.vrs below it", where=str(root))
    yield from (by_name[name] for name in sorted(by_name))


def _of_services(root: Path) -> Iterator[AriaRecording]:
    """One recording a folder of outputs; one for each version of a table."""
    for folder in sorted(_output_folders(root)):
        home = folder.parent if folder.name == "mps" or _MPS_OF.fullmatch(folder.name) else folder
        match = _MPS_OF.fullmatch(folder.name)
        stem = match[1] if match else None
        slam = [folder / name for name in SLAM_FOLDERS] + [folder]
        shared = {
            "trajectory": _first(root, (s / TRAJECTORY for s in slam)),
            "calibration": _first(root, (s / CALIBRATION for s in slam)),
            "vrs": _only(root, home, ".vrs", stem),
            "video": _only(root, home, ".mp4", stem),
        }
        name = (home / stem if stem else home).relative_to(root).as_posix()
        name = root.resolve().name if name == "." else name
        tables = sorted((*folder.glob(HANDS), *folder.glob(f"hand_tracking/{HANDS}")))
        if not tables:
            yield AriaRecording(name=name, **shared)
        for table in tables:
            own = f"{name}/{table.stem}" if len(tables) > 1 else name
            yield AriaRecording(name=own, hands=table.relative_to(root).as_posix(), **shared)


def _alone(root: Path) -> Iterator[AriaRecording]:
    claimed = {r.vrs for r in _of_services(root)}
    for path in sorted(root.rglob("*.vrs")):
        if (vrs := path.relative_to(root).as_posix()) not in claimed:
            video = _only(root, path.parent, ".mp4", path.stem)
            yield AriaRecording(name=vrs.removesuffix(".vrs"), vrs=vrs, video=video)


def _output_folders(root: Path) -> set[Path]:
    steps = (*SLAM_FOLDERS, "hand_tracking")
    files = (path for pattern in (HANDS, TRAJECTORY) for path in root.rglob(pattern))
    return {p.parent.parent if p.parent.name in steps else p.parent for p in files}


def _first(root: Path, paths: Iterator[Path]) -> str:
    return next((p.relative_to(root).as_posix() for p in paths if path_exists(p)), "")


def _only(root: Path, home: Path, suffix: str, stem: str | None) -> str:
    """The file of that name, or the only one; several are ambiguous."""
    files = [home / f"{stem}{suffix}"] if stem else sorted(home.glob(f"*{suffix}"))
    files = [path for path in files if path_exists(path)]
    return files[0].relative_to(root).as_posix() if len(files) == 1 else ""


# -- parts ---------------------------------------------------------------------------------------------------------

GEN1_RGB_SIZES = (
    (1408, 1408),
    (2880, 2880),
)  # the two of the sensor; older calibrations state none
NS_PER_US = 1000


@dataclass(slots=True, kw_only=True)
class RecordingParts:
    """`camera` is the RGB camera as `frames` show it; `times_ns` [N] is when they were taken."""

    hands: tuple[DeviceHand, ...] = ()
    trajectory: DeviceTrajectory | None = None
    camera: FisheyeCamera | None = None
    frames: VideoSpan | EncodedImages | None = None
    times_ns: npt.NDArray[np.int64] | None = None
    facts: list[Fact] = field(default_factory=list)
    raw_files: list[RawFile] = field(default_factory=list)

    def cameras(self, name: str, zero_ns: int) -> tuple[Camera, ...]:
        """The camera of the pictures, if there are any."""
        if self.frames is None or self.times_ns is None:
            return ()
        camera = Camera(name=name, frames=self.frames, t_ns=self.times_ns - zero_ns)
        if self.camera is not None and self.camera.size is not None:
            known = self.camera
            camera = replace(camera, K_cam=known.K_cam, K_size=known.size, lens=known.lens)
        return (camera,)

    def camera_pose(
        self, path: DeviceTrajectory | None, name: str, zero_ns: int
    ) -> tuple[Stream, ...]:
        """T_world_cam on the trajectory's own clock."""
        if path is None or self.camera is None:
            return ()
        spec = pose_channel(f"T_world_cam.{name}")
        values = path.T_world_device @ self.camera.T_device_cam
        return (Stream(spec=spec, t_ns=path.t_ns - zero_ns, values=values, valid=path.valid),)

    def tracks(self, name: str, zero_ns: int, view: str | None) -> tuple[HandTrack, ...]:
        """The hands in the optical frame of the camera."""
        if self.camera is None:
            return ()
        T = self.camera.T_device_cam
        return tuple(hand.in_camera(T, name, zero_ns, view) for hand in self.hands)


def read_parts(root: Path, recording: AriaRecording) -> RecordingParts:
    """Tables win over what the device made on board, an exported video over the VRS file (it is cheaper to read).

    Raises:
        SourceError: whatever is there and cannot be read; MISSING_META (hands or poses without any calibration).
    """
    parts = RecordingParts()
    if recording.hands:
        parts.hands, raw = read_hands(inside(root, recording.hands), recording.hands)
        parts.raw_files.append(raw)
    if recording.trajectory:
        path = inside(root, recording.trajectory)
        parts.trajectory, raw = read_trajectory(path, recording.trajectory)
        parts.raw_files.append(raw)
    cameras: dict[str, FisheyeCamera] = {}
    if recording.calibration:
        path = inside(root, recording.calibration)
        cameras, raw = online_calibration(path, root, _middle_us(parts))
        parts.raw_files.append(raw)
    vrs = _vrs(parts, root, recording)
    if vrs is not None:
        cameras = cameras or vrs.cameras()
        parts.hands = parts.hands or vrs.hands()
        parts.trajectory = parts.trajectory or vrs.trajectory()
    video = exported_video(inside(root, recording.video)) if recording.video else None
    _pictures(parts, root, recording, vrs, video)
    _camera(parts, cameras, vrs, video)
    return parts


def _middle_us(parts: RecordingParts) -> int | None:
    clocks = [h.t_ns for h in parts.hands] or [t.t_ns for t in (parts.trajectory,) if t is not None]
    return int(clocks[0][len(clocks[0]) // 2]) // NS_PER_US if clocks else None


def _vrs(parts: RecordingParts, root: Path, recording: AriaRecording) -> VrsFile | None:
    """The recording itself; a fact where it is there and the extra is not."""
    if not recording.vrs:
        return None
    if not is_readable():
        if not (recording.hands or recording.video):
            open_vrs(
                inside(root, recording.vrs)
            )  # nothing else to offer: its error says what to install
        source = "projectaria_tools is not installed"
        parts.facts.append(fact("vrs", f"not read: {ADVICE}", Certainty.VERIFIED, source))
        return None
    path = inside(root, recording.vrs)
    parts.raw_files.append(raw_file_of(path, root))
    return open_vrs(path)


def _pictures(
    parts: RecordingParts,
    root: Path,
    recording: AriaRecording,
    vrs: VrsFile | None,
    video: ExportedVideo | None,
) -> None:
    if video is not None:
        if video.t_ns is None:
            problem = "its description tag has no device times; export the video with vrs_to_mp4"
            raise SourceError(Code.MISSING_CHANNEL, problem, where=recording.video)
        parts.raw_files.append(raw_file_of(video.path, root))
        parts.frames = VideoSpan(path=str(video.path), first_frame=0, num_frames=video.num_frames)
        parts.times_ns = video.t_ns
        if video.num_repeated:
            problem = f"{video.num_repeated} of {video.num_frames}, each 1 ns after the first"
            parts.facts.append(
                fact("repeated_pictures", problem, Certainty.VERIFIED, "times in the file")
            )
    elif vrs is not None and vrs.has(RGB):
        _, is_turned = shown_camera(vrs.cameras(), RGB) if RGB in vrs.cameras() else (None, False)
        parts.frames = EncodedImages(images=vrs.pictures(RGB, is_turned=is_turned))
        parts.times_ns = vrs.picture_times_ns(RGB)


def _camera(
    parts: RecordingParts,
    cameras: dict[str, FisheyeCamera],
    vrs: VrsFile | None,
    video: ExportedVideo | None,
) -> None:
    """The RGB camera of the pictures, upright; without pictures as the sensor has it."""
    if RGB not in cameras:
        if parts.hands or parts.trajectory is not None:
            problem = "no calibration of camera-rgb, which places the hands and the device"
            raise SourceError(Code.MISSING_META, f"{problem}; download online_calibration.jsonl")
        return
    sized = dict(cameras)
    sized[RGB] = _sized(cameras[RGB], vrs, video)
    if sized[RGB].size is None:
        source = "no picture, and the calibration states no size"
        parts.facts.append(fact("picture_size", "not known", Certainty.UNKNOWN, source))
        parts.camera = sized[RGB]
        return
    parts.camera, is_turned = shown_camera(sized, RGB)
    turned = "turned 90 degrees clockwise, upright" if is_turned else "as the sensor has it"
    parts.facts.append(
        fact("picture_orientation", turned, Certainty.CODE, "projectaria_tools: vrs_to_mp4_utils")
    )


def _sized(
    camera: FisheyeCamera, vrs: VrsFile | None, video: ExportedVideo | None
) -> FisheyeCamera:
    """The size that the calibration is for: stated, else the sensor's, else one of Gen1's two that fits."""
    if camera.size is not None:
        return camera
    candidates = list(GEN1_RGB_SIZES)
    if vrs is not None and RGB in vrs.cameras():
        candidates.insert(0, vrs.cameras()[RGB].size or GEN1_RGB_SIZES[0])
    if video is not None:
        candidates.append(video.size)
    size = next((s for s in candidates if fits(camera, s)), None)
    return replace(camera, size=size)
