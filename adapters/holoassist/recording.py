"""What HoloLens recorded over one segment of a session, and the facts about its conventions.

What HoloLens measured over one segment of a session: camera pose, intrinsics, hands; all on the clock of the video.

    Video/VideoMp4Timing.txt   ticks of the video's first and last instant, two lines
    Video/Pose_sync.txt        18 columns: time, ticks, camera -> world 4 x 4, rows first
    Video/Intrinsics.txt       K (9), radial (6), tangential (2), focal (1 + 2), principal (2), closed form (1), width, height
    Hands/<Side>_sync.txt      471 columns: time, ticks, active, 26 joints x 4 x 4 joint -> world, 26 valid, 26 tracked;
                               473 in version 2, with two more columns before the active flag
Poses are in psi's basis, x forward, y left, z up, world z up. A joint that HoloLens does not see is 16 times NaN.
Sources: `taeinkwon/PyHoloAssist:hand_eye_project.py` (columns, axes, clock), `RchalYang/EgoVLA_Release:human_plan/
dataset_preprocessing/holoassist/utils.py` (flags), `microsoft/psi:Sources/MixedReality/HoloLensCapture/HoloLensCaptureExporter`
(Operators.cs: flags, NaN; Readme.md: intrinsics); Pose_sync and timing checked on a real session. What the two columns of
version 2 are is not stated: UNVERIFIED.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adapters.containers.poses import rigid_matrices
from adapters.containers.raw_file import raw_file_of
from adapters.containers.safe_path import inside
from adapters.containers.sidecar import Sidecar, read_sidecar
from adapters.holoassist.sync import NS_PER_TICK, TICKS_PER_S, SyncRows, rows_between
from adapters.holoassist.tree import HANDS, INTRINSICS, POSES, TIMING
from schemas.episode import Licence, RawFile, Stream, pose_channel
from schemas.errors import Code, SourceError
from schemas.fact import Certainty, Fact, fact
from schemas.geometry import Array
from schemas.hand_track import HandTrack

# -- recording -----------------------------------------------------------------------------------------------------

CAMERA = "ego"
LAYOUT, AXES = "openxr26", "holoassist_psi"
WRIST, NUM_JOINTS = 1, 26
POSE_COLUMNS = (18,)
HAND_COLUMNS = (471, 473)
# OpenCV's right, down, forward written in psi's forward, left, up: its columns are the OpenCV axes.
T_PSI_CV = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]], dtype=np.float64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HoloAssistIntrinsics:
    """K [3, 3] in pixels of a picture of `size`; whether distortion is stated, which public readers do not apply."""

    K_cam: Array
    size: tuple[int, int]
    has_distortion: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HoloAssistRecording:
    """A segment. Its zero is the first camera pose, `start_s` seconds into the video."""

    start_s: float
    camera_motion: Stream
    hands: tuple[HandTrack, ...]
    intrinsics: HoloAssistIntrinsics
    facts: tuple[Fact, ...]
    raw_files: tuple[RawFile, ...]


def recording_of(root: Path, folder: str, start_s: float, end_s: float) -> HoloAssistRecording:
    """[start_s, end_s) of the video of the session in `folder`.

    Raises:
        SourceError: as `rows_between` and `rigid_matrices`; NO_COMMON_TIME when no pose was measured in there;
            UNKNOWN_LAYOUT for timing or intrinsics that are none; what HandTrack and Stream refuse.
    """
    timing, timing_file = read_sidecar(root, Sidecar(path=f"{folder}/{TIMING}"))
    first_tick = _first_tick(timing)
    start, end = (first_tick + round(s * TICKS_PER_S) for s in (start_s, end_s))
    paths = {name: inside(root, folder, name) for name in (POSES, *HANDS.values())}
    poses = rows_between(paths[POSES], start, end, POSE_COLUMNS)
    if not len(poses.ticks):
        problem = f"no camera pose between {start_s:.3f} and {end_s:.3f} s of the video"
        raise SourceError(Code.NO_COMMON_TIME, problem, where=f"{folder}/{POSES}")
    zero = int(poses.ticks[0])
    rows = {
        side: rows_between(paths[name], zero, end, HAND_COLUMNS) for side, name in HANDS.items()
    }
    text, intrinsics_file = read_sidecar(root, Sidecar(path=f"{folder}/{INTRINSICS}"))
    return HoloAssistRecording(
        start_s=(zero - first_tick) / TICKS_PER_S,
        camera_motion=_camera_pose(poses, zero),
        hands=tuple(_hand(side, r, zero) for side, r in rows.items() if len(r.ticks)),
        intrinsics=intrinsics_of(text),
        facts=tuple(_facts(poses, rows)),
        raw_files=(
            *(timing_file, intrinsics_file),
            *(raw_file_of(path, root) for path in paths.values()),
        ),
    )


def intrinsics_of(text: str) -> HoloAssistIntrinsics:
    """Raises SourceError: UNKNOWN_LAYOUT, when it is no intrinsics matrix with a size."""
    try:
        values = np.array([float(word) for word in text.split()])
        K_cam, size = values[:9].reshape(3, 3), values[-2:]
    except ValueError as error:
        raise SourceError(Code.UNKNOWN_LAYOUT, f"not numbers: {error}", where=INTRINSICS) from error
    is_K = K_cam[2].tolist() == [0, 0, 1] and K_cam[1, 0] == 0 and min(K_cam[0, 0], K_cam[1, 1]) > 0
    if len(values) < 11 or not is_K or not ((size >= 1) & (size <= 1 << 15)).all():
        problem = f"{len(values)} numbers that begin {values[:9].tolist()}; expected K, ..., width, height"
        raise SourceError(Code.UNKNOWN_LAYOUT, problem, where=INTRINSICS)
    has_distortion = len(values) >= 19 and bool(values[9:17].any())
    return HoloAssistIntrinsics(
        K_cam=K_cam, size=(int(size[0]), int(size[1])), has_distortion=has_distortion
    )


def _first_tick(text: str) -> int:
    """PTS 0 of the video, in ticks."""
    words = text.split()
    if len(words) != 2 or not all(word.isascii() and word.isdigit() for word in words):
        problem = f"{text[:60]!r}; expected the ticks of the first and the last instant"
        raise SourceError(Code.UNKNOWN_LAYOUT, problem, where=TIMING)
    return int(words[0])


def _camera_pose(rows: SyncRows, zero: int) -> Stream:
    T_world_psi = rigid_matrices(rows.values.reshape(-1, 4, 4), POSES)
    return Stream(
        spec=pose_channel(f"T_world_cam.{CAMERA}"),
        t_ns=(rows.ticks - zero) * NS_PER_TICK,
        values=T_world_psi @ T_PSI_CV,
    )


def _hand(side: str, rows: SyncRows, zero: int) -> HandTrack:
    """Present: active, and every joint stored. A joint's confidence is 1 where it is valid and tracked, not inferred, else 0."""
    lead = rows.values.shape[1] - NUM_JOINTS * 18
    active = rows.values[:, lead - 1] == 1
    joints = rows.values[:, lead : lead + NUM_JOINTS * 16].reshape(-1, NUM_JOINTS, 4, 4)
    flags = rows.values[:, -2 * NUM_JOINTS :].reshape(-1, 2, NUM_JOINTS)
    is_told = np.isfinite(joints) & (np.abs(joints).max(axis=(2, 3), keepdims=True) > 0)
    present = active & is_told.all(axis=(1, 2, 3))
    joints = rigid_matrices(joints, HANDS[side], present)
    return HandTrack(
        side=side,
        t_ns=(rows.ticks - zero) * NS_PER_TICK,
        present=present,
        joints_m=joints[..., :3, 3],
        layout=LAYOUT,
        confidence=(flags == 1).all(axis=1).astype(np.float64),
        T_frame_wrist=joints[:, WRIST],
        wrist_axes=AXES,
        view=CAMERA,
    )


def _facts(poses: SyncRows, hands: Mapping[str, SyncRows]) -> Iterator[Fact]:
    """What was left out of these files, or is not there, and which version they are."""
    for name, rows in ((CAMERA, poses), *hands.items()):
        if rows.num_repeated:
            value = f"{rows.num_repeated} rows repeat the tick before them: padding, left out"
            yield fact(f"padding.{name}", value, Certainty.VERIFIED, "ticks of the rows")
    for side, rows in hands.items():
        if not len(rows.ticks):
            value = "no row in this segment"
            yield fact(f"hand_missing.{side}", value, Certainty.VERIFIED, HANDS[side])
        elif rows.values.shape[1] + 2 == HAND_COLUMNS[1]:
            value = "473 columns: the one before the joints is taken for the active flag"
            yield fact(
                f"hand_layout.{side}", value, Certainty.UNVERIFIED, "PyHoloAssist: version 2"
            )


# -- facts ---------------------------------------------------------------------------------------------------------

LICENCE = Licence(name="CDLA-Permissive-2.0", allows_commercial=True, allows_redistribution=True)
PY = "taeinkwon/PyHoloAssist:hand_eye_project.py"
EGOVLA = "RchalYang/EgoVLA_Release:human_plan/dataset_preprocessing/holoassist/utils.py"
FACTS = (
    fact(
        "rate",
        "30 Hz nominal; each row by its ticks",
        Certainty.VERIFIED,
        "a real Pose_sync.txt",
        for_actions=True,
    ),
    fact("hand_frame", "joints to the world, metres", Certainty.CODE, PY, for_actions=True),
    fact("wrist_axes", f"{AXES}: fingers +x, back of the hand +z", Certainty.CODE, EGOVLA),
    fact("camera_pose", "camera to world, x forward, y left, z up", Certainty.CODE, PY),
    fact("video_clock", "PTS 0 is the first tick of VideoMp4Timing.txt", Certainty.CODE, PY),
    fact("segment_clock", "seconds of the video's PTS", Certainty.CODE, EGOVLA),
    # Processing time of the tracker. It is not subtracted: its variation is not documented.
    fact(
        "hand_latency",
        "about 50 ms behind the pictures; not shifted",
        Certainty.CODE,
        f"{PY}: --offset",
    ),
    fact("world_up", "+z", Certainty.VERIFIED, "a real Pose_sync.txt"),
)


def lens_fact(*, has_distortion: bool) -> Iterator[Fact]:
    """Said where Intrinsics.txt states distortion: psi's direction and order of it are not settled, so it is not applied."""
    if has_distortion:
        value = "distortion is stated and not applied, as in public readers"
        yield fact("lens", value, Certainty.UNVERIFIED, f"Intrinsics.txt; {PY}")
