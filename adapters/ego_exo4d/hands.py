"""The files of EgoPose for one take, and the wearer's hands in one segment of it.

The files of EgoPose for one take: 3D hand joints and camera poses of single frames, as arrays.

    annotations/ego_pose/{train,val,test}/hand/{automatic,annotation}/<take_uid>.json
        {frame: [{"annotation3D": {"<side>_wrist" | "<side>_<finger>_<1..4>": {x, y, z, num_views_for_3d}}, annotation2D, metadata}]}
    annotations/ego_pose/{train,val,test}/camera_pose/<take_uid>.json
        {frame: {"aria..": {camera_extrinsics [3, 4] world -> camera, camera_intrinsics}, "cam01": ..., metadata}}
Sources: `EGO4D/Ego-Exo4D-docs:docs/annotations/ego_pose.md` (documented), the loader of `EGO4D/ego-exo4d-egopose` (code: order of
joints, the first entry of a frame, world -> camera). Metres, in the world of the take's trajectory.

The wearer's hands in one segment, on the clock of the frame-aligned videos: frame n is second n / 30 of the take.

Annotated frames further apart than 100 ms are not joined: a sample that is not present stands between them. The joints are in the
world of the take (Aria's MPS: metres, gravity along -z). K is left out: camera_pose has it for an undistorted 512 x 512 landscape
picture, and the mp4 is the fisheye picture turned upright, so no test checks whether a joint is in view. camera_pose is the pose of the
landscape camera; a quarter turn about the optical axis makes it that of the upright picture (u', v' = H - 1 - v, u).
Sources: `EGO4D/Ego-Exo4D-docs:docs/annotations/ego_pose.md`, `EGO4D/ego-exo4d-egopose:handpose/data_preparation/utils/utils.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from math import ceil
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from adapters.containers.json_rows import Broken, JsonRow, members, parse
from adapters.containers.raw_file import raw_file_of
from adapters.containers.safe_path import inside
from schemas.episode import SIDES, Episode, Stream, VideoWindow, pose_channel
from schemas.errors import Code, ConfigError, SourceError
from schemas.fact import Certainty, Fact, fact
from schemas.geometry import ROTATION_TOLERANCE, Array, inverse, rotation_error, transform
from schemas.hand_track import HandTrack
from schemas.rate import NS_PER_S
from schemas.regular_file import file_stamp, path_exists

# -- pose files ----------------------------------------------------------------------------------------------------

SPLITS = ("train", "val", "test")
KINDS = ("automatic", "annotation")  # by machine, on most frames; by people, on few
FOLDER = "annotations/ego_pose"
JOINTS = (
    "wrist",
    *(f"{f}_{k}" for f in ("thumb", "index", "middle", "ring", "pinky") for k in range(1, 5)),
)
MAX_FRAMES = 2_000_000  # 18 h at 30 Hz

Finite = Annotated[float, Field(allow_inf_nan=False)]
Frames = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Posed:
    """`frames` [N] increasing; `values` [N, ...]; NaN where a frame lacks a hand. `num_broken` frames could not be read."""

    frames: Frames
    values: Array
    num_broken: int


class _Joint(JsonRow):
    x: Finite | None = None
    y: Finite | None = None
    z: Finite | None = None

    @property
    def place(self) -> tuple[float, float, float] | None:
        if self.x is None or self.y is None or self.z is None:
            return None
        return self.x, self.y, self.z


class _PoseFrame(JsonRow):
    joints: dict[str, _Joint | None] = Field(default_factory=dict, validation_alias="annotation3D")


class _PoseCamera(JsonRow):
    T_cam_world: list[list[Finite]] = Field(validation_alias="camera_extrinsics")


def pose_files(root: Path, take_uid: str, kinds: tuple[str, ...]) -> dict[str, str]:
    """`hands` and `camera_pose` -> file of the take below `root`; the first of `kinds` that is there."""
    if "/" in take_uid:  # a uid is one word; a path leads nowhere
        return {}
    names = {
        "hands": [f"{s}/hand/{kind}" for kind in kinds for s in SPLITS],
        "camera_pose": [f"{s}/camera_pose" for s in SPLITS],
    }
    by_kind = {}
    for what, folders in names.items():
        files = [f"{FOLDER}/{folder}/{take_uid}.json" for folder in folders]
        if present := next((f for f in files if path_exists(root / f)), None):
            by_kind[what] = present
    return by_kind if "hands" in by_kind else {}


def hand_joints(path: Path) -> Posed:
    """`values` [N, 2, 21, 3]: left, right, in the canonical order; NaN for a hand that lacks a joint.

    Raises:
        SourceError: CORRUPT_RECORD, TOO_LARGE, EMPTY_EPISODE (a file without frames), UNREADABLE.
    """
    return _read(path, _hands)


def camera_poses(path: Path) -> Posed:
    """`values` [N, 4, 4] T_cam_world of the wearer's camera. Raises as `hand_joints`."""
    return _read(path, _aria)


def _read(path: Path, of_frame: Callable[[Any], Array | None]) -> Posed:
    return _whole(path, of_frame, file_stamp(path))


@lru_cache(maxsize=4)  # dozens of segments are cut from one take
def _whole(path: Path, of_frame: Callable[[Any], Array | None], _stamp: tuple[int, ...]) -> Posed:
    rows: dict[int, Array] = {}
    num_broken = 0
    try:
        for (number, *_), raw in members(path, inside=()):
            value = of_frame(raw) if number.isascii() and number.isdigit() else None
            if value is None or len(number) > 9:
                num_broken += 1
            else:
                rows[int(number)] = value
            if len(rows) > MAX_FRAMES:
                raise SourceError(Code.TOO_LARGE, f"more than {MAX_FRAMES} frames", where=path.name)
    except ConfigError as error:
        raise SourceError(Code.CORRUPT_RECORD, error.message, where=path.name) from error
    if not rows:
        raise SourceError(Code.EMPTY_EPISODE, "no frame could be read", where=path.name)
    frames = np.array(sorted(rows), dtype=np.int64)
    values = np.stack([rows[int(frame)] for frame in frames])
    return Posed(frames=frames, values=values, num_broken=num_broken)


def _hands(raw: Any) -> Array | None:
    """[2, 21, 3] of one frame; the first entry counts, an empty list is no hand."""
    entry = parse(_PoseFrame, raw[0] if isinstance(raw, list) and raw else raw or {})
    if isinstance(entry, Broken):
        return None
    out = np.full((len(SIDES), len(JOINTS), 3), np.nan)
    for s, side in enumerate(SIDES):
        joints = [entry.joints.get(f"{side}_{name}") for name in JOINTS]
        places = [joint.place for joint in joints if joint is not None]
        if len(places) == len(JOINTS) and None not in places:
            out[s] = places
    return out


def _aria(raw: Any) -> Array | None:
    """[4, 4] of the one camera that is an Aria: it is called aria, or aria01 and on."""
    names = [k for k in raw if k.startswith("aria")] if isinstance(raw, dict) else []
    camera = parse(_PoseCamera, raw[names[0]]) if len(names) == 1 else Broken("not one Aria")
    if isinstance(camera, Broken) or [len(r) for r in camera.T_cam_world] != [4, 4, 4]:
        return None
    T = np.array([*camera.T_cam_world, [0, 0, 0, 1]], dtype=np.float64)
    return T if rotation_error(T[:3, :3]) <= ROTATION_TOLERANCE else None


# -- hands ---------------------------------------------------------------------------------------------------------

RATE_HZ = 30
LONGEST_STEP = 3  # frames, 100 ms
CAMERA = "ego"
DOCS = "EGO4D/Ego-Exo4D-docs:docs/annotations/ego_pose.md"
CODE = "EGO4D/ego-exo4d-egopose:handpose/data_preparation"
# p_upright = (-y, x, z) of p_landscape.
T_LANDSCAPE_UPRIGHT = transform(np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1.0]]), np.zeros(3))
FACTS = (
    fact("hand_frame", "joints in the world of the take, metres", Certainty.DOCUMENTED, DOCS, for_actions=True),
    fact("hand_layout", "canonical21 by name", Certainty.CODE, CODE, for_actions=True),
    fact("hand_clock", "frame n at n / 30 s of the videos", Certainty.DOCUMENTED, DOCS, for_actions=True),
    fact("hand_confidence", "unknown: placement manual or auto is none", Certainty.DOCUMENTED, DOCS),
    fact("camera_pose", "world to camera, landscape: inverted, turned upright", Certainty.CODE, CODE),
    fact("camera_intrinsics", "left out: K is not for this fisheye picture", Certainty.CODE, CODE),
    fact("world_up", "+z", Certainty.INFERRED, "the world is MPS's, whose gravity is along -z"),
)  # fmt: skip


def with_hands(episode: Episode, root: Path, at: Mapping[str, Any]) -> Episode:
    """The segment with its hands and camera poses; as it was when no hand is annotated in it.

    Args:
        episode: the segment as a video.
        root: of the download.
        at: the locator of its ref, in which `hands` and `camera_pose` name the files.

    Raises:
        SourceError: as `hand_joints`; UNSAFE_PATH.
    """
    files = {what: str(at[what]) for what in ("hands", "camera_pose") if what in at}
    window = episode.cameras[0].frames
    if "hands" not in files or not isinstance(window, VideoWindow):
        return episode
    posed = hand_joints(inside(root, files["hands"]))
    hands = tuple(
        track for s, side in enumerate(SIDES) if (track := _track(side, posed, s, window))
    )
    if not hands:
        return episode
    return replace(
        episode,
        embodiment="human_hands",
        streams=_camera_stream(root, files, window),
        hands=hands,
        world_up="+z",
        facts=(
            *(f for f in episode.facts if f.name != "camera_motion_removed"),
            *FACTS,
            *_facts(files["hands"], posed),
        ),
        raw_files=(
            *episode.raw_files,
            *(raw_file_of(inside(root, name), root) for name in files.values()),
        ),
    )


def _track(side: str, posed: Posed, s: int, window: VideoWindow) -> HandTrack | None:
    """One hand where all its 21 joints are annotated; None: nowhere in the window."""
    has = np.isfinite(posed.values[:, s]).all(axis=(1, 2))
    frames, at = _clock(posed.frames[has], window)
    if (at < 0).all():
        return None
    return HandTrack(
        side=side,
        t_ns=_t_ns(frames, window),
        present=at >= 0,
        joints_m=posed.values[has, s][at],
        layout="canonical21",
        view=CAMERA,
    )


def _camera_stream(root: Path, files: Mapping[str, str], window: VideoWindow) -> tuple[Stream, ...]:
    if "camera_pose" not in files:
        return ()
    posed = camera_poses(inside(root, files["camera_pose"]))
    frames, at = _clock(posed.frames, window)
    if (at < 0).all():
        return ()
    T_world_cam: Array = inverse(posed.values[at]) @ T_LANDSCAPE_UPRIGHT
    spec = pose_channel(f"T_world_cam.{CAMERA}")
    return (Stream(spec=spec, t_ns=_t_ns(frames, window), values=T_world_cam, valid=at >= 0),)


def _clock(known: Frames, window: VideoWindow) -> tuple[Frames, Frames]:
    """Frames of the window's samples [M], and of each its row in `known` [N], or -1.

    Beside the known frames: the first and the last of the window, and one after each that the next is too far from.
    """
    first = ceil(Fraction(window.start_s) * RATE_HZ)
    last = max(ceil(Fraction(window.end_s) * RATE_HZ) - 1, first)
    inner = known[(known >= first) & (known <= last)]
    breaks = inner[:-1][np.diff(inner) > LONGEST_STEP] + 1
    after = inner[-1:][inner[-1:] < last] + 1
    frames = np.unique(np.concatenate([inner, breaks, after, [first, last]]))
    row = np.searchsorted(known, frames)
    is_known = np.isin(frames, inner)
    return frames, np.where(is_known, row, -1)


def _t_ns(frames: Frames, window: VideoWindow) -> Frames:
    """Rounded to the nearest nanosecond, from the window's start."""
    start_ns = round(Fraction(window.start_s) * NS_PER_S)
    return (2 * frames * NS_PER_S + RATE_HZ) // (2 * RATE_HZ) - start_ns


def _facts(name: str, posed: Posed) -> tuple[Fact, ...]:
    kind = name.split("/")[-2]
    out = [fact("hand_labels", kind, Certainty.DOCUMENTED, DOCS)]
    if posed.num_broken:
        value = f"{posed.num_broken} frames of the take could not be read and are left out"
        out.append(fact("hand_frames_broken", value, Certainty.VERIFIED, "the file"))
    return tuple(out)
