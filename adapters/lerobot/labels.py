"""Texts that a set keeps beside LeRobot's task table: indexed label columns, and skills in a file per episode.

    RoboCOIN     subtask_annotation int32[5] -> annotations/subtask_annotations.jsonl {"subtask_index", "subtask"}
                 up to five at once, the same one in any slot; slots in no use point to "null"
    BEHAVIOR-1K  annotations/task-XXXX/episode_XXXXXXXX.json {"skill_annotation": [{"skill_description": ["move to"],
                 "object_id": [["radio_89"]], "frame_duration": [0, 1240]}, ...]}
Source: FlagOpen/RoboCOIN README and QianHuixun/New-Test:meta/info.json; StanfordVL/BEHAVIOR-1K
`OmniGibson/omnigibson/learning/utils/lerobot_utils.py`. The keys of both text files: third party readers.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from adapters.containers.json_rows import Broken, JsonRow, Text, parse_rows
from adapters.containers.lerobot_meta import lines_of, parse_json, read_json
from adapters.containers.lerobot_table import TableRows
from adapters.containers.safe_path import exists_inside, inside
from adapters.lerobot.mapping import Label, Mapping
from schemas.episode import Instruction
from schemas.errors import Code, SourceError
from schemas.fact import Certainty, Fact, fact

Clock = npt.NDArray[np.int64]
TextsAndFacts = tuple[list[Instruction], list[Fact]]


class _Skill(JsonRow):
    skill_description: tuple[Text, ...]
    object_id: tuple[Any, ...] = ()
    frame_duration: tuple[int, int] | tuple[tuple[int, int], ...]


def labelled(rows: TableRows, t_ns: Clock, root: Path, mapping: Mapping) -> TextsAndFacts:
    """A subtask for every run of rows in which a label of the mapping's columns is on.

    Raises:
        SourceError: BAD_ANNOTATION (an entry is not in the table), UNREADABLE, UNSAFE_PATH, or as `Rows.matrix`.
    """
    out: list[Instruction] = []
    facts: list[Fact] = []
    for label in mapping.labels:
        if not rows.has(label.column):
            continue
        if not exists_inside(root, label.table):
            facts.append(_left_out(label.column, f"{label.table} is not there"))
            continue
        out += _label_runs(rows, t_ns, label, _table(root, label))
    return out, facts


def skills_of(path: str, t_ns: Clock, root: Path) -> TextsAndFacts:
    """A subtask for every skill of the annotation file at `path`: "<skill>: <objects>", the words the source's own.

    Frames are rows, the end not included (UNVERIFIED). A row that makes no sense is left out, and a fact says how many.

    Raises:
        SourceError: UNREADABLE, TOO_LARGE, UNSAFE_PATH.
    """
    full = inside(root, path)
    if not exists_inside(root, path):
        return [], [_left_out("skill_annotation", f"{path} is not there")]
    raw = read_json(full, path)
    listed = raw.get("skill_annotation") if isinstance(raw, dict) else None
    if not isinstance(listed, list):
        return [], [_left_out("skill_annotation", f"{path} has no list of that name")]
    out: list[Instruction] = []
    bad: list[str] = []
    for row in parse_rows(_Skill, listed):
        if isinstance(row, Broken):
            bad.append(row.why)
            continue
        text = _skill_text(row)
        for start, end in _spans(row.frame_duration):
            if 0 <= start < min(end, len(t_ns)) and text:
                stop = int(t_ns[end]) if end < len(t_ns) else None
                out.append(
                    Instruction(text=text, start_ns=int(t_ns[start]), end_ns=stop, kind="subtask")
                )
            else:
                bad.append(f"{text!r} in rows [{start}, {end}) of {len(t_ns)}")
    facts = [_left_out("skill_annotation", f"{len(bad)} rows, first: {bad[0]}")] if bad else []
    return out, facts


def _table(root: Path, label: Label) -> dict[int, str]:
    try:
        lines = lines_of(inside(root, label.table), label.table)
        rows = [parse_json(line, f"{label.table}:{i}") for i, line in lines]
        return {int(r[label.key]): str(r[label.text]) for r in rows}
    except (KeyError, TypeError, ValueError) as error:
        problem = f"{error!r}; expected {label.key} and {label.text} in each row"
        raise SourceError(Code.UNREADABLE, problem, where=label.table) from error


def _label_runs(
    rows: TableRows, t_ns: Clock, label: Label, texts: dict[int, str]
) -> list[Instruction]:
    entries = rows.matrix(label.column)
    on = {int(i) for i in np.unique(entries) if i >= 0}
    if unknown := sorted(on - set(texts)):
        problem = f"entries {unknown[:5]} are not in {label.table} of {len(texts)}"
        raise SourceError(Code.BAD_ANNOTATION, problem, where=f"{rows.where}:{label.column}")
    by_text: dict[str, list[int]] = {}
    for index in sorted(on):
        by_text.setdefault(texts[index], []).append(index)
    out = []
    for text, indices in by_text.items():
        is_on: npt.NDArray[np.bool_] = np.asarray(np.isin(entries, indices).any(axis=1))
        for start, end in _runs(is_on) if text.strip() else ():
            stop = int(t_ns[end]) if end < len(t_ns) else None
            out.append(
                Instruction(text=text, start_ns=int(t_ns[start]), end_ns=stop, kind="subtask")
            )
    return sorted(out, key=lambda i: (i.start_ns, i.text))


def _runs(mask: npt.NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """[start, end) of every run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


def _skill_text(skill: _Skill) -> str:
    objects = ", ".join(dict.fromkeys(_names(skill.object_id)))
    words = ", ".join(t.strip() for t in skill.skill_description if t.strip())
    return f"{words}: {objects}" if words and objects else words


def _names(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _names(item)


def _spans(frames: Any) -> list[tuple[int, int]]:
    """One pair, or a list of pairs where a skill was taken up again."""
    return [frames] if isinstance(frames[0], int) else list(frames)


def _left_out(what: str, why: str) -> Fact:
    return fact(f"labels.{what}", "left out", Certainty.VERIFIED, why)
