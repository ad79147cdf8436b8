"""The hands of one EgoDex file: 25 joint transforms each, in the world, row i at frame i.

    transforms/<side><Joint>    [T, 4, 4] float32 joint -> world, metres; `<side>Hand` is the wrist
    confidences/<side><Joint>   [T] float32, may be missing; 0.0032246 means untracked
The world is ARKit's: fixed within an episode, y up. Sources: `HongzheBi/H_RDT:datasets/pretrain/egodex_dataset.py`,
`hhh555-MAX/egodex-hand-action:src/egodex_hand_action/datasets/egodex_hdf5.py`, `angkul07/egodex_retargeting:doc.md`
(confidences, over 277 real files).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from adapters.containers.hdf5 import Hdf5File
from adapters.containers.pose_matrices import rigid_matrices
from adapters.egodex.camera import CAMERA, POSES
from schemas.episode import SIDES
from schemas.fact import Certainty, Fact, fact
from schemas.hand import layout
from schemas.hand_track import HandTrack

LAYOUT = "arkit25"
AXES = "arkit"
WRIST = "Hand"
# 15.6 % of 806,775 public values are exactly 0.0032246: the joint is not tracked. Nothing lies between it and 0.004.
UNTRACKED_MAX = 0.004


def hands_of(file: Hdf5File, t_ns: npt.NDArray[np.int64]) -> tuple[HandTrack, ...]:
    """Both hands over the first len(t_ns) rows; a hand is present where its wrist is tracked or its tracking is not stated.

    Raises:
        SourceError: MISSING_CHANNEL, SHAPE_MISMATCH, NOT_A_ROTATION, NOT_FINITE.
    """
    return tuple(_hand(file, side, t_ns) for side in SIDES)


def confidence_facts(file: Hdf5File) -> Iterator[Fact]:
    """Which hand has no confidences: unknown is not the same as certain."""
    for side in SIDES:
        if not _has_confidence(file, side):
            value = "this file has none for some joints: unknown"
            yield fact(f"hand_confidence.{side}", value, Certainty.VERIFIED, "the file's keys")


def _hand(file: Hdf5File, side: str, t_ns: npt.NDArray[np.int64]) -> HandTrack:
    num_rows = file.shape(POSES)[0]
    keys = [f"transforms/{name}" for name in _names(side)]
    T_joints = np.stack([file.rows(key, 4, 4, num_rows=num_rows) for key in keys], axis=1)
    T_joints = T_joints[: len(t_ns)]
    present, confidence = np.ones(len(t_ns), dtype=bool), None
    if _has_confidence(file, side):
        keys = [f"confidences/{name}" for name in _names(side)]
        confidence = np.stack([file.rows(key, num_rows=num_rows) for key in keys], axis=1)
        confidence = confidence[: len(t_ns)]
        present = confidence[:, _names(side).index(f"{side}{WRIST}")] > UNTRACKED_MAX
    T_joints = rigid_matrices(T_joints, f"{file.where}:{side} hand", present)
    return HandTrack(
        side=side,
        t_ns=t_ns,
        present=present,
        joints_m=T_joints[..., :3, 3],
        layout=LAYOUT,
        confidence=confidence,
        T_frame_wrist=T_joints[:, 0],
        wrist_axes=AXES,
        view=CAMERA,
    )


def _names(side: str) -> list[str]:
    return [f"{side}{name}" for name in layout(LAYOUT).names]


def _has_confidence(file: Hdf5File, side: str) -> bool:
    return all(f"confidences/{name}" in file for name in _names(side))
