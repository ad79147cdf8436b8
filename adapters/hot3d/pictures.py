"""The pictures of a full HOT3D sequence: exported ones beside the tables, else `recording.vrs` where it can be read.

    <sequence>/<stream>.mp4           one picture a frame of the stream: 214-1.mp4, 1201-1.mp4, 1201-2.mp4
    <sequence>/<stream>/*.jpg         the same as single pictures, in natural order
    <sequence>/recording.vrs          Aria only, through projectaria-tools (adapters/aria/vrs.py)
Exported pictures carry no TIME_CODE: they are given the instants of the stream's rows in the masks, one by one, and must be as
many. A file that vrs_to_mp4 made is turned by 90 degrees for Aria's RGB (its description tag tells it); others are as the
sensor has them (inferred).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from adapters.aria.mps import camera_name, online_calibration
from adapters.aria.vrs import RGB, VrsFile, exported_video, is_readable, open_vrs, shown_camera
from adapters.containers.images import ImageFolder, LazyImages
from adapters.containers.listing import natural_key
from adapters.containers.poses import FisheyeCamera
from adapters.containers.raw_file import raw_file_of
from adapters.containers.safe_path import inside
from adapters.hot3d.sequence import CAMERA_OF, Masks
from schemas.episode import Camera, EncodedImages, RawFile, VideoSpan
from schemas.errors import Code, SourceError
from schemas.fact import Certainty, Fact, fact
from schemas.regular_file import path_exists

VRS = "recording.vrs"
CALIBRATION = ("mps/slam/online_calibration.jsonl", "online_calibration.jsonl")
ARIA, ARIA_SIZES = "Aria", {"rgb": (1408, 1408)}  # a mono camera's is 640 x 480
ARIA_MONO_SIZE = (640, 480)


@dataclass(slots=True, kw_only=True)
class Views:
    """`models` are the cameras of the headset as the pictures show them (as the sensors see where there are none)."""

    models: dict[str, FisheyeCamera] = field(default_factory=dict)  # by camera name
    cameras: list[Camera] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)
    raw_files: list[RawFile] = field(default_factory=list)

    def add(
        self,
        name: str,
        frames: VideoSpan | EncodedImages,
        t_ns: npt.NDArray[np.int64],
        source: str,
    ) -> None:
        model = self.models.get(name)
        camera = Camera(name=name, frames=frames, t_ns=t_ns)
        if model is not None and model.size is not None:
            camera = replace(camera, K_cam=model.K_cam, K_size=model.size, lens=model.lens)
        self.cameras.append(camera)
        self.facts.append(fact(f"pictures.{name}", source, Certainty.VERIFIED, "this sequence"))


def aria_models(folder: Path, root: Path, views: Views) -> None:
    """The cameras of an Aria by its online calibration, else by its VRS file; none of them is no error."""
    models: dict[str, FisheyeCamera] = {}
    path = next((folder / name for name in CALIBRATION if path_exists(folder / name)), None)
    if path is not None:
        models, raw = online_calibration(path, root)
        views.raw_files.append(raw)
    elif path_exists(folder / VRS) and is_readable():
        models = open_vrs(folder / VRS).cameras()
    for label, camera in models.items():
        name = camera_name(label)
        size = camera.size or ARIA_SIZES.get(name, ARIA_MONO_SIZE)
        views.models[name] = replace(camera, size=size)


def add_images(
    folder: Path, beside: Path, root: Path, headset: str, masks: Masks, views: Views
) -> None:
    """Every stream whose pictures are there; a fact says why there are none.

    Raises:
        SourceError: FRAME_COUNT (not one picture a row of the masks), and as the readers of videos and VRS files.
    """
    for stream, name in CAMERA_OF.items():
        if path_exists(beside / f"{stream}.mp4"):
            _add_video(inside(beside, f"{stream}.mp4"), stream, headset, masks, views, root)
        elif (beside / stream).is_dir():
            _add_folder(inside(beside, stream), stream, name, masks, views)
    if views.cameras:
        return
    path = folder / VRS
    if not path_exists(path):
        why = f"{VRS} is not there, and no exported {'.mp4, '.join(CAMERA_OF)}.mp4 either"
    elif headset != ARIA:
        why = f"{VRS} of a {headset} is not read by projectaria-tools; export it to <stream>.mp4"
    elif not is_readable():
        why = f"{VRS} needs projectaria-tools (extra `aria`), or export it to <stream>.mp4"
    else:
        views.raw_files.append(raw_file_of(path, root))
        _add_vrs(open_vrs(inside(folder, VRS)), views)
        return
    views.facts.append(fact("pictures", f"none: {why}", Certainty.VERIFIED, "this sequence"))


def _add_video(
    path: Path, stream: str, headset: str, masks: Masks, views: Views, root: Path
) -> None:
    name, video = CAMERA_OF[stream], exported_video(path)
    t_ns = _frame_times(masks, stream, video.num_frames, path.name)
    source = "exported, as the sensor has it (inferred)"
    if name == "rgb" and headset == ARIA and video.t_ns is not None and name in views.models:
        views.models[name] = _turned(views.models)
        source = "exported by vrs_to_mp4, turned 90 degrees clockwise"
    views.raw_files.append(raw_file_of(path, root))
    frames = VideoSpan(path=str(path), first_frame=0, num_frames=video.num_frames)
    views.add(name, frames, t_ns, source)


def _add_folder(path: Path, stream: str, name: str, masks: Masks, views: Views) -> None:
    names = sorted(
        (p.name for p in path.iterdir() if p.suffix.lower() in (".jpg", ".png")), key=natural_key
    )
    t_ns = _frame_times(masks, stream, len(names), path.name)
    for one in names:
        inside(path, one)  # a link must not lead out
    pictures = LazyImages(names, ImageFolder(folder=path.resolve(), where=path.name))
    views.add(
        name, EncodedImages(images=pictures), t_ns, "exported, as the sensor has it (inferred)"
    )


def _frame_times(masks: Masks, stream: str, count: int, where: str) -> npt.NDArray[np.int64]:
    times = masks.times_ns(stream)
    if len(times) != count:
        problem = f"{count} frames in the video, {len(times)} frames of {stream} in the masks"
        raise SourceError(Code.FRAME_COUNT, f"{problem}; export one image per frame", where=where)
    return times


def _add_vrs(vrs: VrsFile, views: Views) -> None:
    for name in CAMERA_OF.values():
        label = f"camera-{name.replace('_', '-')}"
        if not vrs.has(label):
            continue
        is_turned = name == "rgb"
        if is_turned and name in views.models:
            views.models[name] = _turned(views.models)
        frames = EncodedImages(images=vrs.pictures(label, is_turned=is_turned))
        source = "recording.vrs" + (", turned 90 degrees clockwise" if is_turned else "")
        views.add(name, frames, vrs.picture_times_ns(label, timecode=True), source)


def _turned(models: Mapping[str, FisheyeCamera]) -> FisheyeCamera:
    return shown_camera({camera.label: camera for camera in models.values()}, RGB)[0]
