"""The labels of HoloAssist, and the episodes that are cut by them.

The labels of HoloAssist: one object a session, with narration, coarse and fine actions and talk.

Checked on all 1,758 real sessions: 12,542 coarse actions, 149,253 fine ones, five of which do not end after they start. Values
that mean nothing are written "none", at times mistyped; an adjective may be an empty list. Times are seconds of the video.

Labels to episodes: which stretch of a session, and what is said of it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from adapters.containers.json_rows import (
    Broken,
    JsonRow,
    Seconds,
    Text,
    Uid,
    members,
    parse,
    parse_rows,
)
from adapters.containers.video_clip import Clip, cut
from schemas.episode import Instruction
from schemas.errors import Code
from schemas.fact import Certainty, Fact, fact
from schemas.rate import NS_PER_S

# -- labels --------------------------------------------------------------------------------------------------------

NARRATION, COARSE, FINE = "Narration", "Coarse grained action", "Fine grained action"
CORRECT = "Correct Action"
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


# -- segments ------------------------------------------------------------------------------------------------------

SOURCE = "HoloAssist's annotators"
KINDS = ("coarse", "fine")


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelText:
    """What is said over [start_s, end_s) of the video; `kind` as in `schemas.episode.Instruction`."""

    kind: str
    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HoloAssistSegment:
    """One episode: where it is, what is said, what is known of it, and whether it was done right."""

    clip: Clip
    texts: tuple[LabelText, ...] = ()
    facts: tuple[Fact, ...] = ()
    success: bool | None = None


def segments_of(labels: HoloAssistLabels, kind: str, path: str) -> Iterator[HoloAssistSegment]:
    """`<session>/<kind>/<event id>`, in file order; a stretch beyond 300 s in windows; what does not hold with its problem."""
    seen: Counter[str] = Counter()
    for event in labels.coarse if kind == "coarse" else labels.fine:
        name = f"{labels.session}/{kind}/{event.id}"
        seen[name] += 1
        name += f".{seen[name]}" if seen[name] > 1 else ""  # z031-june-22-22-espresso has 147 twice
        if not event.holds:
            message = f"{event.label} from {event.span} does not end after it starts"
            yield HoloAssistSegment(clip=Clip(episode_id=name).broken(Code.BAD_ANNOTATION, message))
            continue
        start, end = float(event.start), float(event.end)
        whole = Clip(
            episode_id=name, path=path, start_s=start, end_s=end, text=sentence(event)[:2_000]
        )
        for clip in cut(whole):
            yield _segment(labels, event, clip)
    for position, why in labels.broken:
        clip = Clip(episode_id=f"{labels.session}/{kind}/row {position}")
        yield HoloAssistSegment(clip=clip.broken(Code.BAD_ANNOTATION, why))


def _segment(labels: HoloAssistLabels, event: HoloAssistEvent, clip: Clip) -> HoloAssistSegment:
    start, end = clip.start_s, clip.end_s or clip.start_s
    facts = [fact("session_task", labels.task, Certainty.DOCUMENTED, SOURCE)] if labels.task else []
    texts = []
    if event.label == COARSE:
        within = _over(labels.fine, start, end)
        texts += [_label_text("subtask", sentence(e), e, start, end) for e in within if e.holds]
        facts += [*_counted(within), *_left_out(labels.fine, start, end)]
        success = None
    else:
        within = [event]
        texts += [
            _label_text("summary", sentence(e), e, start, end)
            for e in _over(labels.coarse, start, end)
        ]
        facts += _counted(within)
        success = correctness(event)
    facts += _mistakes(within)
    texts.append(LabelText(kind="summary", text=labels.narration, start_s=start, end_s=end))
    present = tuple(t for t in texts if t.text)
    return HoloAssistSegment(clip=clip, texts=present, facts=tuple(facts), success=success)


def _over(events: Sequence[HoloAssistEvent], start_s: float, end_s: float) -> list[HoloAssistEvent]:
    """Those that hold and share time with [start_s, end_s)."""
    return [e for e in events if e.holds and e.start < end_s and e.end > start_s]


def _label_text(
    kind: str, text: str, event: HoloAssistEvent, start_s: float, end_s: float
) -> LabelText:
    start, end = max(float(event.start), start_s), min(float(event.end), end_s)
    return LabelText(kind=kind, text=text, start_s=start, end_s=end)


def _counted(events: Sequence[HoloAssistEvent]) -> Iterator[Fact]:
    """How many actions were right, in the annotators' words."""
    if events:
        counts = Counter(e.attribute("Action Correctness") or "not said" for e in events)
        value = "; ".join(f"{count} {what}" for what, count in sorted(counts.items()))
        yield fact("action_correctness", value, Certainty.DOCUMENTED, SOURCE)


def _mistakes(events: Sequence[HoloAssistEvent]) -> Iterator[Fact]:
    for number, event in enumerate(e for e in events if correctness(e) is False):
        why = event.attribute("Incorrect Action Explanation")
        value = f"{event.span}, {sentence(event)}: {event.attribute('Action Correctness')}"
        value = f"{value}: {why[:300]}" if why else value
        yield fact(f"mistake.{number}", value, Certainty.DOCUMENTED, SOURCE)


def _left_out(fine: Sequence[HoloAssistEvent], start_s: float, end_s: float) -> Iterator[Fact]:
    spans = [e.span for e in fine if not e.holds and start_s <= e.start < end_s]
    if spans:
        value = f"{len(spans)} fine actions do not end after they start: {', '.join(spans)}"
        yield fact("subtasks_left_out", value, Certainty.VERIFIED, "the label file")


def instructions(texts: Sequence[LabelText], start_s: float, end_s: float) -> Iterator[Instruction]:
    """What is said within [start_s, end_s) of the video, from its start on; the whole of it has no times."""
    for item in texts:
        start, end = max(item.start_s, start_s), min(item.end_s, end_s)
        if end <= start:
            continue
        first, last = (round((s - start_s) * NS_PER_S) for s in (start, end))
        is_whole = item.kind != "subtask"
        yield Instruction(
            text=item.text,
            start_ns=0 if is_whole else first,
            end_ns=None if is_whole else last,
            kind=item.kind,
        )


def count(labels: HoloAssistLabels | Broken) -> Counter[str]:
    """What a session's labels give, and what in them does not hold."""
    if isinstance(labels, Broken):
        return Counter(sessions_that_do_not_hold=1)
    counts = Counter(correctness(e) for e in labels.fine)
    return Counter(
        sessions_labelled=1,
        coarse=len(labels.coarse),
        fine=len(labels.fine),
        fine_correct=counts[True],
        fine_wrong=counts[False],
        coarse_that_do_not_hold=sum(not e.holds for e in labels.coarse),
        fine_that_do_not_hold=sum(not e.holds for e in labels.fine),
        fine_outside_coarse=sum(
            not _over(labels.coarse, e.start, e.end) for e in labels.fine if e.holds
        ),
        rows_that_do_not_hold=len(labels.broken),
        events=labels.num_events,
    )
