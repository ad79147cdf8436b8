"""The hands of one HOI4D sequence: MANO parameters in the camera, one pickle a frame of the video decoded at 15 Hz.

    <frame>.pickle      dict: poseCoeff (48) = global 3 + fingers 45, axis-angle; beta (10); trans (3) metres; kps2D (21, 2)
A frame without a file has no hand. `manopth` with flat_hand_mean and no centre: wrist = J0(beta) + trans, flat mean pose,
optical frame of the camera. Sources: `leolyliu/HOI4D-Instructions:README.md` (keys, frame, layer, for the right hand; doc);
`RchalYang/EgoVLA_Release:human_plan/dataset_preprocessing/hoi4d/utils.py` (<frame> is the index of the 15 Hz frame; code). That the
left hand is manopth's left model as released, with its shape directions as they are, is INFERRED. kps2D is not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from adapters.containers.pickled_numbers import mapping, numbers
from adapters.containers.raw_file import raw_record
from adapters.containers.restricted_pickle import loads
from adapters.containers.safe_path import inside
from adapters.hoi4d.tree import hand_folder
from schemas.episode import SIDES, RawFile
from schemas.errors import Code, SourceError
from schemas.fact import Certainty, Fact, fact
from schemas.geometry import Array, rotmat_from_rotvec
from schemas.hand_track import HandTrack, ManoPose
from schemas.regular_file import read_regular

CAMERA = "ego"
WIDTHS = {"poseCoeff": 48, "beta": 10, "trans": 3}
LIMIT_BYTES = 1 << 20  # a real one has some kB
MAX_BEYOND = 2  # frames: ffmpeg rounds the last ones this way or that
SAME_BETA = 1e-3
_FRAME = re.compile(r"([0-9]{1,6})\.pickle")


@dataclass(slots=True)
class Hands:
    """What the pickles of a sequence gave."""

    tracks: list[HandTrack] = field(default_factory=list)
    raw_files: list[RawFile] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)


def hands_of(root: Path, name: str, t_ns: npt.NDArray[np.int64]) -> Hands:
    """Both hands, as far as there are pickles; `t_ns` [N] are the instants of the 15 Hz frames.

    Raises:
        SourceError: UNSAFE_CONTENT, MISSING_CHANNEL, CORRUPT_RECORD, NOT_FINITE; FRAME_COUNT when hands go on after the video.
    """
    hands = Hands()
    for side in SIDES:
        folder = hand_folder(root, name, side)
        if folder is not None:
            _add(hands, root, folder, side, t_ns)
    return hands


def _add(hands: Hands, root: Path, folder: str, side: str, t_ns: npt.NDArray[np.int64]) -> None:
    files = _files(root / folder, folder)
    beyond = [frame for frame in files if frame >= len(t_ns)]
    if beyond and max(beyond) >= len(t_ns) + MAX_BEYOND:
        problem = (
            f"a hand pose at frame {max(beyond)}; the video has only {len(t_ns)} frames at 15 Hz"
        )
        raise SourceError(
            Code.FRAME_COUNT, f"{problem}; the poses may belong to another video", where=folder
        )
    frames = [frame for frame in files if frame < len(t_ns)]
    if not frames:
        return
    data = [_bytes(root, f"{folder}/{files[frame]}") for frame in frames]
    rows = [_row(d, f"{folder}/{files[f]}") for f, d in zip(frames, data, strict=True)]
    hands.tracks.append(_track(side, frames, rows, t_ns))
    # One fingerprint for all: a sequence has 300 of these files.
    hands.raw_files.append(raw_record(folder, b"".join(data)))
    hands.facts.extend(_facts(side, rows, len(beyond)))


def _files(folder: Path, where: str) -> dict[int, str]:
    """Frame -> file name, by frame."""
    name_of_number: dict[int, str] = {}
    for path in folder.iterdir():
        match = _FRAME.fullmatch(path.name)
        if match and name_of_number.setdefault(int(match[1]), path.name) != path.name:
            names = f"{path.name} and {name_of_number[int(match[1])]}"
            raise SourceError(Code.UNKNOWN_LAYOUT, f"two files for one frame: {names}", where=where)
    return dict(sorted(name_of_number.items()))


def _bytes(root: Path, name: str) -> bytes:
    return read_regular(inside(root, name), max_bytes=LIMIT_BYTES, where=name)


def _row(data: bytes, where: str) -> dict[str, Array]:
    values = mapping(loads(data, where=where, max_bytes=LIMIT_BYTES), where)
    if missing := [key for key in WIDTHS if key not in values]:
        problem = f"no {missing} in {sorted(map(str, values))[:20]}"
        raise SourceError(Code.MISSING_CHANNEL, problem, where=where)
    row = {key: numbers(values[key], (width,), f"{where}:{key}") for key, width in WIDTHS.items()}
    if not all(np.isfinite(vector).all() for vector in row.values()):
        raise SourceError(Code.NOT_FINITE, "NaN or infinity", where=where)
    return row


def _track(
    side: str, frames: list[int], rows: list[dict[str, Array]], t_ns: npt.NDArray[np.int64]
) -> HandTrack:
    present = np.zeros(len(t_ns), dtype=bool)
    present[frames] = True
    pose, trans = np.zeros((len(t_ns), 48)), np.zeros((len(t_ns), 3))
    pose[frames] = [row["poseCoeff"] for row in rows]
    trans[frames] = [row["trans"] for row in rows]
    return HandTrack(
        side=side,
        t_ns=t_ns,
        present=present,
        frame=CAMERA,
        mano=ManoPose(
            global_orient=rotmat_from_rotvec(pose[:, :3]),
            hand_axis_angle_rad=pose[:, 3:],
            trans_m=trans,
            trans_is="smplx_transl",
            betas=np.median([row["beta"] for row in rows], axis=0),
            is_flat_hand_mean=True,
            has_shapedirs_fix=side == "right",  # manopth reads MANO_LEFT.pkl as it is
        ),
        view=CAMERA,
    )


def _facts(side: str, rows: list[dict[str, Array]], num_beyond: int) -> Iterator[Fact]:
    if side == "left":
        value, source = (
            "manopth's left model, shape directions not mended",
            "the README shows the right",
        )
        yield fact("mano_left", value, Certainty.INFERRED, source, for_actions=True)
    spread = float(np.ptp([row["beta"] for row in rows], axis=0).max())
    if spread > SAME_BETA:
        value = f"betas vary by {spread:.3g} within the sequence: their median counts"
        yield fact(f"hand_shape.{side}", value, Certainty.VERIFIED, "the pickles")
    if num_beyond:
        value = f"{num_beyond} frames after the end of the video are left out"
        yield fact(f"length_clamped.{side}", value, Certainty.VERIFIED, "the two")
