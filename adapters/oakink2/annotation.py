"""One annotation file of OakInk2: what it holds, its texts, and the facts about its conventions.

One annotation file of OakInk2: what it holds, and its clock.

    cam_def {serial: name}, cam_selection [name], frame_id_list [int]       four cameras, their pictures
    cam_intr {name: {frame id: [3, 3]}}, cam_extr {name: {frame id: [4, 4]}}    capture.py
    mocap_frame_id_list [int], raw_mano {frame id: {...}}                   capture.py
    obj_list, obj_transf, raw_smplx                                         not read
All frame ids count the 120 Hz clock of the motion capture; pictures are at every fourth of them (30 Hz). Source:
`oakink/OakInk2-PreviewTool:README.md (dataset format), src/oakink2_toolkit/{meta,dataset}.py` (documented).

The texts of one OakInk2 sequence: what the whole is for, and each primitive with the frames in which the hands do it.

    program/task_target.json            {"<scene>/<sequence>": text, or {"task_description": text}}    (third-party readers differ)
    program/desc_info/<sequence>.json   {"((10, 200), None)": {"seg_desc": text}, ...}
A key is the frames [begin, end) of the left and of the right hand as Python writes them, None for a hand that takes no part; the primitive
lasts from the earlier begin to the later end. Source: `oakink/OakInk2-PreviewTool:src/oakink2_toolkit/{dataset,program}.py,
src/oakink2_preview/viz/gui.py` (code). Not read: program_info, pdg, initial_condition_info, Chinese texts.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from adapters.containers.restricted_pickle import load_pickle_file, mapping
from adapters.containers.sidecar import Sidecar, json_object, read_sidecar
from schemas.episode import Instruction, RawFile
from schemas.errors import Code, SourceError
from schemas.fact import Certainty, Fact, fact
from schemas.regular_file import path_exists

# -- annotation ----------------------------------------------------------------------------------------------------

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


# -- labels --------------------------------------------------------------------------------------------------------

TARGETS, DESCRIPTIONS = "program/task_target.json", "program/desc_info"
LONGEST_KEY, LONGEST_TEXT = 200, 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class OakInk2Labels:
    instructions: tuple[Instruction, ...]
    facts: tuple[Fact, ...]
    raw_files: tuple[RawFile, ...]


def labels_of(root: Path, sequence: str, annotation: OakInk2Annotation) -> OakInk2Labels:
    """Task and primitives; a file that is not there is a fact, and so are labels that do not hold.

    Raises:
        SourceError: BAD_ANNOTATION (no JSON object), TOO_LARGE, UNSAFE_PATH.
    """
    facts: list[Fact] = []
    raw_files: list[RawFile] = []
    instructions: list[Instruction] = []
    broken: list[str] = []
    for path in (TARGETS, f"{DESCRIPTIONS}/{sequence}.json"):
        if not path_exists(root / path):
            absent = "not there: no texts from it; unpack program.tar"
            facts.append(fact(f"labels.{Path(path).parent.name}", absent, Certainty.VERIFIED, path))
            continue
        text, raw = read_sidecar(root, Sidecar(path=path))
        content = json_object(text, path)
        raw_files.append(raw)
        if path == TARGETS:
            instructions += _task(content.get(sequence.replace("++", "/")))
            continue
        for key, value in content.items():
            label = _primitive(key, value, annotation)
            if isinstance(label, Instruction):
                instructions.append(label)
            else:
                broken.append(label)
    if broken:
        left_out = f"{len(broken)} left out; first: {broken[0]}"
        facts.append(fact("labels.broken", left_out, Certainty.VERIFIED, DESCRIPTIONS))
    instructions.sort(key=lambda label: (label.kind != "task", label.start_ns))
    return OakInk2Labels(
        instructions=tuple(instructions), facts=tuple(facts), raw_files=tuple(raw_files)
    )


def _task(value: Any) -> Iterator[Instruction]:
    text = _text(value.get("task_description") if isinstance(value, dict) else value)
    if text:
        yield Instruction(text=text)


def _primitive(key: str, value: Any, annotation: OakInk2Annotation) -> Instruction | str:
    """The label, or why there is none."""
    text = _text(value.get("seg_desc")) if isinstance(value, dict) else ""
    span = frames_of(key)
    if not text or span is None:
        return (
            f"{key[:60]!r} is no pair of frame intervals" if text else f"{key[:60]!r} has no text"
        )
    first = min(annotation.frame_ids[0], annotation.mocap_ids[0])
    last = max(annotation.frame_ids[-1], annotation.mocap_ids[-1])
    begin, end = max(span[0], int(first)), min(span[1], int(last) + 1)
    if begin >= end:
        return f"{key[:60]!r} lies outside of the frames {first} to {last}"
    start_ns, end_ns = (int(t) for t in annotation.ns([begin, end]))
    return Instruction(text=text, start_ns=start_ns, end_ns=end_ns, kind="subtask")


def frames_of(key: str) -> tuple[int, int] | None:
    """[begin, end) that encloses the intervals of both hands; None where the key is something else."""
    try:
        pair = ast.literal_eval(key) if len(key) <= LONGEST_KEY else None
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        return None
    spans = [span for span in pair if span is not None]
    if not spans or not all(_is_interval(span) for span in spans):
        return None
    return min(span[0] for span in spans), max(span[1] for span in spans)


def _is_interval(span: Any) -> bool:
    return (
        isinstance(span, (tuple, list))
        and len(span) == 2
        and all(type(at) is int for at in span)
        and 0 <= span[0] < span[1]
    )


def _text(value: Any) -> str:
    return value.strip()[:LONGEST_TEXT] if isinstance(value, str) else ""


# -- facts ---------------------------------------------------------------------------------------------------------

TOOL = "oakink/OakInk2-PreviewTool:src/"
VIEWER = f"{TOOL}oakink2_preview/launch/viz/seg_3d.py"
FACTS = (
    fact(
        "rate",
        "hands 120 Hz, pictures 30 Hz, one clock",
        Certainty.CODE,
        f"{TOOL}oakink2_toolkit/meta.py",
        for_actions=True,
    ),
    fact("hand_frame", "world, metres", Certainty.CODE, VIEWER, for_actions=True),
    fact(
        "mano_rotation",
        "quaternions w x y z, absolute",
        Certainty.CODE,
        "lixiny/manotorch",
        for_actions=True,
    ),
    fact("mano_trans", "the wrist (center_idx 0)", Certainty.CODE, VIEWER, for_actions=True),
    fact("left_shapedirs", "as in the official file", Certainty.CODE, "lixiny/manotorch"),
    fact(
        "camera_pose",
        "world to camera, OpenCV axes; inverted here",
        Certainty.CODE,
        f"{TOOL}oakink2_preview/viz/gui.py",
    ),
    # ManipTrans and two more retargeters turn it by 90 degrees about x to get z up; the authors do not say.
    fact("world_up", "+y", Certainty.THIRD_PARTY, "three public retargeters"),
)
SCENARIOS = {
    "scene_01": "kitchen table",
    "scene_02": "study room table",
    "scene_03": "demo chem lab",
    "scene_04": "bathroom table",
}


def scenario_facts(scene: str) -> Iterator[Fact]:
    """Where it was recorded, by the first part of the sequence's name."""
    if scene in SCENARIOS:
        source = f"{TOOL}oakink2_preview/viz/gui.py"
        yield fact("scenario", SCENARIOS[scene], Certainty.CODE, source)
