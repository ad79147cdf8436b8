"""One annotation file of OakInk2: what it holds, and its clock.

    cam_def {serial: name}, cam_selection [name], frame_id_list [int]       four cameras, their pictures
    cam_intr {name: {frame id: [3, 3]}}, cam_extr {name: {frame id: [4, 4]}}    cameras.py
    mocap_frame_id_list [int], raw_mano {frame id: {...}}                   hands.py
    obj_list, obj_transf, raw_smplx                                         not read
All frame ids count the 120 Hz clock of the motion capture; pictures are at every fourth of them (30 Hz). Source:
`oakink/OakInk2-PreviewTool:README.md (dataset format), src/oakink2_toolkit/{meta,dataset}.py` (documented).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from adapters.containers.pickled_numbers import mapping
from adapters.containers.restricted_pickle import load_pickle_file
from schemas.errors import Code, SourceError

MOCAP_HZ = 120
NS_PER_S = 1_000_000_000
MAX_FRAME_ID = 1 << 30  # 100 days; far from where nanoseconds overflow
CAMERA_NAME = re.compile(r"[a-z0-9][a-z0-9_]*")
Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OakInk2Annotation:
    """`cameras`: name -> serial. `frame_ids` [F] and `mocap_ids` [N] increase strictly."""

    where: str
    cameras: dict[str, str]
    frame_ids: Ids
    mocap_ids: Ids
    cam_intr: dict[Any, Any]
    cam_extr: dict[Any, Any]
    raw_mano: dict[Any, Any]

    def ns(self, ids: npt.ArrayLike) -> Ids:
        """Frame ids -> ns since the first picture or hand pose, whichever is earlier."""
        since = np.asarray(ids, dtype=np.int64) - min(self.frame_ids[0], self.mocap_ids[0])
        return np.asarray((2 * NS_PER_S * since + MOCAP_HZ) // (2 * MOCAP_HZ))


def read_annotation(path: Path) -> OakInk2Annotation:
    """The parts that are read, checked as far as all of them need it.

    Raises:
        SourceError: MISSING_CHANNEL, UNKNOWN_LAYOUT, CLOCK_NOT_INCREASING, EMPTY_EPISODE, or as `load_pickle_file`.
    """
    where = path.name
    content = mapping(load_pickle_file(path), where)
    return OakInk2Annotation(
        where=where,
        cameras=_cameras(content, where),
        frame_ids=_ids(_part(content, "frame_id_list", where), f"{where}:frame_id_list"),
        mocap_ids=_ids(
            _part(content, "mocap_frame_id_list", where), f"{where}:mocap_frame_id_list"
        ),
        **{
            key: mapping(_part(content, key, where), f"{where}:{key}")
            for key in ("cam_intr", "cam_extr", "raw_mano")
        },
    )


def _part(content: dict[Any, Any], key: str, where: str) -> Any:
    if key not in content:
        problem = f"key {key} is missing; the file has {sorted(map(str, content))[:20]}"
        raise SourceError(Code.MISSING_CHANNEL, problem, where=where)
    return content[key]


def _cameras(content: dict[Any, Any], where: str) -> dict[str, str]:
    """The cameras that are selected, by name, with their serials."""
    serials = mapping(_part(content, "cam_def", where), f"{where}:cam_def")
    by_name = {name: serial for serial, name in serials.items()}
    selection = _part(content, "cam_selection", where)
    if not isinstance(selection, (list, tuple)) or not set(map(str, selection)) <= set(
        map(str, by_name)
    ):
        problem = f"cam_selection {str(selection)[:100]} and cam_def {str(serials)[:100]}"
        raise SourceError(Code.UNKNOWN_LAYOUT, problem, where=where)
    for name in selection:
        if not CAMERA_NAME.fullmatch(str(name)) or not isinstance(by_name.get(name), str):
            problem = f"camera {str(name)[:40]!r}; expected names like egocentric"
            raise SourceError(Code.UNKNOWN_LAYOUT, problem, where=where)
    return {name: by_name[name] for name in selection}


def _ids(value: Any, where: str) -> Ids:
    if isinstance(value, (list, tuple)) and all(type(item) is int for item in value):
        value = np.array([min(max(item, -1), MAX_FRAME_ID) for item in value], dtype=np.int64)
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "iu" or value.ndim != 1:
        raise SourceError(Code.UNKNOWN_LAYOUT, "not a list of frame ids", where=where)
    if len(value) == 0:
        raise SourceError(Code.EMPTY_EPISODE, "no frames", where=where)
    if value.min() < 0 or value.max() >= MAX_FRAME_ID:
        problem = f"frame ids from {value.min()} to {value.max()}"
        raise SourceError(Code.UNKNOWN_LAYOUT, problem, where=where)
    ids = value.astype(np.int64)
    if np.any(np.diff(ids) <= 0):
        at = int(np.flatnonzero(np.diff(ids) <= 0)[0])
        problem = f"frame ids must increase, but {ids[at + 1]} follows {ids[at]}"
        raise SourceError(Code.CLOCK_NOT_INCREASING, problem, where=where)
    return ids
