"""The annotation of one VITRA episode: a pickled dict in a .npy file, every array checked.

    video_name, video_decode_frame [T]    which frames of which video
    extrinsics [T, 4, 4] world -> cam, intrinsics [3, 3] for the picture at full size
    left, right    {beta [10], global_orient_worldspace [T, 3, 3], hand_pose [T, 15, 3, 3] absolute, transl_worldspace [T, 3] the
                   wrist, kept_frames [T] 0 or 1, joints_worldspace [T, 21, 3]}; an absent hand is zeros or NaN, never kept
    text, text_rephrase    texts.py
Sources: `microsoft/VITRA:data/data.md` (documented) and its example episode (verified); metres. What is in the camera's frame, and
what data.md calls deprecated, is not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from adapters.containers.pose_matrices import rigid_matrices
from adapters.containers.restricted_pickle import load_npy_object
from schemas.episode import SIDES
from schemas.errors import Code, SourceError
from schemas.geometry import Array

MAX_FRAMES = 1_000_000  # 9 h at 30 Hz, for an episode of seconds
MAX_BYTES = 256 << 20  # the example has 4.4 kB a frame


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HandRecord:
    """One hand over T frames; where `kept` is False the numbers mean nothing."""

    kept: npt.NDArray[np.bool_]
    joints_m: Array
    global_orient: Array
    hand_rotmat: Array
    wrist_m: Array
    betas: Array


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VitraAnnotation:
    """What is read of one file; `frames` [T] are indices into the whole original video."""

    video_name: str
    frames: npt.NDArray[np.int64]
    T_cam_world: Array
    K_cam: Array
    hands: Mapping[str, HandRecord]
    text: Any
    text_rephrase: Any


def read_annotation(path: Path, where: str) -> VitraAnnotation:
    """The annotation in a file.

    Raises:
        SourceError: as `load_npy_object`; UNKNOWN_LAYOUT (no dict), MISSING_CHANNEL, SHAPE_MISMATCH, CORRUPT_RECORD,
            CLOCK_NOT_INCREASING (frames), EMPTY_EPISODE, NOT_A_ROTATION, NOT_FINITE.
    """
    value = load_npy_object(path, max_bytes=MAX_BYTES)
    fields = _Fields(value, where)
    frames = fields.frames("video_decode_frame")
    T = len(frames)
    name = fields.get("video_name")
    if not isinstance(name, str):
        problem = f"video_name is a {type(name).__name__}; expected text"
        raise SourceError(Code.CORRUPT_RECORD, problem, where=where)
    return VitraAnnotation(
        video_name=name,
        frames=frames,
        T_cam_world=rigid_matrices(fields.numbers("extrinsics", T, 4, 4), f"{where}:extrinsics"),
        K_cam=_intrinsics(fields),
        hands={side: _hand(_Fields(fields.get(side), f"{where}:{side}"), T) for side in SIDES},
        text=fields.values.get("text"),
        text_rephrase=fields.values.get("text_rephrase"),
    )


class _Fields:
    """Members of a dict from outside, by name, shape and kind."""

    def __init__(self, values: Any, where: str) -> None:
        if not isinstance(values, dict):
            problem = (
                f"not a VITRA episode: the file contains a {type(values).__name__}; expected a dict"
            )
            raise SourceError(Code.UNKNOWN_LAYOUT, problem, where=where)
        self.values, self.where = values, where

    def get(self, key: str) -> Any:
        if key not in self.values:
            problem = f"key {key} is missing; the file has {sorted(map(str, self.values))[:20]}"
            raise SourceError(Code.MISSING_CHANNEL, problem, where=self.where)
        return self.values[key]

    def numbers(self, key: str, *shape: int) -> Array:
        """float64 of that shape; NaN is let through."""
        values = self._array(key)
        if values.shape != shape:
            problem = f"{list(values.shape)}; expected {list(shape)}"
            raise SourceError(Code.SHAPE_MISMATCH, problem, where=f"{self.where}:{key}")
        return values.astype(np.float64)

    def frames(self, key: str) -> npt.NDArray[np.int64]:
        """[T] frame numbers, increasing."""
        where, values = f"{self.where}:{key}", self._array(key)
        if values.size == 0:
            raise SourceError(Code.EMPTY_EPISODE, "no frames", where=where)
        if values.ndim != 1 or values.size > MAX_FRAMES or values.dtype.kind not in "iu":
            problem = f"{values.dtype} {list(values.shape)}; expected whole numbers [T]"
            raise SourceError(Code.SHAPE_MISMATCH, problem, where=where)
        frames = values.astype(np.int64)
        if frames[0] < 0 or np.any(np.diff(frames) <= 0):
            problem = f"frame numbers, from {frames[0]} on, do not increase"
            raise SourceError(Code.CLOCK_NOT_INCREASING, problem, where=where)
        return frames

    def _array(self, key: str) -> npt.NDArray[Any]:
        where = f"{self.where}:{key}"
        try:
            values = np.asarray(self.get(key))
        except ValueError as error:
            raise SourceError(Code.SHAPE_MISMATCH, f"ragged: {error}", where=where) from error
        if values.dtype.kind not in "biuf":
            raise SourceError(Code.CORRUPT_RECORD, f"{values.dtype}; expected numbers", where=where)
        return values


def _intrinsics(fields: _Fields) -> Array:
    K = fields.numbers("intrinsics", 3, 3)
    is_pinhole = K[0, 0] > 0 and K[1, 1] > 0 and np.array_equal(K[2], [0, 0, 1])
    if not (np.isfinite(K).all() and is_pinhole and K[0, 2] > 0 and K[1, 2] > 0):
        problem = f"{K.tolist()}: not a camera matrix"
        raise SourceError(Code.CORRUPT_RECORD, problem, where=f"{fields.where}:intrinsics")
    return K


def _hand(fields: _Fields, T: int) -> HandRecord:
    return HandRecord(
        kept=fields.numbers("kept_frames", T) == 1,
        joints_m=fields.numbers("joints_worldspace", T, 21, 3),
        global_orient=fields.numbers("global_orient_worldspace", T, 3, 3),
        hand_rotmat=fields.numbers("hand_pose", T, 15, 3, 3),
        wrist_m=fields.numbers("transl_worldspace", T, 3),
        betas=fields.numbers("beta", 10),
    )
