"""Ego4D's annotation files as typed rows: ego4d.json, narrations in both forms, fho_main.json, goalstep_*.json.

Layouts: EGO4D/docs:docs/data/annotations-schemas.md (documented) and real rows (verified). Every time is in seconds
of the canonical video's container PTS; the frame columns have another base in each file and are never read.

Lists of rows stay raw here and are checked one by one: `adapters.containers.json_rows` says why.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import AliasChoices, Field

from adapters.containers.json_rows import (
    LONGEST_UID,
    Broken,
    JsonRow,
    Model,
    Seconds,
    Text,
    Uid,
    members,
    parse,
    parse_rows,
)


class Ego4dSpan(JsonRow):
    start_sec: Seconds
    end_sec: Seconds


class VideoMetadata(JsonRow):
    fps: Seconds | None = None
    video_start_sec: Seconds | None = None
    video_duration_sec: Seconds | None = None


class Ego4dVideo(JsonRow):
    """One entry of ego4d.json `videos`."""

    video_uid: Uid
    duration_sec: Seconds | None = None
    video_metadata: VideoMetadata = VideoMetadata()
    fb_participant_id: int | str | None = None
    physical_setting_name: Text | None = None
    is_stereo: bool = False
    redacted_intervals: tuple[Ego4dSpan, ...] | None = None
    split_em: Any = None  # of each benchmark: a word, or null; listing.py
    split_av: Any = None
    split_fho: Any = None

    @property
    def bounds_s(self) -> tuple[float, float]:
        """[start, end) of the video stream in container seconds; the end is infinite when unknown.

        Goal-Step's own `end_time` of whole videos equals video_start_sec + duration (verified on real rows).
        """
        start = max(self.video_metadata.video_start_sec or 0.0, 0.0)
        length = self.video_metadata.video_duration_sec or self.duration_sec
        return float(start), float(start + length) if length else math.inf

    @property
    def redacted_s(self) -> tuple[tuple[float, float], ...]:
        return tuple((float(s.start_sec), float(s.end_sec)) for s in self.redacted_intervals or ())


class Ego4dClip(JsonRow):
    """One entry of ego4d.json `clips`: clips/<clip_uid>.mp4 shows [start, end) of its video."""

    clip_uid: Uid
    video_uid: Uid
    video_start_sec: Seconds
    video_end_sec: Seconds


class Narration(JsonRow):
    """A sentence about one instant. The second spelling is that of all_narrations_redacted.json."""

    time_s: Seconds = Field(validation_alias=AliasChoices("timestamp_sec", "time"))
    text: Text = Field(validation_alias=AliasChoices("narration_text", "text"))
    is_summary: bool = False
    # Names the annotator's pass, NOT the narration: all rows of a pass share it (verified on real rows).
    annotation_uid: str = Field(
        default="", validation_alias=AliasChoices("annotation_uid", "_annotation_uid")
    )


class NarratedAction(JsonRow):
    start_sec: Seconds
    end_sec: Seconds
    narration_text: Text | None = None
    is_valid_action: bool
    is_rejected: bool = False
    is_invalid_annotation: bool = False


class AnnotatedInterval(JsonRow):
    redacted: bool = False
    narrated_actions: list[Any] | None = None


class FhoVideo(JsonRow):
    video_uid: Uid
    annotated_intervals: list[Any] | None = None


class Ego4dStep(JsonRow):
    """A step or substep of Goal-Step; one real step lacks the three is_* keys."""

    start_time: Seconds
    end_time: Seconds
    step_description: Text = ""
    is_continued: bool | None = None
    is_procedural: bool | None = None
    is_relevant: str | None = None
    segments: list[Any] = Field(default_factory=list)


class GoalStepVideo(JsonRow):
    """The test split has neither times nor segments."""

    video_uid: Uid
    start_time: Seconds | None = None
    end_time: Seconds | None = None
    segments: list[Any] = Field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class NarrationPass:
    """All narrations of one video by one annotator, with their stable keys."""

    rows: tuple[tuple[str, Narration | Broken], ...]


def video_entries(path: Path, model: type[Model]) -> Iterator[tuple[str, Model | Broken]]:
    """(where, row) of each of the `videos` of a file, in order."""
    for where, raw in members(path):
        if where[0] == "videos" and len(where) == 2:
            yield "/".join(where), parse(model, raw)


def metadata_entries(path: Path) -> Iterator[tuple[str, Ego4dVideo | Ego4dClip | Broken]]:
    """(where, row) of each of the `videos` and `clips` of ego4d.json."""
    for where, raw in members(path, inside=("videos", "clips")):
        if len(where) == 2:
            at = "/".join(where)
            yield at, parse(Ego4dVideo, raw) if where[0] == "videos" else parse(Ego4dClip, raw)


def narration_entries(path: Path) -> Iterator[tuple[str, tuple[NarrationPass, ...] | Broken]]:
    """(video uid, its passes) from narration.json (keyed by uid) or all_narrations_redacted.json ("videos")."""
    for where, raw in members(path):
        if len(where[-1]) > LONGEST_UID:
            yield where[-1][:LONGEST_UID], Broken("the key is too long to be a video uid")
        elif isinstance(raw, dict):
            yield where[-1], narration_passes(raw)
        elif where[-1] not in ("version", "date", "description"):
            yield (
                where[-1],
                Broken(f"found a {type(raw).__name__}; expected the annotation passes of a video"),
            )


def narration_passes(entry: dict[str, Any]) -> tuple[NarrationPass, ...]:
    """The passes of one video's entry; either of the two passes of narration.json may be missing.

    Keys are `pass_1/00000` by position in the file. In the other form rows of several annotators lie in one list;
    their key is `all/00000` and `annotation_uid` distinguishes them.
    """
    if "narrations" in entry:
        by_annotator: dict[str, list[tuple[str, Narration | Broken]]] = {}
        for key, row in _keyed("all", entry):
            annotator = row.annotation_uid if isinstance(row, Narration) else ""
            by_annotator.setdefault(annotator, []).append((key, row))
        return tuple(NarrationPass(rows=tuple(rows)) for rows in by_annotator.values())
    names = sorted(name for name in entry if name.startswith("narration_pass_"))
    return tuple(
        NarrationPass(rows=tuple(_keyed(name.removeprefix("narration_"), entry[name])))
        for name in names
    )


def _keyed(name: str, holder: Any) -> list[tuple[str, Narration | Broken]]:
    raw = holder.get("narrations") if isinstance(holder, dict) else None
    rows = parse_rows(Narration, raw if isinstance(raw, list) else ())
    return [(f"{name}/{index:05d}", row) for index, row in enumerate(rows)]
