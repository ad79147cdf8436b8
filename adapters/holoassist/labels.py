"""The labels of HoloAssist: one object a session, with narration, coarse and fine actions and talk.

Checked on all 1,758 real sessions: 12,542 coarse actions, 149,253 fine ones, five of which do not end after they start. Values
that mean nothing are written "none", at times mistyped; an adjective may be an empty list. Times are seconds of the video.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from adapters.containers.json_rows import Broken, JsonRow, Seconds, Text, Uid, parse, parse_rows
from adapters.containers.json_stream import members

NARRATION, COARSE, FINE = "Narration", "Coarse grained action", "Fine grained action"
CORRECT, OTHERWISE = "Correct Action", "otherwise"
# "none", and what hands make of it: nonee, nnone, noneq, lnone, none., none none.
_NONE = re.compile(r"\W*\w?(none\W*)+\w?\W*", re.IGNORECASE)


class HoloAssistEvent(JsonRow):
    """Something that lasts from `start` to `end`, seconds."""

    id: int | Uid
    label: Text
    start: Seconds
    end: Seconds
    attributes: dict[str, Any] = Field(default_factory=dict)

    @property
    def holds(self) -> bool:
        return 0 <= self.start < self.end

    @property
    def span(self) -> str:
        return f"{self.start:.3f} to {self.end:.3f} s"

    def attribute(self, key: str) -> str:
        """An attribute as stripped text, underscores as spaces; "" where it is absent, empty or none."""
        value = self.attributes.get(key)
        if not isinstance(value, str) or _NONE.fullmatch(value):
            return ""
        return value.replace("_", " ").strip()[:20_000]


class HoloAssistSession(JsonRow):
    """One recording's labels."""

    video_name: Uid
    task: Text = Field(default="", validation_alias="taskType")
    events: list[Any] = Field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class HoloAssistLabels:
    """The events of a session in file order; a row that is no event is a `Broken` with its position."""

    session: str
    task: str
    narration: str
    coarse: tuple[HoloAssistEvent, ...]
    fine: tuple[HoloAssistEvent, ...]
    broken: tuple[tuple[int, str], ...]
    num_events: int


def labels_in(path: Path) -> Iterator[HoloAssistLabels | Broken]:
    """Every session of a file: a list of them, an object of them, or a single one.

    Raises:
        ConfigError: no JSON.
    """
    single: dict[str, Any] = {}
    for where, raw in members(path, inside=()):
        if isinstance(raw, dict) and "video_name" in raw:
            yield labels_of(raw)
        else:
            single[where[0]] = raw
    if "video_name" in single:
        yield labels_of(single)
    elif single:
        yield Broken(f"{len(single)} entries without a video_name")


def labels_of(raw: Any) -> HoloAssistLabels | Broken:
    """One session, checked row by row."""
    session = parse(HoloAssistSession, raw)
    if isinstance(session, Broken):
        return session
    rows = parse_rows(HoloAssistEvent, session.events)
    events = [row for row in rows if isinstance(row, HoloAssistEvent)]
    narrations = [e.attribute("Long form description") for e in events if e.label == NARRATION]
    return HoloAssistLabels(
        session=session.video_name,
        task=session.task,
        narration=" ".join(text for text in narrations if text),
        coarse=tuple(e for e in events if e.label == COARSE),
        fine=tuple(e for e in events if e.label == FINE),
        broken=tuple((k, row.why) for k, row in enumerate(rows) if isinstance(row, Broken)),
        num_events=len(rows),
    )


def sentence(event: HoloAssistEvent) -> str:
    """The sentence of a coarse action, else verb, adjective, noun and adverbial of an action, as far as they are said."""
    words = (event.attribute(key) for key in ("Verb", "Adjective", "Noun", "adverbial"))
    return event.attribute("Action sentence") or " ".join(word for word in words if word)


def correctness(event: HoloAssistEvent) -> bool | None:
    """Whether a fine action was right; None where the annotators say neither."""
    correctness_text = event.attribute("Action Correctness")
    if correctness_text == CORRECT:
        return True
    return False if correctness_text.startswith("Wrong Action") else None
