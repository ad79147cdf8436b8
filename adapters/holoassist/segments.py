"""Labels to episodes: which stretch of a session, and what is said of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from adapters.containers.json_rows import Broken
from adapters.containers.video_clip import Clip, cut
from adapters.holoassist.labels import (
    COARSE,
    HoloAssistEvent,
    HoloAssistLabels,
    correctness,
    sentence,
)
from schemas.episode import Instruction
from schemas.errors import Code
from schemas.fact import Certainty, Fact, fact
from schemas.rate import NS_PER_S

SOURCE = "HoloAssist's annotators"
KINDS = ("coarse", "fine")


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What is said over [start_s, end_s) of the video; `kind` as in `schemas.episode.Instruction`."""

    kind: str
    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HoloAssistSegment:
    """One episode: where it is, what is said, what is known of it, and whether it was done right."""

    clip: Clip
    texts: tuple[Told, ...] = ()
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
        texts += [_told("subtask", sentence(e), e, start, end) for e in within if e.holds]
        facts += [*_counted(within), *_left_out(labels.fine, start, end)]
        success = None
    else:
        within = [event]
        texts += [
            _told("summary", sentence(e), e, start, end) for e in _over(labels.coarse, start, end)
        ]
        facts += _counted(within)
        success = correctness(event)
    facts += _mistakes(within)
    texts.append(Told(kind="summary", text=labels.narration, start_s=start, end_s=end))
    present = tuple(t for t in texts if t.text)
    return HoloAssistSegment(clip=clip, texts=present, facts=tuple(facts), success=success)


def _over(events: Sequence[HoloAssistEvent], start_s: float, end_s: float) -> list[HoloAssistEvent]:
    """Those that hold and share time with [start_s, end_s)."""
    return [e for e in events if e.holds and e.start < end_s and e.end > start_s]


def _told(kind: str, text: str, event: HoloAssistEvent, start_s: float, end_s: float) -> Told:
    start, end = max(float(event.start), start_s), min(float(event.end), end_s)
    return Told(kind=kind, text=text, start_s=start, end_s=end)


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


def instructions(texts: Sequence[Told], start_s: float, end_s: float) -> Iterator[Instruction]:
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
