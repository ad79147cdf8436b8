"""The video of an Aria recording: VRS, or an MP4 that was exported from it.

A video that `projectaria_tools`' vrs_to_mp4 made of a recording: each picture's device time is in the file.

Source: `facebookresearch/projectaria_tools:projectaria_tools/tools/vrs_to_mp4/vrs_to_mp4_utils.py` (code): the tag `description`
holds the times in ns, comma-separated, one a picture; Gen1's pictures are turned by 90 degrees clockwise. The tool shows the
nearest picture at each instant of a constant rate, so that a picture may come twice.

Aria recordings (VRS) through `projectaria-tools`: an optional extra (`aria`), imported in this file and nowhere else.

    pip install --no-deps projectaria-tools==2.3.0      its own pins exclude ours; --no-deps is enough (tried)
Read on real files: Gen1 (Aria Everyday Activities, Digital Twin, HOT3D) and Gen2 with on-device hand tracking. Pictures are
decoded when asked for and handed on as JPEG of quality 95, as a recording of minutes does not fit into memory. Gen1's RGB sensor
lies on its side: its pictures are turned by 90 degrees clockwise, and the camera with them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt

from adapters.aria.mps import NUM_LANDMARKS, DeviceHand, DeviceTrajectory, is_gen1
from adapters.containers.images import LazyImages
from adapters.containers.poses import FisheyeCamera, fisheye_camera, turned_clockwise
from adapters.containers.video_probe import probe_video, unreadable_video
from schemas.av_options import open_video
from schemas.episode import SIDES
from schemas.errors import Code, SourceError
from schemas.geometry import Array

# -- exported ------------------------------------------------------------------------------------------------------

TAG = "description"
MAX_TAG_CHARS = 64 << 20
_TIMES = re.compile(r"\[?\s*\d{1,18}(?:\s*,\s*\d{1,18})*\s*\]?")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExportedVideo:
    """`t_ns` [N] device clock, None where the file carries no times; `num_repeated` of them were the time before."""

    path: Path
    num_frames: int
    size: tuple[int, int]  # (width, height)
    t_ns: npt.NDArray[np.int64] | None
    num_repeated: int


def exported_video(path: Path) -> ExportedVideo:
    """Size and times; nothing is decoded.

    A picture that is shown again is stamped 1 ns after itself: it is of that instant, and a clock has to increase.

    Raises:
        SourceError: as `probe_video`; FRAME_COUNT (not one time a picture), CLOCK_NOT_INCREASING (a time goes back).
    """
    probe = probe_video(path)
    times = _times(path)
    num_repeated = 0
    if times is not None:
        if len(times) != probe.num_frames:
            problem = (
                f"{len(times)} timestamps for {probe.num_frames} frames; export the video again"
            )
            raise SourceError(Code.FRAME_COUNT, problem, where=path.name)
        if np.any(np.diff(times) < 0):
            raise SourceError(Code.CLOCK_NOT_INCREASING, "timestamps decrease", where=path.name)
        num_repeated = int((np.diff(times) == 0).sum())
        times = _increasing(times)
    return ExportedVideo(
        path=path,
        num_frames=probe.num_frames,
        size=(probe.width_px, probe.height_px),
        t_ns=times,
        num_repeated=num_repeated,
    )


def _times(path: Path) -> npt.NDArray[np.int64] | None:
    try:
        with open_video(path) as container:
            text = container.metadata.get(TAG, "")
    except (av.FFmpegError, OSError) as error:
        raise unreadable_video(error, path.name) from error
    if len(text) > MAX_TAG_CHARS or not _TIMES.fullmatch(text):
        return None
    return np.array([int(t) for t in text.strip("[] ").split(",")], dtype=np.int64)


def _increasing(times: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Each of a run of equal times 1 ns after the one before."""
    index = np.arange(len(times))
    starts = np.concatenate([[True], np.diff(times) > 0])
    return np.asarray(times + index - np.maximum.accumulate(np.where(starts, index, 0)))


# -- vrs -----------------------------------------------------------------------------------------------------------

PACKAGE = "projectaria_tools"
ADVICE = "pip install --no-deps projectaria-tools, or put an exported mp4 beside it"
RGB, HANDS, TRAJECTORY = "camera-rgb", "handtracking", "vio_high_frequency"
JPEG_QUALITY = 95
MAX_RECORDS = 20_000_000  # an hour at 800 Hz has 2.9 million


def is_readable() -> bool:
    """Whether the extra is installed."""
    return find_spec(PACKAGE) is not None


@dataclass(frozen=True, slots=True)
class VrsImage:
    """Reads one picture of a stream by its number, as JPEG."""

    path: str
    label: str
    is_turned: bool

    def __call__(self, number: str) -> bytes:
        """Raises SourceError: CORRUPT_VIDEO."""
        where = f"{Path(self.path).name}:{self.label}"
        provider = _provider(self.path)
        try:
            data, _ = provider.get_image_data_by_index(_stream(provider, self.label), int(number))
            if not data.is_valid():
                raise SourceError(Code.CORRUPT_VIDEO, f"image {number} is empty", where=where)
            picture = np.asarray(data.to_numpy_array())
        except (RuntimeError, ValueError) as error:
            raise SourceError(
                Code.CORRUPT_VIDEO, f"picture {number}: {error}", where=where
            ) from error
        picture = np.rot90(picture, -1) if self.is_turned else picture
        picture = picture[..., ::-1] if picture.ndim == 3 else picture  # cv2 wants BGR
        is_done, encoded = cv2.imencode(
            ".jpg", np.ascontiguousarray(picture), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
        )
        if not is_done:
            raise SourceError(Code.CORRUPT_VIDEO, f"image {number} cannot be encoded", where=where)
        return encoded.tobytes()


@dataclass(frozen=True, slots=True)
class VrsFile:
    """One recording. Streams are named by projectaria_tools' labels: camera-rgb, camera-slam-left, slam-front-left ..."""

    path: str

    def has(self, label: str) -> bool:
        provider = _provider(self.path)
        stream = provider.get_stream_id_from_label(label)
        return stream is not None and provider.get_num_data(stream) > 0

    def cameras(self) -> dict[str, FisheyeCamera]:
        """Label -> camera by the factory's calibration, as the sensor sees."""
        calibration = _provider(self.path).get_device_calibration()
        labels = [] if calibration is None else calibration.get_camera_labels()
        by_label = {label: calibration.get_camera_calib(label) for label in labels}
        return {
            label: fisheye_camera(
                label,
                camera.get_projection_params().tolist(),
                np.asarray(camera.get_transform_device_camera().to_matrix()),
                (int(camera.get_image_size()[0]), int(camera.get_image_size()[1])),
            )
            for label, camera in by_label.items()
            if camera is not None and len(camera.get_projection_params()) in (15, 16)
        }

    def picture_times_ns(self, label: str, *, timecode: bool = False) -> npt.NDArray[np.int64]:
        """[N] capture times on the device's clock, or on TIME_CODE, which HOT3D's tables use."""
        from projectaria_tools.core.sensor_data import TimeDomain

        domain = TimeDomain.TIME_CODE if timecode else TimeDomain.DEVICE_TIME
        provider = _provider(self.path)
        try:
            times = provider.get_timestamps_ns(_stream(provider, label), domain)
        except (RuntimeError, ValueError) as error:
            where = f"{Path(self.path).name}:{label}"
            raise SourceError(
                Code.MISSING_CHANNEL, f"the recording has no such clock: {error}", where=where
            ) from error
        return np.array(times, dtype=np.int64)

    def pictures(self, label: str, *, is_turned: bool) -> LazyImages:
        provider = _provider(self.path)
        count = int(provider.get_num_data(_stream(provider, label)))
        return LazyImages([str(k) for k in range(count)], VrsImage(self.path, label, is_turned))

    def hands(self) -> tuple[DeviceHand, ...]:
        """Gen2's on-device hand tracking: () where there is none."""
        if not self.has(HANDS):
            return ()
        provider = _provider(self.path)
        stream = _stream(provider, HANDS)
        rows = [
            provider.get_hand_pose_data_by_index(stream, k) for k in range(_count(provider, stream))
        ]
        t_ns = np.array([_ns(row.tracking_timestamp) for row in rows], dtype=np.int64)
        return tuple(
            _device_hand(side, t_ns, [getattr(row, f"{side}_hand") for row in rows])
            for side in SIDES
        )

    def trajectory(self) -> DeviceTrajectory | None:
        """Gen2's on-device odometry at 800 Hz, gravity -z; None where there is none."""
        if not self.has(TRAJECTORY):
            return None
        provider = _provider(self.path)
        stream = _stream(provider, TRAJECTORY)
        rows = [
            provider.get_vio_high_freq_data_by_index(stream, k)
            for k in range(_count(provider, stream))
        ]
        gravity = np.median([np.asarray(row.gravity_odometry) for row in rows], axis=0)
        return DeviceTrajectory(
            t_ns=np.array([_ns(row.tracking_timestamp) for row in rows], dtype=np.int64),
            T_world_device=np.array([row.transform_odometry_device.to_matrix() for row in rows]),
            valid=np.ones(len(rows), dtype=bool),
            world_up="+z" if gravity[2] < -9 else None,
        )


def open_vrs(path: Path) -> VrsFile:
    """The recording.

    Raises:
        SourceError: UNREADABLE (the extra is not installed, or no VRS file).
    """
    if not is_readable():
        problem = f"reading VRS files needs the extra `aria`; {ADVICE}"
        raise SourceError(Code.UNREADABLE, problem, where=path.name)
    _provider(str(path))
    return VrsFile(str(path))


def shown_camera(cameras: dict[str, FisheyeCamera], label: str) -> tuple[FisheyeCamera, bool]:
    """The camera whose pictures people look at, and whether it is turned against the sensor."""
    if label == RGB and is_gen1(cameras):
        return turned_clockwise(cameras[label]), True
    return cameras[label], False


@lru_cache(maxsize=2)  # opening takes 40 ms, and each picture asks for it
def _provider(path: str) -> Any:
    from projectaria_tools.core import data_provider

    provider = data_provider.create_vrs_data_provider(path)
    if provider is None:
        raise SourceError(
            Code.UNREADABLE, "projectaria_tools cannot open VRS files on this platform", where=path
        )
    return provider


def _stream(provider: Any, label: str) -> Any:
    stream = provider.get_stream_id_from_label(label)
    if stream is None:
        raise SourceError(Code.MISSING_CHANNEL, f"no stream {label}", where=label)
    return stream


def _count(provider: Any, stream: Any) -> int:
    count = int(provider.get_num_data(stream))
    if count > MAX_RECORDS:
        problem = f"{count} records; expected at most {MAX_RECORDS}"
        raise SourceError(Code.TOO_LONG, problem, where=str(stream))
    return count


def _ns(since_boot: Any) -> int:
    """A timedelta in ns, without a float in between."""
    us = (since_boot.days * 86_400 + since_boot.seconds) * 1_000_000 + since_boot.microseconds
    return int(us) * 1000


def _device_hand(side: str, t_ns: npt.NDArray[np.int64], hands: list[Any]) -> DeviceHand:
    landmarks: Array = np.zeros((len(hands), NUM_LANDMARKS, 3))
    T_wrist: Array = np.tile(np.eye(4), (len(hands), 1, 1))
    confidence: Array = np.full(len(hands), -1.0)
    for k, hand in enumerate(hands):
        if hand is not None and hand.confidence >= 0:
            landmarks[k] = np.array([np.asarray(p) for p in hand.landmark_positions_device])
            T_wrist[k] = hand.transform_device_wrist.to_matrix()
            confidence[k] = hand.confidence
    return DeviceHand(
        side=side, t_ns=t_ns, confidence=confidence, landmarks_m=landmarks, T_device_wrist=T_wrist
    )
