"""Ego4D annotations to segments in SECONDS of the canonical video. Pure: no files, no clock.

Nothing vanishes: a row becomes a segment, a segment with a `problem`, or a count in `left_out`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise

from adapters.containers.json_rows import Broken, parse, parse_rows
from adapters.containers.video_clip import LONGEST_WHOLE_S, parts, windows
from adapters.ego4d.annotations import (
    AnnotatedInterval,
    Ego4dStep,
    FhoVideo,
    GoalStepVideo,
    NarratedAction,
    Narration,
    NarrationPass,
)
from schemas.errors import Code

# EgoVLP: mean over all videos of the mean gap between narrations (paper; third party).
ALPHA_S = 4.9
# EgoVLP's segments last about 0.7 s, too short to learn from (format page video.md §2).
SHORTEST_NARRATION_S = 1.0
LONGEST_NARRATION_S = 8.0
# Goal-Step writes 5 decimals, its video bounds have more: a difference below is rounding, not a fault.
ROUNDING_S = 1e-5

Bounds = tuple[float, float]

# Seen in real rows: "#C C", "#c", "#c c", "#cC c", "#Cc C", "#CC", "#c- c".
_WEARER = re.compile(r"\s*#\s*[cC]{1,2}(?![a-zA-Z])")
_OTHER_PERSON = re.compile(r"\s*#\s*[oO](?![a-zA-Z])")
_UNSURE = re.compile(r"#\s*unsure", re.IGNORECASE)
_SUMMARY = re.compile(r"\s*#\s*summary", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ego4dSegment:
    """[start_s, end_s) of a video with its raw text; `key` is its id within the video."""

    key: str
    start_s: float
    end_s: float
    text: str = ""
    problem: tuple[str, str] | None = None  # (code, message)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotatedSegments:
    """What the annotations of one video gave."""

    segments: tuple[Ego4dSegment, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)  # rows that are no segment, by reason
    faults: Mapping[str, int] = field(default_factory=dict)  # known irregularities, all dealt with


def mean_gap_s(times_s: Iterable[float]) -> float:
    """beta of EgoVLP: mean gap of the narrations of one video and pass; ALPHA_S when fewer than two (inferred)."""
    times = sorted(times_s)
    return (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else ALPHA_S


def egovlp_interval(time_s: float, beta_s: float) -> Bounds:
    """t -/+ beta / (2 alpha), the published formula (showlab/EgoVLP:README.md, code; checked on an EgoClip row)."""
    half = beta_s / (2 * ALPHA_S)
    return time_s - half, time_s + half


def narration_interval(time_s: float, beta_s: float, next_s: float | None) -> Bounds:
    """EgoVLP's interval with its length clamped to [1, 8] s about t, ended by the next narration.

    `next_s` is the next strictly later instant of the same pass. The order (length first, neighbour last) is what
    makes an interval shorter than 1 s possible: at worst [t - 0.5, next).
    """
    start, end = egovlp_interval(time_s, beta_s)
    half = min(max(end - start, SHORTEST_NARRATION_S), LONGEST_NARRATION_S) / 2
    end = time_s + half
    return time_s - half, end if next_s is None else min(end, next_s)


def why_no_instruction(row: Narration) -> str | None:
    """Why a narration is no instruction to the camera wearer; None when it is one (tag #C)."""
    if row.is_summary or _SUMMARY.match(row.text):
        return "summary"
    if _UNSURE.search(row.text):
        return "unsure"
    if _WEARER.match(row.text):
        return None
    return "other_person" if _OTHER_PERSON.match(row.text) else "untagged"


def narration_segments(passes: Iterable[NarrationPass], bounds: Bounds) -> AnnotatedSegments:
    """One segment per narration of the camera wearer; beta and the next narration from ALL of its pass."""
    segments: list[Ego4dSegment] = []
    left_out: Counter[str] = Counter()
    for one in passes:
        times = sorted(
            {r.time_s for _, r in one.rows if isinstance(r, Narration) and not r.is_summary}
        )
        following = dict(pairwise(times))
        beta = mean_gap_s(
            r.time_s for _, r in one.rows if isinstance(r, Narration) and not r.is_summary
        )
        for name, row in one.rows:
            key = f"narration/{name}"
            if isinstance(row, Broken):
                segments.append(_broken(key, row))
            elif why := why_no_instruction(row):
                left_out[f"narrations_{why}"] += 1
            else:
                start, end = narration_interval(row.time_s, beta, following.get(row.time_s))
                segment = Ego4dSegment(key=key, start_s=start, end_s=end, text=row.text)
                segments.append(_within(segment, bounds))
    return AnnotatedSegments(segments=tuple(segments), left_out=left_out)


def fho_segments(video: FhoVideo, bounds: Bounds) -> AnnotatedSegments:
    """The 8 s windows [start_sec, end_sec) of the narrated actions that FHO itself counts as valid."""
    segments: list[Ego4dSegment] = []
    left_out: Counter[str] = Counter()
    for i, interval in enumerate(parse_rows(AnnotatedInterval, video.annotated_intervals)):
        if isinstance(interval, Broken):
            segments.append(_broken(f"fho/{i}", interval))
            continue
        for j, action in enumerate(parse_rows(NarratedAction, interval.narrated_actions)):
            key = f"fho/{i}.{j}"
            if isinstance(action, Broken):
                segments.append(_broken(key, action))
            elif why := _why_not_kept(interval, action):
                left_out[f"fho_{why}"] += 1
            else:
                text = action.narration_text or ""
                segment = Ego4dSegment(
                    key=key, start_s=action.start_sec, end_s=action.end_sec, text=text
                )
                segments.append(_within(segment, bounds))
    return AnnotatedSegments(segments=tuple(segments), left_out=left_out)


def goalstep_segments(video: GoalStepVideo, bounds: Bounds) -> AnnotatedSegments:
    """Steps `goalstep/i` and substeps `goalstep/i.j`, clamped to the video.

    Overlapping and out-of-order neighbours are kept as they are: each is a segment of its own.
    """
    segments: list[Ego4dSegment] = []
    for i, step in enumerate(parse_rows(Ego4dStep, video.segments)):
        segments.append(_step(f"goalstep/{i}", step, bounds))
        for j, raw in enumerate(step.segments if isinstance(step, Ego4dStep) else ()):
            segments.append(_step(f"goalstep/{i}.{j}", parse(Ego4dStep, raw), bounds))
    return AnnotatedSegments(segments=tuple(segments), faults=goalstep_faults(video))


def goalstep_faults(video: GoalStepVideo) -> Counter[str]:
    """Counts of the known irregularities of Goal-Step, for the survey (format page video.md §2)."""
    steps = [s for s in parse_rows(Ego4dStep, video.segments) if isinstance(s, Ego4dStep)]
    substeps = [
        s
        for step in steps
        for s in parse_rows(Ego4dStep, step.segments)
        if isinstance(s, Ego4dStep)
    ]
    start = video.start_time if video.start_time is not None else 0.0
    end = video.end_time if video.end_time is not None else float("inf")
    pairs = list(pairwise(steps))
    counts = Counter(
        goalstep_grouped_videos=video.video_uid.startswith("grp-"),
        goalstep_untimed_videos=video.start_time is None,
        goalstep_int_start_times=sum(isinstance(s.start_time, int) for s in steps + substeps),
        goalstep_int_end_times=sum(isinstance(s.end_time, int) for s in steps + substeps),
        goalstep_overlapping_steps=sum(b.start_time < a.end_time for a, b in pairs),
        goalstep_steps_out_of_order=sum(b.start_time < a.start_time for a, b in pairs),
        goalstep_steps_outside_goal=sum(
            s.start_time < start - ROUNDING_S or s.end_time > end + ROUNDING_S for s in steps
        ),
        goalstep_steps_without_flags=sum(s.is_relevant is None for s in steps),
        goalstep_steps_over_300_s=sum(
            s.end_time - s.start_time > LONGEST_WHOLE_S for s in steps + substeps
        ),
    )
    return +counts


def window_segments(bounds: Bounds, breaks_s: Iterable[float] = ()) -> tuple[Ego4dSegment, ...]:
    """`window/0000` ... over a video without annotations."""
    return tuple(
        Ego4dSegment(key=f"window/{k:04d}", start_s=start, end_s=end)
        for k, (start, end) in enumerate(windows(*bounds, breaks_s=breaks_s))
    )


def cut_long(segment: Ego4dSegment) -> tuple[Ego4dSegment, ...]:
    """The segment itself up to 300 s, else windows of at most 60 s with its text and `/0000` ... on its key."""
    spans = parts(segment.start_s, segment.end_s)
    if segment.problem or len(spans) == 1:
        return (segment,)
    return tuple(
        replace(segment, key=f"{segment.key}/{k:04d}", start_s=start, end_s=end)
        for k, (start, end) in enumerate(spans)
    )


def mark_redacted(segment: Ego4dSegment, redacted_s: Iterable[Bounds]) -> Ego4dSegment:
    """The segment with a problem when it meets a redacted interval: those frames are blank (documented)."""
    for start, end in redacted_s if segment.problem is None else ():
        if segment.start_s < end and segment.end_s > start:
            message = f"[{segment.start_s:.3f}, {segment.end_s:.3f}) s meets redacted [{start:.3f}, {end:.3f}) s"
            return replace(segment, problem=(Code.REDACTED.value, message))
    return segment


def _why_not_kept(interval: AnnotatedInterval, action: NarratedAction) -> str | None:
    for why, holds in (
        ("redacted", interval.redacted),
        ("not_valid", not action.is_valid_action),
        ("rejected", action.is_rejected),
        ("invalid_annotation", action.is_invalid_annotation),
    ):
        if holds:
            return why
    return None


def _step(key: str, step: Ego4dStep | Broken, bounds: Bounds) -> Ego4dSegment:
    if isinstance(step, Broken):
        return _broken(key, step)
    segment = Ego4dSegment(
        key=key, start_s=step.start_time, end_s=step.end_time, text=step.step_description
    )
    return _within(segment, bounds)


def _within(segment: Ego4dSegment, bounds: Bounds) -> Ego4dSegment:
    """Clamped to the video; with a problem when nothing is left, or there was nothing to begin with."""
    start, end = max(segment.start_s, bounds[0]), min(segment.end_s, bounds[1])
    if start < end:
        return replace(segment, start_s=float(start), end_s=float(end))
    span = f"[{segment.start_s}, {segment.end_s}) s"
    why = (
        f"the segment {span} does not end after it starts"
        if segment.end_s <= segment.start_s
        else f"the segment {span} is outside the video, [{bounds[0]}, {bounds[1]}) s"
    )
    return replace(segment, problem=(Code.BAD_ANNOTATION.value, why))


def _broken(key: str, row: Broken) -> Ego4dSegment:
    return Ego4dSegment(
        key=key, start_s=0.0, end_s=0.0, problem=(Code.BAD_ANNOTATION.value, row.why)
    )
