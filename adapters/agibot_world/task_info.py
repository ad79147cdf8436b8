"""AgiBot World task_info: which episodes there are, what was done in them, and which of them the community lists as defective.

AgiBot World task_info: which episodes there are and what was done in them, checked.

task_info/task_{tid}.json is a list of episodes (document `34328/AgiBot_eef_extraction:agibot_world_itrd.md` §1.2.1, after
the authors' own):
    {"episode_id": 648649, "task_name": "...", "init_scene_text": "...",
     "label_info": {"action_config": [{"start_frame": 8, "end_frame": 218, "action_text": "...", "skill": "Pick"}]}}
Challenge and simulation variants add `english_action_text`; alpha had `label_info.key_frame` (AgiBot-World issues 33 and
76: some mark a failed try plus its recovery).

AgiBot World: community lists of defective beta episodes, `34328/AgiBot_eef_extraction:filter_store/*.jsonl`.

Inconsistent_frams_length.jsonl  {"task", "episode"}                  video, state and extrinsic counts differ
camera_extrinsic.jsonl           {..., "reason", "missing_ratio", ..} end-effector projects outside the picture
still_frames.jsonl               {..., "start_frame", "end_frame"}    the rows worth keeping of a frozen episode
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adapters.agibot_world.proprio import DOC, fact
from schemas import json_text
from schemas.document import DocumentError
from schemas.episode import Instruction
from schemas.errors import Code, ConfigError, SourceError
from schemas.fact import Certainty, Fact
from schemas.invalid import invalid, reason
from schemas.json_text import parse_json
from schemas.regular_file import file_stamp, read_regular

# -- task info -----------------------------------------------------------------------------------------------------

MAX_ID = 10**18  # ids become folder names


class Checked(BaseModel):
    """Fields we name are checked; ones we do not know are passed over, since releases differ."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class ActionStep(Checked):
    """One step of a task. Frames count rows of the episode; see `instructions_of` for the span rule."""

    start_frame: int
    end_frame: int
    action_text: str = Field(default="", max_length=10_000)
    english_action_text: str | None = Field(default=None, max_length=10_000)

    @property
    def text(self) -> str:
        return (self.english_action_text or self.action_text).strip()


class LabelInfo(Checked):
    action_config: tuple[ActionStep, ...] = Field(default=(), max_length=10_000)
    key_frame: Any = None  # alpha only; its layout is not documented


class EpisodeInfo(Checked):
    """One entry of task_info."""

    episode_id: int = Field(ge=0)
    task_name: str = Field(default="", max_length=10_000)
    label_info: LabelInfo = LabelInfo()


def read_json(path: Path) -> Any:
    """The parsed file; the largest beta task has some thousands of episodes, a few MiB.

    Raises:
        SourceError: MISSING_META (no file), TOO_LARGE, UNREADABLE (not JSON, not UTF-8, nested absurdly deep).
    """
    try:
        return json_text.read_json(
            path, limits=json_text.DOCUMENT, missing=Code.MISSING_META, allow_nan=True
        )
    except DocumentError as error:
        raise SourceError(Code.UNREADABLE, str(error), where=path.name) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskInfo:
    """One task_info file: raw entries by episode id, and what is wrong by episode id or `entry_<position>`."""

    entries: dict[int, dict[str, Any]]
    faults: dict[str, str]


def task_info(path: Path) -> TaskInfo:
    """The file, parsed; the last few are kept, because a worker asks once per episode.

    Raises:
        SourceError: as `read_json`; BAD_ANNOTATION when it is not a list.
    """
    return _task_info(path, file_stamp(path, missing=Code.MISSING_META))


@lru_cache(maxsize=4)
def _task_info(path: Path, stamp: tuple[int, ...]) -> TaskInfo:
    """`stamp` only keys the cache."""
    raw = read_json(path)
    if not isinstance(raw, list):
        problem = f"found a {type(raw).__name__}; expected a list of episodes"
        raise SourceError(Code.BAD_ANNOTATION, problem, where=path.name)
    entries: dict[int, dict[str, Any]] = {}
    faults: dict[str, str] = {}
    for at, entry in enumerate(raw):
        number = entry.get("episode_id") if isinstance(entry, dict) else None
        if type(number) is not int or not 0 <= number < MAX_ID:
            faults[f"entry_{at}"] = f"episode_id {str(number)[:40]}; expected a whole number"
        elif entries.setdefault(number, entry) != entry:
            faults[str(number)] = "two different entries for this episode"
    return TaskInfo(entries=entries, faults=faults)


def episode_info(path: Path, episode: int) -> EpisodeInfo:
    """The checked entry of one episode.

    Raises:
        SourceError: as `task_info`; MISSING_META when it is not listed; BAD_ANNOTATION when a field is wrong.
    """
    entry = task_info(path).entries.get(episode)
    where = f"{path.name}#{episode}"
    if entry is None:
        raise SourceError(Code.MISSING_META, "task_info does not list this episode", where=where)
    try:
        return EpisodeInfo.model_validate(entry)
    except ValidationError as error:
        raise SourceError(Code.BAD_ANNOTATION, invalid(error), where=where) from error


def instructions_of(
    info: EpisodeInfo, t_ns: npt.NDArray[np.int64]
) -> tuple[tuple[Instruction, ...], list[Fact]]:
    """The task for the whole episode and one instruction per step.

    Steps are half-open [start_frame, end_frame): consecutive ones share a number [I]. A step past the end is cut, one
    that is wholly outside or without text is left out, overlapping ones are kept; each leaves a fact.

    Raises:
        SourceError: BAD_ANNOTATION for a step that ends before it starts.
    """
    task = info.task_name.strip()
    out = [Instruction(text=task)] if task else []
    num_rows, notes, last_end = len(t_ns), [], 0
    for k, step in enumerate(info.label_info.action_config):
        span = f"step {k} [{step.start_frame}, {step.end_frame})"
        if step.end_frame < step.start_frame:
            problem = f"the step {span} ends before it starts"
            raise SourceError(Code.BAD_ANNOTATION, problem, where=f"episode {info.episode_id}")
        start, end = max(step.start_frame, 0), min(step.end_frame, num_rows)
        if start >= end or not step.text:
            notes.append(f"{span} left out: {'no row' if step.text else 'no text'}")
            continue
        if (start, end) != (step.start_frame, step.end_frame):
            notes.append(f"{span} cut to {num_rows} rows")
        if start < last_end:
            notes.append(f"{span} overlaps the step before")
        last_end = max(last_end, end)
        end_ns = int(t_ns[end]) if end < num_rows else None
        start_ns = int(t_ns[start])
        out.append(Instruction(text=step.text, start_ns=start_ns, end_ns=end_ns, kind="subtask"))
    shared = "consecutive steps share a frame number in the document's example"
    facts = [fact("subtask_span", "half-open", Certainty.INFERRED, f"{DOC}: {shared}")]
    if notes:
        text = "; ".join(notes[:10])
        facts.append(fact("subtask_faults", text, Certainty.VERIFIED, "task_info"))
    if info.label_info.key_frame is not None:
        text = str(info.label_info.key_frame)[:1000]
        source = "OpenDriveLab/AgiBot-World issues 33, 76: some mark a failed try and its recovery"
        facts.append(fact("key_frame", text, Certainty.UNVERIFIED, source))
    return tuple(out), facts


# -- defects -------------------------------------------------------------------------------------------------------

MAX_LIST_BYTES = 64 << 20


class Defect(Checked):
    """One line of a defect list (`34328/AgiBot_eef_extraction:filter_store/*.jsonl`): ids are strings there."""

    task: str
    episode: str
    reason: str = ""
    start_frame: int | None = None
    end_frame: int | None = None


def read_defects(folder: Path) -> dict[tuple[str, str], tuple[str | None, tuple[Fact, ...]]]:
    """(task, episode) -> (why it is known to be defective or None, facts), from every *.jsonl in `folder`.

    A line with a frame range (still_frames.jsonl) says which part to keep: a fact, since a stage measures stillness.

    Raises:
        ConfigError: no such folder, no list in it, or a line that is not of the lists' form.
    """
    lists = sorted(folder.glob("*.jsonl"))
    if not lists:
        raise ConfigError(f"no defect list (*.jsonl) in {folder}")
    out: dict[tuple[str, str], tuple[str | None, tuple[Fact, ...]]] = {}
    for path in lists:
        for number, line in enumerate(_text(path).splitlines(), 1):
            if not line.strip():
                continue
            try:
                defect = Defect.model_validate(parse_json(line))
            except ValueError as error:
                raise ConfigError(f"{path.name}:{number}: {reason(error, Defect)}") from error
            why, facts = out.get((defect.task, defect.episode), (None, ()))
            if defect.start_frame is None:
                why = f"{defect.reason or 'listed'} ({path.name})"
            else:
                facts += (_kept_range(defect, path.name),)
            out[defect.task, defect.episode] = (why, facts)
    return out


def _text(path: Path) -> str:
    try:
        return read_regular(path, max_bytes=MAX_LIST_BYTES).decode("utf-8")
    except (SourceError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", where=str(path)) from error


def _kept_range(defect: Defect, name: str) -> Fact:
    return Fact(
        name="moving_frames",
        value=f"[{defect.start_frame}, {defect.end_frame}]",
        certainty=Certainty.THIRD_PARTY,
        source=f"34328/AgiBot_eef_extraction:filter_store/{name}",
        is_for_actions=False,
    )
