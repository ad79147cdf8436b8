"""What one EgoDex file holds: hands, head camera and texts.

The head camera of one EgoDex recording: its pictures, intrinsics and pose.

    camera/intrinsic     [3, 3] float32, one for the file, no distortion
    transforms/camera    [T, 4, 4] float32 camera -> world, OpenCV axes
Sources: `HongzheBi/H_RDT:datasets/pretrain/egodex_dataset.py`, `IstariRobotics/egohub:egohub/adapters/egodex/egodex.py` (axes).

The hands of one EgoDex file: 25 joint transforms each, in the world, row i at frame i.

    transforms/<side><Joint>    [T, 4, 4] float32 joint -> world, metres; `<side>Hand` is the wrist
    confidences/<side><Joint>   [T] float32, may be missing; 0.0032246 means untracked
The world is ARKit's: fixed within an episode, y up. Sources: `HongzheBi/H_RDT:datasets/pretrain/egodex_dataset.py`,
`hhh555-MAX/egodex-hand-action:src/egodex_hand_action/datasets/egodex_hdf5.py`, `angkul07/egodex_retargeting:doc.md`
(confidences, over 277 real files).

What the attributes of an EgoDex file say: the task in words, and where it was recorded.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from adapters.containers.hdf5 import Hdf5File
from adapters.containers.poses import rigid_matrices
from adapters.containers.video_probe import VideoProbe
from schemas.episode import SIDES, Camera, Instruction, Stream, VideoSpan, pose_channel
from schemas.fact import Certainty, Fact, fact
from schemas.hand import layout
from schemas.hand_track import HandTrack

# -- camera --------------------------------------------------------------------------------------------------------

CAMERA = "ego"
POSES = "transforms/camera"
# One matrix in all files seen, for pictures of this size; a copy of the videos that was made smaller keeps it.
K_CENTRE_PX, K_SIZE_PX = (960.0, 540.0), (1920, 1080)


def camera_of(
    file: Hdf5File, video: Path, t_ns: npt.NDArray[np.int64], probe: VideoProbe
) -> Camera:
    """The first len(t_ns) frames, which are the first rows."""
    K_cam = file.rows("camera/intrinsic", 3, num_rows=3)
    is_known = (K_cam[0, 2], K_cam[1, 2]) == K_CENTRE_PX
    return Camera(
        name=CAMERA,
        frames=VideoSpan(path=str(video), first_frame=0, num_frames=len(t_ns)),
        t_ns=t_ns,
        K_cam=K_cam,
        K_size=K_SIZE_PX if is_known else (probe.width_px, probe.height_px),
    )


def camera_pose(file: Hdf5File, t_ns: npt.NDArray[np.int64]) -> Stream:
    """`T_world_cam.ego`: stored as camera -> world in OpenCV axes, so taken as it is."""
    values = rigid_matrices(file.rows(POSES, 4, 4)[: len(t_ns)], f"{file.where}:{POSES}")
    return Stream(spec=pose_channel(f"T_world_cam.{CAMERA}"), t_ns=t_ns, values=values)


def clamped(num_rows: int, num_frames: int) -> Iterator[Fact]:
    """The fact that one of the two files is longer."""
    if num_rows != num_frames:
        value = f"{num_rows} rows, {num_frames} frames: the shorter counts"
        yield fact("length_clamped", value, Certainty.VERIFIED, "the two files")


# -- hands ---------------------------------------------------------------------------------------------------------

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


# -- texts ---------------------------------------------------------------------------------------------------------

SECOND = "2"  # of a task that is done and undone: the second text is this recording's
LONGEST_TEXT = 2_000


def instruction_of(file: Hdf5File, task: str) -> Instruction:
    """`llm_description2` where `which_llm_description` says 2, else `llm_description`, else the name of the task.

    The rule is that of `HongzheBi/H_RDT:datasets/pretrain/egodex_dataset.py`.
    """
    key = "llm_description2" if text_of(file, "which_llm_description") == SECOND else ""
    words = text_of(file, key or "llm_description") or text_of(file, "task") or task
    return Instruction(text=words.replace("_", " ") if words == task else words)


def setting_facts(file: Hdf5File) -> tuple[Fact, ...]:
    """What the file says of the table, the posture and the hand in use, in its own words."""
    environment = text_of(file, "environment")
    source = "attribute environment"
    return (fact("environment", environment, Certainty.DOCUMENTED, source),) if environment else ()


def text_of(file: Hdf5File, name: str) -> str:
    """An attribute of the file as stripped text; "" when it is absent, empty or not one text."""
    if not file.has_attribute("", name):
        return ""
    value = file.attribute("", name)
    if isinstance(value, str):
        return value.strip()[:LONGEST_TEXT]
    return str(value) if getattr(value, "shape", None) == () else ""
