"""What was captured in one HOI4D sequence: the head camera and the hands.

The hands of one HOI4D sequence: MANO parameters in the camera, one pickle a frame of the video decoded at 15 Hz.

    <frame>.pickle      dict: poseCoeff (48) = global 3 + fingers 45, axis-angle; beta (10); trans (3) metres; kps2D (21, 2)
A frame without a file has no hand. `manopth` with flat_hand_mean and no centre: wrist = J0(beta) + trans, flat mean pose,
optical frame of the camera. Sources: `leolyliu/HOI4D-Instructions:README.md` (keys, frame, layer, for the right hand; doc);
`RchalYang/EgoVLA_Release:human_plan/dataset_preprocessing/hoi4d/utils.py` (<frame> is the index of the 15 Hz frame; code). That the
left hand is manopth's left model as released, with its shape directions as they are, is INFERRED. kps2D is not read.

The head camera of one HOI4D sequence: its pictures, intrinsics and pose.

    align_rgb/image.mp4             1920 x 1080; upstream decodes it at 15 Hz, frame k at k / 15 s
    camera_params/ZY*/intrin.npy    [3, 3] of that camera, for 1920 x 1080, no distortion
    3Dseg/output.log                Redwood trajectory, five lines a frame: three integers, then T_world_cam (4 x 4), metres
Sources: `leolyliu/HOI4D-Instructions:{README.md,utils/decode.py}` (doc, code). Camera to world: the authors' `prepare_4Dseg/
scene2frame.py` takes Open3D's `extrinsic` for world to camera, and `isl-org/Open3D:cpp/open3d/io/file_format/FileLOG.cpp` inverts
what it reads to get it; `RchalYang/EgoVLA_Release:human_plan/dataset_preprocessing/hoi4d/utils.py` agrees (code). Poses count by
their place in the file, as in all three. The world is the reconstruction's; its up direction is not documented.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from adapters.containers.array_files import npy_array
from adapters.containers.poses import rigid_matrices
from adapters.containers.raw_file import raw_file_of, raw_record
from adapters.containers.restricted_pickle import loads, mapping, numbers
from adapters.containers.safe_path import inside
from adapters.containers.sidecar import Sidecar, read_sidecar
from adapters.containers.video_probe import frame_times_ns
from adapters.hoi4d.sequences import FilesAndFacts, hand_folder
from schemas.episode import SIDES, Camera, RawFile, Stream, VideoSpan, pose_channel
from schemas.errors import Code, SourceError
from schemas.fact import Certainty, Fact, fact
from schemas.geometry import Array, rotmat_from_rotvec
from schemas.hand_track import HandTrack, ManoPose
from schemas.rate import NS_PER_S, instants_ns
from schemas.regular_file import path_exists, read_regular

# -- hands ---------------------------------------------------------------------------------------------------------

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


# -- camera --------------------------------------------------------------------------------------------------------

RATE_HZ = Fraction(15)
K_SIZE_PX = (1920, 1080)
LINES = 5  # of the log, a pose


def camera_of(root: Path, name: str, video: Path) -> tuple[Camera, FilesAndFacts]:
    """The camera with the container's own clock, from zero.

    Raises:
        SourceError: CORRUPT_VIDEO, CORRUPT_RECORD or BAD_ANNOTATION (intrinsics that are no matrix).
    """
    times = frame_times_ns(video)
    params = f"camera_params/{name.split('/')[0]}/intrin.npy"
    raw_files, facts, K_cam = [raw_file_of(video, root)], list[Fact](), None
    path = inside(root, params)
    if path_exists(path):
        K_cam = _intrinsics(path, params)
        raw_files.append(raw_file_of(path, root))
    else:
        value = f"{params} is not there: the in-view test cannot be made"
        facts.append(fact("intrinsics", value, Certainty.UNKNOWN, "this folder"))
    camera = Camera(
        name=CAMERA,
        frames=VideoSpan(path=str(video), first_frame=0, num_frames=len(times)),
        t_ns=times - times[0],
        K_cam=K_cam,
        K_size=None if K_cam is None else K_SIZE_PX,
    )
    return camera, (raw_files, facts)


def _intrinsics(path: Path, where: str) -> Array:
    K_cam = npy_array(path, where)
    if K_cam.shape != (3, 3) or not np.isfinite(K_cam).all():
        problem = f"the matrix has shape {list(K_cam.shape)} or non-finite values; expected 3 x 3"
        raise SourceError(Code.BAD_ANNOTATION, problem, where=where)
    return K_cam


def decoded_instants(camera: Camera) -> npt.NDArray[np.int64]:
    """[N] instants of the frames that `ffmpeg -vf fps=15` makes of the video: hands and poses are numbered by them.

    A frame up to a quarter of a period after the last picture counts: times are rounded in the container.
    """
    assert camera.t_ns is not None
    last = int(camera.t_ns[-1])
    count = (4 * last * int(RATE_HZ) + NS_PER_S) // (4 * NS_PER_S) + 1
    return instants_ns(count, RATE_HZ)


def camera_pose(
    root: Path, log: str, t_ns: npt.NDArray[np.int64]
) -> tuple[list[Stream], FilesAndFacts]:
    """`T_world_cam.ego` of the frames that have one; nothing, and a fact, when there is no log.

    Raises:
        SourceError: CORRUPT_RECORD, TRUNCATED, NOT_A_ROTATION (transposed, or no pose).
    """
    if not path_exists(root / log):
        value = f"{log} is not there: the hands stay in the camera"
        return [], ([], [fact("camera_pose_file", value, Certainty.UNKNOWN, "this folder")])
    text, raw = read_sidecar(root, Sidecar(path=log))
    T = rigid_matrices(_matrices(text, log), log)
    facts = []
    if len(T) != len(t_ns):
        value = f"{len(T)} poses, {len(t_ns)} frames at 15 Hz: the shorter counts"
        facts.append(fact("camera_poses_clamped", value, Certainty.VERIFIED, "the two files"))
    T, t_ns = T[: len(t_ns)], t_ns[: len(T)]
    stream = Stream(spec=pose_channel(f"T_world_cam.{CAMERA}"), t_ns=t_ns, values=T)
    return [stream], ([raw], facts)


def _matrices(text: str, where: str) -> Array:
    """[N, 4, 4] of a Redwood log; lines that begin with # are no part of it."""
    lines = [line.split() for line in text.splitlines() if line.strip() and line[0] != "#"]
    if not lines or len(lines) % LINES:
        problem = f"{len(lines)} lines; expected five per pose; the file may be truncated; download it again"
        raise SourceError(Code.TRUNCATED, problem, where=where)
    heads = lines[::LINES]
    rows = [line for k, line in enumerate(lines) if k % LINES]
    if any(len(head) != 3 for head in heads) or any(len(row) != 4 for row in rows):
        problem = "expected three integers and four rows of four numbers per pose"
        raise SourceError(Code.CORRUPT_RECORD, problem, where=where)
    try:
        return np.array(rows, dtype=np.float64).reshape(-1, 4, 4)
    except ValueError as error:
        raise SourceError(Code.CORRUPT_RECORD, f"not a number: {error}", where=where) from error
