"""The tables of one full HOT3D sequence: hand poses, headset, cameras, masks. All times are TIME_CODE ns.

Source: `facebookresearch/hot3d:hot3d/data_loaders/*.py` (code) and two real sequences (verified). Hand "0" is the left one; a
missing key is a hand that is not there. World z is up.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field, TypeAdapter, ValidationError

from adapters.containers.array_files import FLOAT, INT, csv_columns
from adapters.containers.json_rows import Broken, JsonRow, parse
from adapters.containers.poses import FisheyeCamera, fisheye_camera, poses_of_rows, rigid
from adapters.containers.raw_file import raw_record
from adapters.containers.sidecar import json_object
from adapters.hot3d.hands import NOT_SEEN, HandRows, Observed
from schemas.document import DocumentError
from schemas.episode import RawFile
from schemas.errors import Code, SourceError
from schemas.geometry import Array
from schemas.invalid import reason
from schemas.json_text import parse_json
from schemas.regular_file import read_regular

UMETRACK, MANO = "umetrack_hand_pose_trajectory.jsonl", "mano_hand_pose_trajectory.jsonl"
PROFILE, HEADSET = "umetrack_hand_user_profile.json", "headset_trajectory.csv"
CAMERA_MODELS, METADATA, MASKS = "camera_models.json", "metadata.json", "masks"
Instants = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
SIDE_OF = {"0": "left", "1": "right"}
CAMERA_OF = {"214-1": "rgb", "1201-1": "slam_left", "1201-2": "slam_right"}
FISHEYE624 = "CameraModelType.FISHEYE624"
LIMIT_BYTES = 256 << 20  # a minute of hand poses is 5 MB
# Those that say whether a frame's hands or camera are to be used; the object masks are not about hands.
HAND_MASKS = (
    "hand_pose_available",
    "headset_pose_available",
    "hand_visible",
    "good_exposure",
    "qa_pass",
)
HEADSET_MASKS = ("headset_pose_available",)
SAME_FRAME_NS = 1_000_000  # exposures of one frame are 0.1 ms apart, frames 33 ms
NEAR_NS = 20_000_000  # a mask row counts for hand samples within this: the exposures of a frame are 0.1 ms apart


class _Xform(JsonRow):
    t_xyz: tuple[float, float, float]
    q_wxyz: tuple[float, float, float, float]


class _SequenceHand(JsonRow):
    wrist_xform: _Xform
    joint_angles: tuple[float, ...] | None = Field(default=None, max_length=64)
    mano_theta: tuple[float, ...] | None = Field(alias="pose", default=None, max_length=64)
    betas: tuple[float, ...] | None = Field(default=None, max_length=64)


class _SequenceFrame(JsonRow):
    timestamp_ns: int = Field(ge=0, le=2**62)
    hand_poses: dict[str, _SequenceHand]


class _CameraPose(JsonRow):
    quat_wxyz: tuple[float, ...] = Field(alias="quaternion_wxyz")
    translation_xyz: tuple[float, ...]


class _CameraModel(JsonRow):
    T_Device_Camera: _CameraPose
    image_width: int = Field(alias="imageWidth", gt=0, lt=20_000)
    image_height: int = Field(alias="imageHeight", gt=0, lt=20_000)
    label: str = Field(max_length=100)
    model: str = Field(alias="projectionModelType")
    params: tuple[float, ...] = Field(alias="projectionParams", max_length=32)
    stream_id: str = Field(max_length=20)


def read_text(path: Path, where: str) -> tuple[str, RawFile]:
    """A text of at most 256 MiB with its fingerprint. Raises SourceError."""
    data = read_regular(path, max_bytes=LIMIT_BYTES, where=where)
    try:
        return data.decode("utf-8"), raw_record(where, data)
    except UnicodeDecodeError as error:
        raise SourceError(Code.BAD_ANNOTATION, f"not UTF-8 text: {error}", where=where) from error


def _frames(text: str, where: str) -> Iterator[_SequenceFrame]:
    """Each line; a line that repeats the one before it, word for word, is passed over."""
    before = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and line != before:
            frame = parse(_SequenceFrame, json_object(line, f"{where}:{number}"))
            if isinstance(frame, Broken):
                raise SourceError(Code.BAD_ANNOTATION, frame.why, where=f"{where}:{number}")
            if wrong := sorted(frame.hand_poses.keys() - SIDE_OF.keys()):
                raise SourceError(Code.BAD_ANNOTATION, f"hand {wrong}", where=f"{where}:{number}")
            yield frame
        before = line


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HandTable:
    """`rows` of each side at `t_ns` [N]; `num_read` counts the second exposures that were left out too."""

    t_ns: Instants
    rows: dict[str, HandRows]
    betas: tuple[float, ...] | None
    num_read: int


def hand_rows(umetrack: tuple[str, str], mano: tuple[str, str]) -> HandTable:
    """Both pose tables as one, one row a frame, on UmeTrack's clock (else MANO's).

    Each file is (text, where), "" for none. MANO goes with the UmeTrack frame of the very same instant. The betas are the
    median over all rows: they are the person's (in the samples every row has the same).
    """
    poses = {f.timestamp_ns: f for f in _frames(*mano)}
    frames = list(_frames(*umetrack)) or [*poses.values()]
    keep = first_exposures(np.array([f.timestamp_ns for f in frames], dtype=np.int64))
    num_read, frames = len(frames), [f for f, kept in zip(frames, keep, strict=True) if kept]
    is_umetrack = bool(umetrack[0].strip())
    rows = {side: HandRows(side=side) for side in SIDE_OF.values()}
    for frame in frames:
        other = poses.get(frame.timestamp_ns)
        for key, side in SIDE_OF.items():
            hand = frame.hand_poses.get(key) if is_umetrack else None
            fitted = other.hand_poses.get(key) if other else None
            rows[side].rows.append(_observed(hand, fitted))
    betas = [h.betas for f in poses.values() for h in f.hand_poses.values() if h.betas is not None]
    if len({len(b) for b in betas}) > 1:
        raise SourceError(Code.SHAPE_MISMATCH, "betas have different lengths", where=mano[1])
    median = tuple(np.median(np.array(betas), axis=0).tolist()) if betas else None
    t_ns = np.array([f.timestamp_ns for f in frames], dtype=np.int64)
    return HandTable(t_ns=t_ns, rows=rows, betas=median, num_read=num_read)


def _observed(hand: _SequenceHand | None, fitted: _SequenceHand | None) -> Observed:
    if hand is None and fitted is None:
        return NOT_SEEN
    return Observed(
        wrist=(*hand.wrist_xform.t_xyz, *hand.wrist_xform.q_wxyz) if hand else None,
        angles_rad=hand.joint_angles if hand else None,
        mano_theta=fitted.mano_theta if fitted else None,
        mano_wxyz=fitted.wrist_xform.q_wxyz if fitted else None,
        mano_trans_m=fitted.wrist_xform.t_xyz if fitted else None,
    )


def first_exposures(t_ns: Instants) -> Flags:
    """[N] False for a row less than 1 ms after the last one kept: the second exposure of one frame.

    An instant that comes again, or goes back, is kept, so that it is found out.
    """
    keep = np.ones(len(t_ns), dtype=bool)
    last = None
    for k, t in enumerate(t_ns.tolist()):
        keep[k] = last is None or not 0 < t - last < SAME_FRAME_NS
        last = t if keep[k] else last
    return keep


def headset(path: Path, where: str) -> tuple[Instants, Array, RawFile]:
    """Instants [N] and T_world_device [N, 4, 4] of `headset_trajectory.csv`, one row a frame."""
    poses = [f"t_wo_{a}[m]" for a in "xyz"] + [f"q_wo_{a}" for a in "wxyz"]
    columns = {"timestamp[ns]": INT} | dict.fromkeys(poses, FLOAT)
    table, raw = csv_columns(path, where, columns)
    keep = first_exposures(table["timestamp[ns]"])
    rows = np.stack([table[name] for name in poses], axis=1)[keep]
    return table["timestamp[ns]"][keep], poses_of_rows(rows, "quat_wxyz", where), raw


def camera_models(text: str, where: str) -> dict[str, FisheyeCamera]:
    """Stream id -> camera of the Quest 3's `camera_models.json`; other lenses are refused."""
    try:
        raw = parse_json(text, allow_nan=True)
        stated = TypeAdapter(tuple[_CameraModel, ...]).validate_python(raw)
    except (DocumentError, ValidationError) as error:
        problem = f"not a list of camera models: {reason(error)}"
        raise SourceError(Code.BAD_ANNOTATION, problem, where=where) from error
    if wrong := [c.model for c in stated if c.model != FISHEYE624]:
        raise SourceError(Code.UNKNOWN_LAYOUT, f"unknown camera model {wrong[0]!r}", where=where)
    return {
        c.stream_id: fisheye_camera(
            c.label,
            c.params,
            rigid(c.T_Device_Camera.quat_wxyz, c.T_Device_Camera.translation_xyz, where),
            (c.image_width, c.image_height),
        )
        for c in stated
    }


class Masks:
    """The mask files: per stream the instants of its frames, and which masks say that a frame is not good."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self.names = tuple(sorted(texts))
        self._bad: dict[str, dict[int, set[str]]] = {}
        for name, text in texts.items():
            for t_ns, stream, is_good in _mask_rows(text, name):
                bad = self._bad.setdefault(stream, {}).setdefault(t_ns, set())
                bad |= set() if is_good else {name}

    @property
    def streams(self) -> tuple[str, ...]:
        return tuple(sorted(self._bad))

    def times_ns(self, stream: str) -> Instants:
        """[N] instants of the stream's frames: every frame has a row (inferred: the counts fit in both samples)."""
        return np.array(sorted(self._bad.get(stream, {})), dtype=np.int64)

    def usable(self, stream: str, t_ns: Instants, names: Sequence[str] = HAND_MASKS) -> Flags:
        """[N] no mask of `names` speaks against the nearest frame of the stream; True where it has no frame near."""
        frames = self.times_ns(stream)
        if len(frames) == 0:
            return np.ones(len(t_ns), dtype=bool)
        good = np.array([not self._bad[stream][int(t)] & set(names) for t in frames])
        after = np.minimum(np.searchsorted(frames, t_ns), len(frames) - 1)
        before = np.maximum(after - 1, 0)
        nearest = np.where(
            np.abs(t_ns - frames[before]) <= np.abs(frames[after] - t_ns), before, after
        )
        is_near = np.abs(frames[nearest] - t_ns) <= NEAR_NS
        return np.asarray(good[nearest] | ~is_near)


def _mask_rows(text: str, where: str) -> Iterator[tuple[int, str, bool]]:
    rows: Any = csv.DictReader(text.splitlines(), strict=True)
    try:
        for row in rows:
            value = {"True": True, "False": False}[row["mask"]]
            t_ns = int(row["timestamp[ns]"])
            if abs(t_ns) >= 1 << 63:
                raise ValueError(f"{t_ns} fits no 64 bits")
            yield t_ns, row["stream_id"], value
    except (csv.Error, KeyError, TypeError, ValueError) as error:
        problem = f"not a row of timestamp[ns], stream_id, mask: {error!r}"
        raise SourceError(Code.BAD_ANNOTATION, problem, where=where) from error
