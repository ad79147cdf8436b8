"""One segment from its pictures to a row of `captions`: describe, instruct, sample again where it matters, check."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ingest.check import Verdict
from ingest.corpus.layout import video_file
from ingest.curation.captions import checks
from ingest.curation.captions.answers import Description, Instruction, joined, one_line_of
from ingest.curation.captions.checks import CheckResult
from ingest.curation.captions.protocol import (
    UNSAID,
    Backend,
    CaptionOutcome,
    DescribeRequest,
    InstructRequest,
    Reply,
    Segment,
)
from ingest.curation.captions.settings import CaptionSettings
from ingest.curation.captions.sheet import Picture, Sheet, digest_of, segment_sheets
from ingest.curation.measurements.english import is_english
from ingest.curation.measurements.view import open_view
from ingest.storage.rooted import item_within
from schemas.committed_rows import CaptionRow
from schemas.episode import SIDES
from schemas.errors import SourceError

SAMPLES = 3
BLANK_STD = 2.0  # of 255; the noise of a compressed black picture (our choice)
BLANK = "the pictures are of one colour"
HAND_VALIDITY = "observation.hand_validity"


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionWork:
    """A segment and what of the catalog its caption needs. `row`: the episode's."""

    corpus: str
    row: Mapping[str, Any]
    features: Mapping[str, Any]
    rate_hz: float
    segment: Segment


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Seen:
    """What the pictures of a segment are; no sheet for a backend that looks at none."""

    sheets: Sequence[Sheet] = ()
    pictures: Sequence[Picture] = ()
    camera: str | None = None
    hand_shares: Mapping[str, float] | None = None

    @property
    def is_blank(self) -> bool:
        """Nothing but one colour anywhere: a model that is asked can only make something up."""
        return all(float(picture.std()) < BLANK_STD for picture in self.pictures)


@dataclass(frozen=True, slots=True, kw_only=True)
class Captioned:
    """`row` None: nothing was said, the segment is still to do."""

    outcome: CaptionOutcome
    row: CaptionRow | None = None
    detail: str = ""
    was_cached: bool = False

    @property
    def is_usable(self) -> bool:
        return (
            self.row is not None
            and self.outcome is CaptionOutcome.OK
            and not self.row.checks_failed
        )


def caption_segment(
    work: CaptionWork, backend: Backend, settings: CaptionSettings, run_id: str
) -> Captioned:
    """Look, ask, check.

    Raises:
        EndpointDown, ConfigError: see `Backend`.
    """
    seen = Seen()
    if backend.needs_pictures:
        try:
            looked = look(work, settings)
        except SourceError as error:
            return Captioned(outcome=CaptionOutcome.SKIPPED, detail=f"video: {error}")
        if looked is None:
            return Captioned(outcome=CaptionOutcome.SKIPPED, detail="no camera")
        seen = looked
        if seen.is_blank:
            blank: Reply[Description] = Reply(outcome=CaptionOutcome.UNCLEAR, detail=BLANK)
            return _ended(work, seen, backend, run_id, blank, None)
    return caption_of(work, seen, backend, settings, run_id)


def look(work: CaptionWork, settings: CaptionSettings) -> Seen | None:
    """The contact sheet of a segment; None for an episode without a camera, or without the one asked for.

    Raises:
        SourceError: its video cannot be decoded, or its rows cannot be read.
    """
    camera = _camera(work.row, settings.sheet.camera)
    if camera is None:
        return None
    row, segment = work.row, work.segment
    name = video_file(row["episode_index"], f"observation.images.{camera}")
    sheets, pictures = segment_sheets(
        item_within(Path(work.corpus), f"{row['dataset_path']}/{name}"),
        segment.start,
        segment.end,
        work.rate_hz,
        settings.sheet.plan,
    )
    return Seen(sheets=sheets, pictures=pictures, camera=camera, hand_shares=_hand_shares(work))


def _camera(row: Mapping[str, Any], asked: str | None) -> str | None:
    names = [camera["name"] for camera in row["cameras"]]
    if asked is not None:
        return asked if asked in names else None
    return next((name for name in names if "wrist" not in name), names[0] if names else None)


def _hand_shares(work: CaptionWork) -> dict[str, float]:
    """Side -> share of the segment's timesteps with a valid hand; {} without tracked hands."""
    if HAND_VALIDITY not in work.features:
        return {}
    only = {HAND_VALIDITY: work.features[HAND_VALIDITY]}
    view = open_view(Path(work.corpus), work.row, (), only, work.rate_hz)
    span = slice(work.segment.start, work.segment.end)
    bits = {side: view.part(HAND_VALIDITY, side) for side in SIDES}
    return {
        side: float(seen[span].astype(bool).all(axis=1).mean())
        for side, seen in bits.items()
        if seen is not None
    }


def caption_of(
    work: CaptionWork, seen: Seen, backend: Backend, settings: CaptionSettings, run_id: str
) -> Captioned:
    """The caption of a segment that looks like `seen`."""
    described: Reply[Description] | None = None
    if backend.needs_pictures:
        described = _described(work.segment, seen.sheets, backend)
        if described.outcome is not CaptionOutcome.OK:
            return _ended(work, seen, backend, run_id, described, None)
    request = InstructRequest(
        segment=work.segment,
        description=described.value if described else None,
        sheet_sha256=digest_of(seen.sheets),
    )
    instructed = backend.instruct(request)
    if instructed.value is None:
        return _ended(work, seen, backend, run_id, described, instructed)
    samples: list[Instruction | None] = [instructed.value]
    if backend.needs_pictures and _is_sampled(work.segment, instructed.value, settings):
        samples += _more_samples(request, backend)
    results = _checked(work, seen, request.description, instructed.value, samples)
    return _ended(work, seen, backend, run_id, described, instructed, results)


def _described(segment: Segment, sheets: Sequence[Sheet], backend: Backend) -> Reply[Description]:
    """Pass one over all sheets of a segment; the first that does not succeed ends it."""
    replies: list[Reply[Description]] = []
    for part, sheet in enumerate(sheets):
        replies.append(backend.describe(DescribeRequest(segment=segment, sheet=sheet, part=part)))
        if replies[-1].outcome is not CaptionOutcome.OK:
            return replies[-1]
    values = [reply.value for reply in replies if reply.value is not None]
    return replace(
        replies[-1],
        value=joined(values),
        latency_s=_latency(*replies),
        was_cached=all(reply.was_cached for reply in replies),
    )


def _is_sampled(segment: Segment, answer: Instruction, settings: CaptionSettings) -> bool:
    """All that the backend is unsure of, and a share of the rest that depends on the segment alone."""
    if answer.status != "ok":
        return False
    name = f"{segment.uid}|{segment.start}|{segment.end}"
    draw = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
    return answer.confidence < settings.confidence_min or draw < settings.consistency_share


def _more_samples(request: InstructRequest, backend: Backend) -> list[Instruction | None]:
    answers = []
    for sample in range(1, SAMPLES):
        reply = backend.instruct(replace(request, sample=sample))
        if reply.outcome not in UNSAID:  # who does not answer does not disagree
            answers.append(reply.value)
    return answers


def _checked(
    work: CaptionWork,
    seen: Seen,
    description: Description | None,
    answer: Instruction,
    samples: Sequence[Instruction | None],
) -> list[CheckResult]:
    if answer.status != "ok":
        return []
    # without pictures the answer is the source's text said otherwise: it cannot but agree
    texts = work.segment.texts if seen.sheets else ()
    return [
        checks.form(answer.instruction),
        checks.times(description, answer, work.segment.duration_s),
        checks.cross_pass(description, answer),
        checks.source_agreement(answer, texts),
        checks.hand_agreement(description, answer, seen.hand_shares or {}),
        checks.self_consistency(samples),
    ]


def _ended(
    work: CaptionWork,
    seen: Seen,
    backend: Backend,
    run_id: str,
    described: Reply[Description] | None,
    instructed: Reply[Instruction] | None,
    results: Sequence[CheckResult] = (),
) -> Captioned:
    last: Reply[Any] | None = instructed or described
    assert last is not None
    if last.outcome in UNSAID:
        return Captioned(outcome=last.outcome, detail=last.detail)
    outcome, detail = last.outcome, last.detail
    if instructed is not None and instructed.value is not None:
        outcome = CaptionOutcome(instructed.value.status)
    complaints = [f"{check.name}: {check.why}" for check in results if check.has_failed]
    if any(check.name == "self_consistency" and check.has_failed for check in results):
        outcome = CaptionOutcome.UNCLEAR  # captioning.md §3, 6
    segment, answer = work.segment, instructed.value if instructed else None
    text, rephrasings = _texts(answer)
    row = CaptionRow(
        caption_id=_caption_id(segment, backend),
        uid=segment.uid,
        start=segment.start,
        end=segment.end,
        text=text,
        language="en" if answer is not None and is_english(text) else None,
        backend=backend.id,
        prompt_version=backend.prompt_version,
        outcome=outcome.value,
        run_id=run_id,
        model=backend.model,
        prompt_sha256=backend.prompt_sha256,
        params_json=backend.params_json,
        source_text=segment.texts[-1] if segment.texts else None,
        rephrasings=rephrasings,
        checks_failed=[check.name for check in results if check.has_failed],
        checks_silent=[c.name for c in results if c.verdict is Verdict.NOT_MEASURABLE],
        detail=one_line_of("; ".join([*([detail] if detail else []), *complaints]))[:2000],
        confidence=answer.confidence if answer is not None else None,
        description_json=_json_of(described),
        camera=seen.camera,
        sheet_sha256=digest_of(seen.sheets) or None,
        frames_s=[time_s for sheet in seen.sheets for time_s in sheet.times_s],
        cache_key=last.cache_key,
        latency_s=_latency(described, instructed),
    )
    was_cached = all(reply.was_cached for reply in (described, instructed) if reply is not None)
    return Captioned(outcome=outcome, row=row, detail=row.detail, was_cached=was_cached)


def _caption_id(segment: Segment, backend: Backend) -> str:
    name = (segment.uid, segment.start, segment.end, backend.id, backend.model)
    text = "|".join(map(str, (*name, backend.prompt_version, backend.params_json)))
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _texts(answer: Instruction | None) -> tuple[str, list[str]]:
    """The instruction, and other ways to say it."""
    if answer is None:
        return "", []
    text = _tidy(answer.instruction)
    others = [tidy for one in answer.rephrasings if not checks.form(tidy := _tidy(one)).has_failed]
    return text, [one for one in dict.fromkeys(others) if one != text]


def _tidy(text: str) -> str:
    """One line without a full stop, and no capital that only a sentence needs."""
    plain = " ".join(text.split()).rstrip(".! ")
    first = plain.split(" ")[0]
    return plain if first.isupper() and len(first) > 1 else plain[:1].lower() + plain[1:]


def _json_of(described: Reply[Description] | None) -> str | None:
    return described.value.model_dump_json() if described and described.value else None


def _latency(*replies: Reply[Any] | None) -> float | None:
    asked = [reply.latency_s for reply in replies if reply and reply.latency_s is not None]
    return round(sum(asked), 3) if asked else None
