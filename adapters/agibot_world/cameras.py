"""AgiBot World cameras: videos aligned to rows by index, intrinsics and per-row extrinsics from JSON.

`head`, `hand_left`, `hand_right` are 640×480; the `*_fisheye` cameras 960×768 (`Tavish9/any4lerobot:agibot2lerobot/
agibot_utils/config.py`). Hand tasks have `hand_*_fisheye` in place of `hand_*`. Frame k belongs to row k. The head moves
with the neck and the hand cameras with the wrists, so only the `_aligned` extrinsics, one per row, are used.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import AliasChoices, Field, TypeAdapter, ValidationError, field_validator

from adapters.agibot_world.proprio import fact
from adapters.agibot_world.task_info import Checked, read_json
from adapters.containers.safe_path import inside
from adapters.containers.video_probe import probe_video
from schemas.episode import Camera, Stream, VideoSpan, pose_channel
from schemas.errors import Code, SourceError
from schemas.fact import Certainty, Fact
from schemas.geometry import Array, transform
from schemas.invalid import invalid

SUFFIX = "_color.mp4"
REQUIRED = "head"
KNOWN = (  # one of each group is expected
    ("head",),
    ("hand_left", "hand_left_fisheye"),
    ("hand_right", "hand_right_fisheye"),
    ("head_center_fisheye",),
    ("head_left_fisheye",),
    ("head_right_fisheye",),
    ("back_left_fisheye",),
    ("back_right_fisheye",),
)
NAMES = frozenset(name for group in KNOWN for name in group)
PROJECTION = "end-effector projected into the picture, AgibotTech/Genie-Envisioner samples"


class Intrinsic(Checked):
    """Pixels of the camera's own picture; reader `AgibotTech/Genie-Envisioner:data/agibotworld_dataset.py`."""

    fx: float = Field(gt=0)
    fy: float = Field(gt=0)
    cx: float = Field(validation_alias=AliasChoices("ppx", "cx"))
    cy: float = Field(validation_alias=AliasChoices("ppy", "cy"))

    @property
    def K_cam(self) -> Array:
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1.0]])


class IntrinsicFile(Checked):
    intrinsic: Intrinsic


class Extrinsic(Checked):
    rotation_matrix: tuple[tuple[float, float, float], ...] = Field(min_length=3, max_length=3)
    translation_vector: tuple[float, float, float]

    @field_validator("translation_vector", mode="before")
    @classmethod
    def _flat(cls, value: Any) -> Any:
        """[[x], [y], [z]] is taken too (the column form that OpenCV writes)."""
        if isinstance(value, list) and all(isinstance(v, list) and len(v) == 1 for v in value):
            return [v[0] for v in value]
        return value


class ExtrinsicFrame(Checked):
    extrinsic: Extrinsic


_FRAMES = TypeAdapter(tuple[ExtrinsicFrame, ...])


@dataclass(frozen=True, slots=True, kw_only=True)
class AgibotCameras:
    """What `read_cameras` found; `paths` are the files that were read."""

    cameras: tuple[Camera, ...]
    streams: tuple[Stream, ...]
    facts: tuple[Fact, ...]
    paths: tuple[Path, ...]


def read_cameras(root: Path, task: str, episode: str, t_ns: npt.NDArray[np.int64]) -> AgibotCameras:
    """Every known camera of one episode. Calibration that is missing or wrong is left out, with a fact.

    Raises:
        SourceError: MISSING_VIDEO (no head camera), CORRUPT_VIDEO, FRAME_COUNT (pictures and rows differ), UNSAFE_PATH.
    """
    videos = inside(root, "observations", task, episode, "videos")
    names = sorted(p.name.removesuffix(SUFFIX) for p in videos.glob(f"*{SUFFIX}"))
    where = f"observations/{task}/{episode}/videos"
    if REQUIRED not in names:
        raise SourceError(Code.MISSING_VIDEO, f"no head{SUFFIX}, only {names}", where=where)
    facts = [_left_out("cameras", text) for text in _absent(names)]
    cameras, streams, paths = [], [], []
    for name in [n for n in names if n in NAMES]:
        path = inside(root, *where.split("/"), f"{name}{SUFFIX}")
        paths.append(path)
        params = _parameters(root, task, episode, name)
        K, K_facts = _intrinsic(params[0], name)
        T, T_facts = _extrinsic(params[1], name, t_ns)
        cameras.append(_camera(path, name, t_ns, K, where=f"{where}/{path.name}"))
        streams += T
        facts += [*K_facts, *T_facts]
        paths += [params[0]] if K is not None else []
        paths += [params[1]] if T else []
    if streams:
        value = "T_base_cam, OpenCV axes, base_link"
        facts.append(fact("extrinsic_direction", value, Certainty.VERIFIED, PROJECTION))
    return AgibotCameras(
        cameras=tuple(cameras), streams=tuple(streams), facts=tuple(facts), paths=tuple(paths)
    )


def _left_out(name: str, why: str) -> Fact:
    return fact(name, f"left out: {why}", Certainty.UNKNOWN, "files of this episode")


def _absent(present: list[str]) -> list[str]:
    """Sentences on cameras that are expected and absent, and on videos of no known camera."""
    missing = [group[0] for group in KNOWN if not set(group) & set(present)]
    unknown = [name for name in present if name not in NAMES]
    return [
        f"{what} {names}"
        for what, names in (("no video of", missing), ("unknown camera", unknown))
        if names
    ]


def _camera(
    path: Path, name: str, t_ns: npt.NDArray[np.int64], K: Array | None, *, where: str
) -> Camera:
    video = probe_video(path)
    if video.num_frames != len(t_ns):
        problem = f"{video.num_frames} images for {len(t_ns)} rows; expected one per row"
        raise SourceError(Code.FRAME_COUNT, problem, where=where)
    return Camera(
        name=name,
        frames=VideoSpan(path=str(path), first_frame=0, num_frames=len(t_ns)),
        t_ns=t_ns,
        K_cam=K,
        K_size=None if K is None else (video.width_px, video.height_px),
    )


def _parameters(root: Path, task: str, episode: str, camera: str) -> tuple[Path, Path]:
    """Intrinsic and aligned extrinsic file; a mirror's extra parameters/ level is looked for second."""
    base = inside(root, "parameters", task, episode)
    folder = base / "camera"
    if not folder.is_dir():
        folder = base / "parameters" / "camera"
    names = (f"{camera}_intrinsic_params.json", f"{camera}_extrinsic_params_aligned.json")
    intrinsic, extrinsic = (inside(root, str(folder / name)) for name in names)
    return intrinsic, extrinsic


def _intrinsic(path: Path, camera: str) -> tuple[Array | None, list[Fact]]:
    """K of the video's own picture. Not for fisheyes: their lens is no pinhole, and K alone would mislead."""
    if camera.endswith("_fisheye"):
        return None, []
    try:
        return read_K_cam(path), []
    except SourceError as error:
        return None, [_left_out(f"K_cam.{camera}", str(error))]


def _extrinsic(
    path: Path, camera: str, t_ns: npt.NDArray[np.int64]
) -> tuple[list[Stream], list[Fact]]:
    """T_base_cam on the rows' clock; wrong extrinsics do not spoil actions, so they only leave a fact."""
    name = f"T_base_cam.{camera}"
    try:
        T_base_cam = read_T_base_cam(path)
        if len(T_base_cam) != len(t_ns):
            return [], [_left_out(name, f"{len(T_base_cam)} extrinsics for {len(t_ns)} rows")]
        return [Stream(spec=pose_channel(name), t_ns=t_ns, values=T_base_cam)], []
    except SourceError as error:
        return [], [_left_out(name, str(error))]


def read_K_cam(path: Path) -> Array:
    """[3, 3] intrinsics in pixels; SourceError as `read_json`, or BAD_ANNOTATION."""
    try:
        return IntrinsicFile.model_validate(read_json(path)).intrinsic.K_cam
    except ValidationError as error:
        raise SourceError(Code.BAD_ANNOTATION, invalid(error), where=path.name) from error


def read_T_base_cam(path: Path) -> npt.NDArray[np.float64]:
    """[N, 4, 4] camera to base_link, OpenCV axes, metres, one per row of the episode.

    Verified on real files by projecting the end-effector into the picture (format notes §1); read the same way by
    `AgibotTech/EnerVerse-AC:lvdm/data`. SourceError as `read_json`, or BAD_ANNOTATION.
    """
    try:
        frames = _FRAMES.validate_python(read_json(path))
    except ValidationError as error:
        raise SourceError(Code.BAD_ANNOTATION, invalid(error), where=path.name) from error
    R = np.array([f.extrinsic.rotation_matrix for f in frames]).reshape(-1, 3, 3)
    return transform(R, np.array([f.extrinsic.translation_vector for f in frames]).reshape(-1, 3))
