"""The hands of one TACO sequence: MANO by motion capture, in the world, one row a frame of the video.

    Hand_Poses/<triplet>/<sequence>/<side>_hand.pkl         {"00001": {"hand_pose" [48], "hand_trans" [3]}, ...}, torch tensors
    Hand_Poses/<triplet>/<sequence>/<side>_hand_shape.pkl   {"hand_shape" [10]}
Key "00001" is frame 0. `hand_pose` is the wrist's rotation and 15 joints as axis-angles, radians; a frame without a key is one
without that hand (inferred: the authors' readers take the keys in order and assert that none is missing). The authors read it with
manopth, `center_idx=0`, `flat_hand_mean=True`, and with the left model's shape directions as the official file has them: `hand_trans`
is the wrist. Source: `leolyliu/TACO-Instructions:dataset_utils/{hand_pose_loader,manopth/manopth/manolayer}.py` (code).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from adapters.containers.pickled_numbers import mapping, numbers
from adapters.containers.raw_file import raw_file_of
from adapters.containers.restricted_pickle import load_pickle_file
from adapters.containers.safe_path import inside
from adapters.taco.camera import CAMERA
from schemas.episode import RawFile
from schemas.errors import Code, SourceError
from schemas.geometry import Array, rotmat_from_rotvec
from schemas.hand_track import HandTrack, ManoPose

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
