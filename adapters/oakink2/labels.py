"""The texts of one OakInk2 sequence: what the whole is for, and each primitive with the frames in which the hands do it.

    program/task_target.json            {"<scene>/<sequence>": text, or {"task_description": text}}    (third-party readers differ)
    program/desc_info/<sequence>.json   {"((10, 200), None)": {"seg_desc": text}, ...}
A key is the frames [begin, end) of the left and of the right hand as Python writes them, None for a hand that takes no part; the primitive
lasts from the earlier begin to the later end. Source: `oakink/OakInk2-PreviewTool:src/oakink2_toolkit/{dataset,program}.py,
src/oakink2_preview/viz/gui.py` (code). Not read: program_info, pdg, initial_condition_info, Chinese texts.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.containers.sidecar import Sidecar, json_object, read_sidecar
from adapters.oakink2.annotation import OakInk2Annotation
from schemas.episode import Instruction, RawFile
from schemas.fact import Certainty, Fact, fact
from schemas.regular_file import is_there

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
        if not is_there(root / path):
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
