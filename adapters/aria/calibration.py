"""`online_calibration.jsonl` of Aria's machine perception services: the cameras of the headset, re-estimated along the way.

One line per estimate: `tracking_timestamp_us` (device clock) and `CameraCalibrations[{Label, Projection{Name, Params[15]},
T_Device_Camera{Translation, UnitQuaternion [w, [x, y, z]]}}]`; newer files add `ImageSizes` in the same order (verified on real
Gen1 samples of both kinds). One line is used for a whole recording, the one nearest to its middle: the world poses of the hands
do not depend on the choice, because what takes them from the device to a camera takes them back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from io import TextIOWrapper
from pathlib import Path

from pydantic import Field

from adapters.containers.fisheye_camera import FisheyeCamera, fisheye_camera, rigid
from adapters.containers.json_rows import Broken, JsonRow, parse
from adapters.containers.raw_file import raw_file_of
from adapters.containers.sidecar import json_object
from schemas.episode import RawFile
from schemas.errors import Code, SourceError
from schemas.regular_file import open_regular

MAX_LINE_CHARS = 1 << 20  # a real line has 5,200
FISHEYE624 = "FisheyeRadTanThinPrism"
GEN1_CAMERA = "camera-slam-left"  # Gen2 calls its own slam-front-left
MIN_FIT = 0.4  # of width or height: where a principal point has to lie for a size to be believed


class _Projection(JsonRow):
    name: str = Field(alias="Name")
    params: tuple[float, ...] = Field(alias="Params", max_length=32)


class _Pose(JsonRow):
    translation: tuple[float, float, float] = Field(alias="Translation")
    unit_quat_wxyz: tuple[float, tuple[float, float, float]] = Field(alias="UnitQuaternion")


class _Camera(JsonRow):
    label: str = Field(alias="Label", max_length=100)
    projection: _Projection = Field(alias="Projection")
    T_device_cam: _Pose = Field(alias="T_Device_Camera")


class _Line(JsonRow):
    t_us: int = Field(alias="tracking_timestamp_us")
    cameras: tuple[_Camera, ...] = Field(alias="CameraCalibrations", max_length=16)
    sizes: tuple[tuple[int, int], ...] = Field(alias="ImageSizes", default=())


def online_calibration(
    path: Path, root: Path, near_us: int | None = None
) -> tuple[dict[str, FisheyeCamera], RawFile]:
    """Label -> camera from the line nearest to `near_us` on the device clock, or the middle one.

    Raises:
        SourceError: MISSING_FILE, BAD_ANNOTATION (no such line), UNKNOWN_LAYOUT (another lens).
    """
    where = path.name
    raw = raw_file_of(path, root)
    times = [parsed.t_us for parsed in _lines(path, where)]
    if not times:
        raise SourceError(Code.BAD_ANNOTATION, "the file has no line", where=where)
    at = len(times) // 2
    if near_us is not None:
        at = min(range(len(times)), key=lambda k: abs(times[k] - near_us))
    line = next(parsed for k, parsed in enumerate(_lines(path, where)) if k == at)
    cameras = {}
    for k, stated in enumerate(line.cameras):
        if stated.projection.name != FISHEYE624:
            problem = f"{stated.label}: lens {stated.projection.name!r}; expected {FISHEYE624}"
            raise SourceError(Code.UNKNOWN_LAYOUT, problem, where=where)
        w, xyz = stated.T_device_cam.unit_quat_wxyz
        T_device_cam = rigid((w, *xyz), stated.T_device_cam.translation, where)
        size = line.sizes[k] if k < len(line.sizes) else None
        camera = fisheye_camera(stated.label, stated.projection.params, T_device_cam, size)
        cameras[stated.label] = camera
    return cameras, raw


def _lines(path: Path, where: str) -> Iterator[_Line]:
    """One at a time: an hour of them is 500 MB."""
    try:
        with TextIOWrapper(open_regular(path, where=where), encoding="utf-8") as file:
            while text := file.readline(MAX_LINE_CHARS):
                if text.strip():
                    parsed = parse(_Line, json_object(text, where))
                    if isinstance(parsed, Broken):
                        raise SourceError(Code.BAD_ANNOTATION, parsed.why, where=where)
                    yield parsed
    except UnicodeDecodeError as error:
        raise SourceError(Code.BAD_ANNOTATION, f"not UTF-8 text: {error}", where=where) from error


def is_gen1(cameras: Mapping[str, FisheyeCamera]) -> bool:
    """Gen1's RGB sensor is mounted on its side (projectaria_tools turns its pictures by 90 degrees clockwise to show them)."""
    return GEN1_CAMERA in cameras


def fits(camera: FisheyeCamera, size: tuple[int, int]) -> bool:
    """Whether the principal point lies near the middle of a picture of that size: a calibration may state no size itself."""
    return all(
        MIN_FIT * n < c < (1 - MIN_FIT) * n for c, n in zip(camera.K_cam[:2, 2], size, strict=True)
    )


def camera_name(label: str) -> str:
    """`camera-rgb` -> `rgb`, `slam-front-left` -> `slam_front_left`."""
    return label.removeprefix("camera-").replace("-", "_").lower()
