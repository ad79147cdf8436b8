"""One TACO sequence: the helmet camera, the hands and the published split.

The helmet camera of one TACO sequence: its video, intrinsics and pose.

    Egocentric_RGB_Videos/<triplet>/<sequence>/color.mp4                                    1920 x 1080, 30 Hz
    Egocentric_Camera_Parameters/<triplet>/<sequence>/egocentric_intrinsic.txt              [3, 3], no distortion
    Egocentric_Camera_Parameters/<triplet>/<sequence>/egocentric_frame_extrinsic.npy        [N, 4, 4] world -> camera, OpenCV axes
Source: `leolyliu/TACO-Instructions:dataset_utils/project_pose_to_egocentric_view.py` (code).

The hands of one TACO sequence: MANO by motion capture, in the world, one row a frame of the video.

    Hand_Poses/<triplet>/<sequence>/<side>_hand.pkl         {"00001": {"hand_pose" [48], "hand_trans" [3]}, ...}, torch tensors
    Hand_Poses/<triplet>/<sequence>/<side>_hand_shape.pkl   {"hand_shape" [10]}
Key "00001" is frame 0. `hand_pose` is the wrist's rotation and 15 joints as axis-angles, radians; a frame without a key is one
without that hand (inferred: the authors' readers take the keys in order and assert that none is missing). The authors read it with
manopth, `center_idx=0`, `flat_hand_mean=True`, and with the left model's shape directions as the official file has them: `hand_trans`
is the wrist. Source: `leolyliu/TACO-Instructions:dataset_utils/{hand_pose_loader,manopth/manopth/manolayer}.py` (code).

Which split TACO publishes a sequence in.

    [data_lists/]v1_overall_data_train_test_split.txt    20230927_032,train: a sequence (date_number) and its split, one a line
Splits are train and test_1 to test_4: no generalisation, new geometry, new interaction, both (`leolyliu/TACO-Instructions:README.md`, doc; the
list itself was read: 2,317 lines, each sequence once). The file is in that repository, not in the archives.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from adapters.containers.array_files import npy_array
from adapters.containers.listing import list_lines
from adapters.containers.poses import rigid_matrices
from adapters.containers.raw_file import raw_file_of
from adapters.containers.restricted_pickle import load_pickle_file, mapping, numbers
from adapters.containers.safe_path import inside
from adapters.containers.sidecar import Sidecar, read_sidecar
from adapters.containers.video_probe import VideoProbe, probe_video
from schemas.episode import Camera, RawFile, Stream, VideoSpan, pose_channel
from schemas.errors import Code, SourceError
from schemas.geometry import Array, inverse, rotmat_from_rotvec
from schemas.hand_track import HandTrack, ManoPose
from schemas.regular_file import path_exists
from schemas.source_split import source_split_of, strictest

# -- camera --------------------------------------------------------------------------------------------------------

CAMERA = "ego"
FULL_SIZE_PX = (1920, 1080)
PARAMETERS = "Egocentric_Camera_Parameters"


def video_of(root: Path, sequence: str) -> Path:
    """Where the video is, or would be."""
    return inside(root, "Egocentric_RGB_Videos", sequence, "color.mp4")


def T_world_cam_of(root: Path, sequence: str) -> Array:
    """[N, 4, 4] camera to world: the file holds the inverse.

    Raises:
        SourceError: MISSING_FILE, SHAPE_MISMATCH, NOT_A_ROTATION (a transposed matrix), EMPTY_EPISODE, CORRUPT_RECORD.
    """
    path = _poses(root, sequence)
    name = path.relative_to(root.resolve()).as_posix()
    T_cam_world = npy_array(path, name)
    if T_cam_world.ndim != 3 or T_cam_world.shape[1:] != (4, 4):
        problem = f"has the shape {list(T_cam_world.shape)}; expected [N, 4, 4]"
        raise SourceError(Code.SHAPE_MISMATCH, problem, where=name)
    if len(T_cam_world) == 0:
        raise SourceError(Code.EMPTY_EPISODE, "the file has no camera poses", where=name)
    return inverse(rigid_matrices(T_cam_world, name))


def _poses(root: Path, sequence: str) -> Path:
    return inside(root, PARAMETERS, sequence, "egocentric_frame_extrinsic.npy")


def camera_of(
    root: Path, sequence: str, T_world_cam: Array, t_ns: npt.NDArray[np.int64]
) -> tuple[Camera, Stream, tuple[RawFile, ...]]:
    """The camera and its pose at every frame of the video, and the fingerprints of its files.

    Raises:
        SourceError: FRAME_COUNT: frames were lost in recording, as the authors say of some videos, and it is unknown which;
            MISSING_VIDEO, CORRUPT_VIDEO, MISSING_FILE, BAD_ANNOTATION.
    """
    video = video_of(root, sequence)
    probe = probe_video(video)
    if probe.num_frames != len(T_world_cam):
        problem = f"{probe.num_frames} frames for {len(T_world_cam)} poses; it is unknown which frames are missing"
        raise SourceError(Code.FRAME_COUNT, problem, where=f"{sequence}/color.mp4")
    K_cam, raw = _intrinsics(root, sequence)
    camera = Camera(
        name=CAMERA,
        frames=VideoSpan(path=str(video), first_frame=0, num_frames=probe.num_frames),
        t_ns=t_ns,
        K_cam=K_cam,
        K_size=_size_of(K_cam, probe, raw.path),
    )
    spec = pose_channel(f"T_world_cam.{CAMERA}")
    raw_files = (raw_file_of(video, root), raw_file_of(_poses(root, sequence), root), raw)
    return camera, Stream(spec=spec, t_ns=t_ns, values=T_world_cam), raw_files


def _intrinsics(root: Path, sequence: str) -> tuple[Array, RawFile]:
    text, raw = read_sidecar(
        root, Sidecar(path=f"{PARAMETERS}/{sequence}/egocentric_intrinsic.txt")
    )
    try:
        K_cam = np.array([float(word) for word in text.split()])
    except ValueError as error:
        raise SourceError(Code.BAD_ANNOTATION, f"not numbers: {error}", where=raw.path) from error
    if K_cam.shape != (9,) or not np.isfinite(K_cam).all():
        problem = f"{K_cam.size} numbers; expected a 3 x 3 matrix"
        raise SourceError(Code.BAD_ANNOTATION, problem, where=raw.path)
    return K_cam.reshape(3, 3), raw


def _size_of(K_cam: Array, probe: VideoProbe, where: str) -> tuple[int, int]:
    """The pictures that K is for: the video's own, or those of the release where this is a smaller copy of it.

    The principal point distinguishes them, which lies near the middle.
    """
    for size in ((probe.width_px, probe.height_px), FULL_SIZE_PX):
        if all(abs(K_cam[i, 2] / size[i] - 0.5) < 0.25 for i in (0, 1)):
            return size
    problem = f"the principal point {K_cam[:2, 2].tolist()} does not fit images of {FULL_SIZE_PX}"
    raise SourceError(Code.BAD_ANNOTATION, problem, where=where)


# -- hands ---------------------------------------------------------------------------------------------------------

MAX_BYTES = 64 << 20  # a minute at 30 Hz is 2 MB
POSE, TRANS = 48, 3
KEY = re.compile(r"[0-9]{5}")


def hand_of(
    root: Path, sequence: str, side: str, t_ns: npt.NDArray[np.int64]
) -> tuple[HandTrack, tuple[RawFile, ...]]:
    """One hand on the clock of the video; present where there is a key.

    Raises:
        SourceError: MISSING_FILE, FRAME_COUNT (a key beyond the camera's last frame), NOT_FINITE, SHAPE_MISMATCH,
            UNKNOWN_LAYOUT, or as `load_pickle_file`.
    """
    poses = inside(root, "Hand_Poses", sequence, f"{side}_hand.pkl")
    shape = inside(root, "Hand_Poses", sequence, f"{side}_hand_shape.pkl")
    where = f"{sequence}/{poses.name}"
    rows, present = _rows(load_pickle_file(poses, max_bytes=MAX_BYTES), len(t_ns), where)
    betas = mapping(load_pickle_file(shape, max_bytes=MAX_BYTES), shape.name).get("hand_shape")
    track = HandTrack(
        side=side,
        t_ns=t_ns,
        present=present,
        mano=ManoPose(
            global_orient=rotmat_from_rotvec(rows[:, :3]),
            hand_axis_angle_rad=rows[:, 3:POSE],
            trans_m=rows[:, POSE:],
            trans_is="wrist",
            betas=numbers(betas, (10,), f"{sequence}/{shape.name}"),
            is_flat_hand_mean=True,
            has_shapedirs_fix=False,
        ),
        view=CAMERA,
    )
    return track, (raw_file_of(poses, root), raw_file_of(shape, root))


def _rows(value: Any, count: int, where: str) -> tuple[Array, npt.NDArray[np.bool_]]:
    """[count, 51] pose and wrist by the number in the key, zeros where there is none, and where there is one [count]."""
    rows, present = np.zeros((count, POSE + TRANS)), np.zeros(count, dtype=bool)
    for key, content in mapping(value, where).items():
        if not isinstance(key, str) or not KEY.fullmatch(key) or int(key) < 1:
            problem = f"key {str(key)[:40]!r}; expected '00001' and so on"
            raise SourceError(Code.UNKNOWN_LAYOUT, problem, where=where)
        at = int(key) - 1
        if at >= count:
            problem = f"frame {key}; the camera has only {count} poses"
            raise SourceError(Code.FRAME_COUNT, problem, where=where)
        row = mapping(content, f"{where}:{key}")
        pose = numbers(row.get("hand_pose"), (POSE,), f"{where}:{key}/hand_pose")
        trans = numbers(row.get("hand_trans"), (TRANS,), f"{where}:{key}/hand_trans")
        rows[at], present[at] = np.concatenate([pose, trans]), True
    if not np.isfinite(rows).all():
        at = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
        problem = f"NaN or infinity in frame {at + 1:05d}"
        raise SourceError(Code.NOT_FINITE, problem, where=where)
    return rows, present


# -- splits --------------------------------------------------------------------------------------------------------

LIST = "data_lists/v1_overall_data_train_test_split.txt"
PLACES = (LIST, Path(LIST).name)


def split_list(root: Path) -> Path | None:
    """The list below `root`; None if it is missing."""
    return next((root / place for place in PLACES if path_exists(root / place)), None)


def source_splits(root: Path) -> dict[str, str]:
    """Split by `<date>_<number>`; empty without the list.

    Raises:
        ConfigError: the list is no text.
    """
    path = split_list(root)
    splits: dict[str, str] = {}
    for line in list_lines(path) if path is not None else ():
        sequence, _, split = line.partition(",")
        splits[sequence] = strictest((splits.get(sequence, ""), source_split_of(split)))
    return splits
