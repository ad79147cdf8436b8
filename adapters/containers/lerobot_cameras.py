"""Which features of a LeRobot set are colour cameras, what they are called, and where their pictures are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from adapters.containers.lerobot_episodes import EpisodeMeta
from adapters.containers.lerobot_meta import Modality, SetInfo, SourceFeature
from adapters.containers.lerobot_paths import video_path
from adapters.containers.lerobot_table import TableRows
from adapters.containers.safe_path import exists_inside, inside
from schemas.episode import Camera, EncodedImages, VideoSpan
from schemas.errors import Code, SourceError
from schemas.fact import Certainty, Fact

_NOT_RGB = {"depth", "seg", "segmentation", "mask", "instance", "semantic", "normal", "normals"}
_PREFIXES = (
    "observation.images.",
    "observation.image.",
    "images.rgb.",
    "images.",
    "observation.",
    "video.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraPlace:
    """One camera of one episode. `path` is relative to the root; "" when the pictures are in the data file."""

    name: str
    key: str
    path: str
    first_frame: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RgbCameras:
    """The rgb cameras of a set: key -> canonical name, for those with a video, those in the rows, and what was left out."""

    videos: dict[str, str]
    images: dict[str, str]
    facts: tuple[Fact, ...]


def camera_name(key: str) -> str:
    """A camera name of our grammar from a feature key: observation.images.cam_high -> cam_high."""
    short = next((key.removeprefix(p) for p in _PREFIXES if key.startswith(p)), key)
    return re.sub(r"[^a-z0-9]+", "_", short.lower()).strip("_") or "camera"


def why_not_rgb(key: str, feature: SourceFeature) -> str | None:
    """The reason why a picture feature is no colour camera, or None."""
    if feature.info.get("video.is_depth_map") or feature.info.get("is_depth_map"):
        return "info.json says it is a depth map"
    if words := set(re.split(r"[^a-z]+", key.lower())) & _NOT_RGB:
        return f"its name says {sorted(words)[0]}"
    if len(feature.shape) == 3 and 3 not in feature.shape:
        return f"shape {list(feature.shape)} has no three channels"
    return None


def rgb_cameras(
    root: Path, info: SetInfo, modality: Modality, episodes: list[EpisodeMeta]
) -> RgbCameras:
    """The colour cameras of a set, under modality.json's names where it has them."""
    names = {p.original_key: n for n, p in modality.video.items() if p.original_key}
    videos: dict[str, str] = {}
    images: dict[str, str] = {}
    facts: list[Fact] = []
    for key, feature in info.features.items():
        if not feature.is_picture:
            continue
        if reason := why_not_rgb(key, feature):
            facts.append(_left_out(key, reason))
            continue
        place = videos if feature.dtype == "video" else images
        place[key] = camera_name(names.get(key, key))
    # A camera without a single file is a leftover of the template (GR00T's demo set); one of many is a gap.
    phantoms = [k for k in videos if not any(_has_video(root, info, e, k) for e in episodes)]
    if len(phantoms) < len(videos):
        for key in phantoms:
            del videos[key]
            facts.append(_left_out(key, "no file for any episode"))
    return RgbCameras(videos=videos, images=images, facts=tuple(facts))


def _has_video(root: Path, info: SetInfo, episode: EpisodeMeta, key: str) -> bool:
    try:
        path = video_path(info, episode, key)
        return path is not None and exists_inside(root, path)
    except SourceError:
        return True  # unsafe or senseless: kept, so that each episode reports it


def check_distinct(places: list[CameraPlace]) -> None:
    """A template without {video_key} (Humanoid Everyday) gives all cameras one file, so its camera is unknown."""
    for what, values in (
        ("file", [p.path for p in places if p.path]),
        ("name", [p.name for p in places]),
    ):
        if len(set(values)) < len(values):
            problem = f"several cameras {[p.key for p in places]} have one {what}"
            raise SourceError(Code.UNKNOWN_LAYOUT, problem, where="meta/info.json")


def camera_of(
    place: CameraPlace, rows: TableRows, t_ns: npt.NDArray[np.int64], root: Path
) -> Camera:
    """The camera of an episode: frame k of its video, from `first_frame`, belongs to row k at t_ns[k].

    Raises:
        SourceError: UNSAFE_PATH, or as `Rows.pictures`.
    """
    if not place.path:
        images = EncodedImages(images=rows.pictures(place.key))
        return Camera(name=place.name, frames=images, t_ns=t_ns)
    path = str(inside(root, place.path))
    span = VideoSpan(path=path, first_frame=place.first_frame, num_frames=rows.num_rows)
    return Camera(name=place.name, frames=span, t_ns=t_ns)


def _left_out(key: str, reason: str) -> Fact:
    return Fact(
        name=f"camera_left_out.{key}",
        value="left out",
        certainty=Certainty.VERIFIED,
        source=reason,
        is_for_actions=False,
    )
