"""The annotation of one VITRA episode: checked arrays, and the texts of its hands.

The annotation of one VITRA episode: a pickled dict in a .npy file, every array checked.

    video_name, video_decode_frame [T]    which frames of which video
    extrinsics [T, 4, 4] world -> cam, intrinsics [3, 3] for the picture at full size
    left, right    {beta [10], global_orient_worldspace [T, 3, 3], hand_pose [T, 15, 3, 3] absolute, transl_worldspace [T, 3] the
                   wrist, kept_frames [T] 0 or 1, joints_worldspace [T, 21, 3]}; an absent hand is zeros or NaN, never kept
    text, text_rephrase    annotation.py
Sources: `microsoft/VITRA:data/data.md` (documented) and its example episode (verified); metres. What is in the camera's frame, and
what data.md calls deprecated, is not read.

What VITRA says about an episode: a text for each hand over frames [start, end) of it, and rewordings of each.

    text {side: [(text, (start, end))]}    text_rephrase {side: [([text, ...], (start, end))]}, entry by entry the same
Where both hands do something at once the two are joined as the authors train on them: "Left hand: ... Right hand: ..."
(`microsoft/VITRA:vitra/datasets/human_dataset.py`, code: half-open ranges too). An empty range says nothing and is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from adapters.containers.poses import rigid_matrices
from adapters.containers.restricted_pickle import load_npy_object
from schemas.episode import SIDES, Instruction
from schemas.errors import Code, SourceError
from schemas.geometry import Array

# -- annotation ----------------------------------------------------------------------------------------------------

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


# -- texts ---------------------------------------------------------------------------------------------------------

LONGEST_TEXT = 2_000
MAX_ENTRIES = 1_000
TimedText = Mapping[
    str, Sequence[tuple[str, int, int]]
]  # side -> (text, start, end), frames of the episode


def instructions_of(
    annotation: VitraAnnotation, t_ns: npt.NDArray[np.int64], where: str
) -> tuple[Instruction, ...]:
    """Rewordings first and the text itself last, which is the one that a timestep gets.

    Raises:
        SourceError: BAD_ANNOTATION.
    """
    T = len(annotation.frames)
    texts = _timed_texts(annotation.text, T, where)
    reworded = _timed_rows(annotation.text_rephrase, T, where)
    out = dict.fromkeys(i for words in (texts, *reworded) for i in _joined(words, T, t_ns))
    return tuple(reversed(out))


def _joined(texts: TimedText, T: int, t_ns: npt.NDArray[np.int64]) -> Iterator[Instruction]:
    """Stretch by stretch between the ends of all ranges: what is said of the hands then."""
    edges = sorted({0, T, *(at for rows in texts.values() for _, *span in rows for at in span)})
    for start, end in pairwise(edges):
        by_side = {
            side: " ".join(text for text, a, b in texts.get(side, ()) if a <= start and end <= b)
            for side in SIDES
        }
        by_side = {side: text for side, text in by_side.items() if text}
        if by_side:
            yield Instruction(
                text=_both(by_side),
                start_ns=int(t_ns[start]),
                end_ns=int(t_ns[end]) if end < T else None,
                kind="task" if (start, end) == (0, T) else "subtask",
            )


def _both(by_side: Mapping[str, str]) -> str:
    if len(by_side) == 1:
        return next(iter(by_side.values()))
    return " ".join(
        f"{s.capitalize()} hand: {t if t.endswith('.') else t + '.'}" for s, t in by_side.items()
    )


def _timed_texts(raw: Any, T: int, where: str) -> TimedText:
    return {
        side: [(_text(words, where), *span) for words, span in _rows(raw, side, T, where)]
        for side in SIDES
    }


def _timed_rows(raw: Any, T: int, where: str) -> Iterator[TimedText]:
    """The k-th rewording of every entry, for each k; an entry whose rewordings are no list has none."""
    rows = {side: _rows(raw, side, T, where) for side in SIDES}
    lists = [words for entries in rows.values() for words, _ in entries if isinstance(words, list)]
    for k in range(min(max(map(len, lists), default=0), MAX_ENTRIES)):
        yield {
            side: [
                (_text(words[k], where), *span)
                for words, span in entries
                if isinstance(words, list) and k < len(words)
            ]
            for side, entries in rows.items()
        }


def _rows(raw: Any, side: str, T: int, where: str) -> list[tuple[Any, tuple[int, int]]]:
    """(words, (start, end)) of one hand with start < end <= T."""
    if raw is None:
        return []
    rows = raw.get(side, []) if isinstance(raw, dict) else None
    if not isinstance(rows, (list, tuple)) or len(rows) > MAX_ENTRIES:
        problem = f"the texts of the {side} hand are a {type(rows).__name__}; expected a list"
        raise SourceError(Code.BAD_ANNOTATION, problem, where=where)
    out = []
    for row in rows:
        match row:
            case (words, (int() | np.integer() as a, int() | np.integer() as b)) if 0 <= a <= b:
                out += [(words, (int(a), min(int(b), T)))] if a < min(b, T) else []
            case _:
                problem = f"{str(row)[:200]}; expected (text, (first frame, end))"
                raise SourceError(Code.BAD_ANNOTATION, problem, where=where)
    return out


def _text(words: Any, where: str) -> str:
    if not isinstance(words, str):
        problem = f"found a {type(words).__name__}; expected text"
        raise SourceError(Code.BAD_ANNOTATION, problem, where=where)
    return words.strip()[:LONGEST_TEXT]
