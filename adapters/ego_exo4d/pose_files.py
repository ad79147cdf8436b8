"""The files of EgoPose for one take: 3D hand joints and camera poses of single frames, as arrays.

    annotations/ego_pose/{train,val,test}/hand/{automatic,annotation}/<take_uid>.json
        {frame: [{"annotation3D": {"<side>_wrist" | "<side>_<finger>_<1..4>": {x, y, z, num_views_for_3d}}, annotation2D, metadata}]}
    annotations/ego_pose/{train,val,test}/camera_pose/<take_uid>.json
        {frame: {"aria..": {camera_extrinsics [3, 4] world -> camera, camera_intrinsics}, "cam01": ..., metadata}}
Sources: `EGO4D/Ego-Exo4D-docs:docs/annotations/ego_pose.md` (documented), the loader of `EGO4D/ego-exo4d-egopose` (code: order of
joints, the first entry of a frame, world -> camera). Metres, in the world of the take's trajectory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from adapters.containers.json_rows import Broken, JsonRow, parse
from adapters.containers.json_stream import members
from schemas.episode import SIDES
from schemas.errors import Code, ConfigError, SourceError
from schemas.geometry import ROTATION_TOLERANCE, Array, rotation_error
from schemas.regular_file import file_stamp, is_there

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


class _Frame(JsonRow):
    joints: dict[str, _Joint | None] = Field(default_factory=dict, validation_alias="annotation3D")


class _Camera(JsonRow):
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
        if present := next((f for f in files if is_there(root / f)), None):
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
    entry = parse(_Frame, raw[0] if isinstance(raw, list) and raw else raw or {})
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
    camera = parse(_Camera, raw[names[0]]) if len(names) == 1 else Broken("not one Aria")
    if isinstance(camera, Broken) or [len(r) for r in camera.T_cam_world] != [4, 4, 4]:
        return None
    T = np.array([*camera.T_cam_world, [0, 0, 0, 1]], dtype=np.float64)
    return T if rotation_error(T[:3, :3]) <= ROTATION_TOLERANCE else None
