"""The wearer's hands in one segment, on the clock of the frame-aligned videos: frame n is second n / 30 of the take.

Annotated frames further apart than 100 ms are not joined: a sample that is not present stands between them. The joints are in the
world of the take (Aria's MPS: metres, gravity along -z). K is left out: camera_pose has it for an undistorted 512 x 512 landscape
picture, and the mp4 is the fisheye picture turned upright, so no test checks whether a joint is in view. camera_pose is the pose of the
landscape camera; a quarter turn about the optical axis makes it that of the upright picture (u', v' = H - 1 - v, u).
Sources: `EGO4D/Ego-Exo4D-docs:docs/annotations/ego_pose.md`, `EGO4D/ego-exo4d-egopose:handpose/data_preparation/utils/utils.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from adapters.containers.raw_file import raw_file_of
from adapters.containers.safe_path import inside
from adapters.ego_exo4d.pose_files import Frames, Posed, camera_poses, hand_joints
from schemas.episode import SIDES, Episode, Stream, VideoWindow, pose_channel
from schemas.fact import Certainty, Fact, fact
from schemas.geometry import Array, inverse, transform
from schemas.hand_track import HandTrack
from schemas.rate import NS_PER_S

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
