"""The frames of one HOT3D clip: cameras, hands and where each picture lies in the tar.

Source: `facebookresearch/hand_tracking_toolkit:hand_tracking_toolkit/{dataset,camera}.py` (code). `T_world_from_camera` is camera
to world, quaternions scalar first, metres. UmeTrack's wrist is `T_world_from_wrist` in the code and `wrist_xform` (a 4 x 4
matrix) in the README: both are read. MANO's `wrist_xform` is axis-angle and smplx's translation. `info.json` has
`image_timestamps_ns` of each stream (`hot3d:hot3d/clips/bop_format_converters/hot3d_clips_to_bop_scenewise.py`, code).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import Field

from adapters.containers.images import LIMIT_BYTES, LazyImages
from adapters.containers.json_rows import Broken, JsonRow, parse
from adapters.containers.poses import FisheyeCamera, fisheye_camera, rigid
from adapters.containers.raw_file import raw_file_of, read_range
from adapters.containers.sidecar import json_object
from adapters.containers.tar_shard import TarMember, tar_members
from adapters.hot3d.hands import NOT_SEEN, HandRows, Observed, hand_profile
from adapters.hot3d.sequence import CAMERA_OF, FISHEYE624, Instants
from schemas.episode import SIDES, Camera, EncodedImages, RawFile, Stream, pose_channel
from schemas.errors import Code, SourceError
from schemas.fact import Certainty, Fact, fact
from schemas.geometry import ROTATION_TOLERANCE, quat_xyzw_from_rotmat, rotation_error
from schemas.hand_track import HandTrack

HAND_SHAPES = "__hand_shapes.json__"
JSON_LIMIT_BYTES = 8 << 20
MAX_FRAMES = 100_000
VIEWS = ("rgb", "slam_left", "slam_right")
_Model = TypeVar("_Model", bound=JsonRow)


class _ClipPose(JsonRow):
    quat_wxyz: tuple[float, ...] = Field(alias="quaternion_wxyz", max_length=4)
    translation_xyz: tuple[float, ...] = Field(max_length=3)


class _Calibration(JsonRow):
    label: str = Field(max_length=100)
    image_width: int = Field(gt=0, lt=20_000)
    image_height: int = Field(gt=0, lt=20_000)
    model: str = Field(alias="projection_model_type", max_length=100)
    params: tuple[float, ...] = Field(alias="projection_params", max_length=32)
    T_device_from_camera: _ClipPose


class _ClipCamera(JsonRow):
    calibration: _Calibration
    T_world_from_camera: _ClipPose


class _Mano(JsonRow):
    thetas: tuple[float, ...] = Field(max_length=64)
    wrist_xform: tuple[float, float, float, float, float, float]


class _UmeTrack(JsonRow):
    joint_angles: tuple[float, ...] = Field(max_length=64)
    T_world_from_wrist: _ClipPose | None = None
    wrist_xform: Any = None


class _ClipHand(JsonRow):
    umetrack_pose: _UmeTrack | None = None
    mano_pose: _Mano | None = None


class _Info(JsonRow):
    image_timestamps_ns: dict[str, int]
    device: str = Field(default="", max_length=100)
    participant_id: str | None = Field(default=None, max_length=100)
    sequence_id: str | None = Field(default=None, max_length=200)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hot3DClip:
    device: str
    participant_id: str | None
    sequence_id: str | None
    cameras: tuple[Camera, ...]
    streams: tuple[Stream, ...]
    hands: tuple[HandTrack, ...]
    facts: tuple[Fact, ...]
    raw_file: RawFile


@dataclass(frozen=True, slots=True)
class _TarImage:
    """Reads the bytes `start-end` of a tar."""

    path: str

    def __call__(self, name: str) -> bytes:
        start, end = (int(part) for part in name.split("-"))
        return read_range(Path(self.path), start, end, limit=LIMIT_BYTES)


class _Tar:
    """The members of one clip, by name."""

    def __init__(self, path: Path) -> None:
        self.path, self.members = path, dict[str, TarMember]()
        for member in tar_members(path):
            if member.problem:
                code, message = member.problem
                raise SourceError(Code(code), message, where=path.name)
            self.members[member.name] = member

    def frames(self) -> list[str]:
        """Keys of the frames, by number; `info.json` is what every frame has.

        Raises:
            SourceError: EMPTY_EPISODE, TOO_LONG, FRAME_COUNT (a frame lacks its cameras).
        """
        keys = [n.removesuffix(".info.json") for n in self.members if n.endswith(".info.json")]
        keys = sorted((key for key in keys if key.isascii() and key.isdigit()), key=int)
        if not keys or len(keys) > MAX_FRAMES:
            code = Code.TOO_LONG if keys else Code.EMPTY_EPISODE
            raise SourceError(
                code,
                f"{len(keys)} frames have an info.json; expected at least one",
                where=self.path.name,
            )
        if missing := [key for key in keys if f"{key}.cameras.json" not in self.members]:
            problem = f"{len(missing)} frames have no cameras.json; the first is {missing[0]}"
            raise SourceError(Code.FRAME_COUNT, problem, where=self.path.name)
        return keys

    def json(self, name: str) -> dict[str, Any]:
        start, end = self.members[name].byte_range
        data = read_range(self.path, start, end, limit=JSON_LIMIT_BYTES)
        try:
            return json_object(data.decode("utf-8"), f"{self.path.name}:{name}")
        except UnicodeDecodeError as error:
            problem = f"not UTF-8 text: {error}"
            raise SourceError(
                Code.BAD_ANNOTATION, problem, where=f"{self.path.name}:{name}"
            ) from error

    def row(self, model: type[_Model], name: str, raw: Any = None) -> _Model:
        """A member, or a part of one, as `model`."""
        parsed = parse(model, self.json(name) if raw is None else raw)
        if isinstance(parsed, Broken):
            raise SourceError(Code.BAD_ANNOTATION, parsed.why, where=f"{self.path.name}:{name}")
        return parsed


def read_clip(path: Path, root: Path) -> Hot3DClip:
    """Every stream of a clip, and the hands.

    Raises:
        SourceError: as `tar_members`; FRAME_COUNT (a stream lacks a picture, a camera or an instant of a frame),
            BAD_ANNOTATION, UNKNOWN_LAYOUT (another lens), CLOCK_NOT_INCREASING.
    """
    tar = _Tar(path)
    keys = tar.frames()
    infos = [tar.row(_Info, f"{key}.info.json") for key in keys]
    streams = [s for s in CAMERA_OF if s in infos[0].image_timestamps_ns]
    if not streams:
        problem = (
            f"streams {sorted(infos[0].image_timestamps_ns)}; expected some of {list(CAMERA_OF)}"
        )
        raise SourceError(Code.UNKNOWN_LAYOUT, problem, where=path.name)
    times = {s: _times(infos, s, path.name) for s in streams}
    zero_ns = min(int(t[0]) for t in times.values())
    views = [_view(tar, keys, s, times[s] - zero_ns) for s in streams]
    view = min((camera.name for camera, _ in views), key=VIEWS.index)
    stream = next(s for s in streams if CAMERA_OF[s] == view)
    hands, facts = _hands(tar, keys, times[stream] - zero_ns, view)
    return Hot3DClip(
        device=infos[0].device,
        participant_id=infos[0].participant_id,
        sequence_id=infos[0].sequence_id,
        cameras=tuple(camera for camera, _ in views),
        streams=tuple(pose for _, pose in views),
        hands=hands,
        facts=facts,
        raw_file=raw_file_of(path, root, in_parts=True),
    )


def _times(infos: Sequence[_Info], stream: str, where: str) -> Instants:
    missing = [k for k, info in enumerate(infos) if stream not in info.image_timestamps_ns]
    if missing:
        problem = f"frame {missing[0]} has no timestamp of {stream}"
        raise SourceError(Code.FRAME_COUNT, problem, where=where)
    return np.array([info.image_timestamps_ns[stream] for info in infos], dtype=np.int64)


def _view(tar: _Tar, keys: Sequence[str], stream: str, t_ns: Instants) -> tuple[Camera, Stream]:
    """Pictures and pose of one stream; its lens is that of the first frame, the calibration is the clip's."""
    names = [f"{key}.image_{stream}.jpg" for key in keys]
    if missing := [name for name in names if name not in tar.members]:
        problem = f"{len(missing)} images are missing; the first is {missing[0]}"
        raise SourceError(Code.FRAME_COUNT, problem, where=tar.path.name)
    poses, where = [], f"{tar.path.name}:{stream}"
    stated = [
        tar.row(_ClipCamera, name, tar.json(name).get(stream) or {})
        for name in (f"{key}.cameras.json" for key in keys)
    ]
    model = _model(stated[0].calibration, where)
    for one in stated:
        pose = one.T_world_from_camera
        poses.append(rigid(pose.quat_wxyz, pose.translation_xyz, where))
    places = ["{}-{}".format(*tar.members[name].byte_range) for name in names]
    camera = Camera(
        name=CAMERA_OF[stream],
        frames=EncodedImages(images=LazyImages(places, _TarImage(str(tar.path)))),
        t_ns=t_ns,
        K_cam=model.K_cam,
        K_size=model.size,
        lens=model.lens,
    )
    spec = pose_channel(f"T_world_cam.{camera.name}")
    return camera, Stream(spec=spec, t_ns=t_ns, values=np.array(poses))


def _model(stated: _Calibration, where: str) -> FisheyeCamera:
    if stated.model != FISHEYE624:
        raise SourceError(
            Code.UNKNOWN_LAYOUT, f"unknown camera model {stated.model!r}", where=where
        )
    device = stated.T_device_from_camera
    return fisheye_camera(
        stated.label,
        stated.params,
        rigid(device.quat_wxyz, device.translation_xyz, where),
        (stated.image_width, stated.image_height),
    )


def _hands(
    tar: _Tar, keys: Sequence[str], t_ns: Instants, view: str
) -> tuple[tuple[HandTrack, ...], tuple[Fact, ...]]:
    """Both hands at the instants of the viewing camera; none in a test clip."""
    if not any(f"{key}.hands.json" in tar.members for key in keys):
        value = "none published: a test clip"
        return (), (fact("hands", value, Certainty.VERIFIED, "no hands.json in this clip"),)
    rows = {side: HandRows(side=side) for side in SIDES}
    for key in keys:
        name = f"{key}.hands.json"
        stated = tar.json(name) if name in tar.members else {}
        for side in SIDES:
            hand = tar.row(_ClipHand, name, stated[side]) if stated.get(side) else None
            rows[side].rows.append(_observed(hand, f"{tar.path.name}:{name}"))
    shapes = tar.json(HAND_SHAPES) if HAND_SHAPES in tar.members else {}
    profile = hand_profile(shapes["umetrack"], HAND_SHAPES) if "umetrack" in shapes else None
    usable = np.ones(len(keys), dtype=bool)
    tracks, facts = [], []
    for side in SIDES:
        track, track_facts = rows[side].track(t_ns, usable, profile, shapes.get("mano"), view)
        tracks += [track] if track else []
        facts += track_facts
    return tuple(tracks), tuple(facts)


def _observed(hand: _ClipHand | None, where: str) -> Observed:
    """The authors' reader believes MANO only beside UmeTrack; so does this."""
    if hand is None or hand.umetrack_pose is None:
        return NOT_SEEN
    mano = hand.mano_pose
    return Observed(
        wrist=_wrist(hand.umetrack_pose, where),
        angles_rad=hand.umetrack_pose.joint_angles,
        mano_theta=mano.thetas if mano else None,
        mano_rotvec_rad=mano.wrist_xform[:3] if mano else None,
        mano_trans_m=mano.wrist_xform[3:] if mano else None,
    )


def _wrist(stated: _UmeTrack, where: str) -> tuple[float, ...]:
    """t x y z, q w x y z, from either spelling."""
    if (pose := stated.T_world_from_wrist) is not None:
        if (len(pose.translation_xyz), len(pose.quat_wxyz)) != (3, 4):
            raise SourceError(Code.SHAPE_MISMATCH, "a wrist pose needs 3 + 4 numbers", where=where)
        return (*pose.translation_xyz, *pose.quat_wxyz)
    try:
        T = np.array(stated.wrist_xform, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise SourceError(Code.BAD_ANNOTATION, f"wrist_xform: {error}", where=where) from error
    if T.shape != (4, 4) or not np.isfinite(T).all():
        problem = "neither T_world_from_wrist nor a 4 x 4 wrist_xform"
        raise SourceError(Code.BAD_ANNOTATION, problem, where=where)
    if float(rotation_error(T[:3, :3])) > ROTATION_TOLERANCE:
        raise SourceError(Code.NOT_A_ROTATION, "wrist_xform is not a rotation", where=where)
    x, y, z, w = quat_xyzw_from_rotmat(T[:3, :3])
    return tuple(map(float, (*T[:3, 3], w, x, y, z)))
