"""The verdict: interaction, no interaction or uncertain, for each window of an episode, with the reasons. A pure function.

After hoi_filter.md §5. What that page takes from an object detector (contact, C and R) or a language model (V) is not measured here, so
a window is an interaction only where a person wrote that something is handled AND a hand was seen; and it is none only on positive evidence.
A detector that finds no hand proves nothing: two clips with a hand in every frame gave MediaPipe 2 of 23 and 1 of 42 (§2).

    no_interaction  the episode is shorter than 0.5 s; half of the window is blank; the label is a camera template;
                    the narration is of walking, looking, talking ... AND a hand is there in less than a tenth of it
    interaction     the narration is of handling, a hand is there for 0.3 of the window and 0.5 s in one piece, and something moves
    uncertain       everything else; and inside an interaction the stretches without a hand: over 1.0 s at an end, over 2.0 s within
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum, StrEnum

import numpy as np

from ingest.curation.measurements.hoi.evidence import Evidence, Ints, Mask
from ingest.curation.measurements.hoi.labels import TextEvidence
from ingest.transforms.resample import runs
from schemas.geometry import Array

VERSION = 1  # raise it when any verdict would change


class InteractionState(StrEnum):
    INTERACTION = "interaction"
    NO_INTERACTION = "no_interaction"
    UNCERTAIN = "uncertain"


class Reason(IntEnum):
    """Numbers are in the catalog: they never change their meaning. From 20 positive, from 10 negative, from 30 open."""

    TOO_SHORT = 10
    BLANK = 11
    CAMERA_LABEL = 12
    LABEL_WITHOUT_HANDS = 13
    LABEL_AND_HAND = 20
    LABEL_BUT_NO_HAND = 30
    LABEL_NOT_LOOKED_AT = 31
    STILL = 32
    LABELS_DISAGREE = 33
    HAND_CLOSES = 34
    HAND_ONLY = 35
    FEW_HANDS = 36
    NO_HAND_SEEN = 37
    NOTHING_KNOWN = 38
    HAND_FREE_END = 39
    HAND_FREE_GAP = 40

    @property
    def state(self) -> InteractionState:
        if self < Reason.LABEL_AND_HAND:
            return InteractionState.NO_INTERACTION
        return (
            InteractionState.INTERACTION
            if self < Reason.LABEL_BUT_NO_HAND
            else InteractionState.UNCERTAIN
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class InteractionLimits:
    """Thresholds; all but the last from hoi_filter.md §5."""

    min_run_s: float = 0.5
    min_hand_share: float = 0.3
    no_hand_share: float = 0.1
    blank_share: float = 0.5
    end_s: float = 1.0
    margin_s: float = 0.25
    gap_s: float = 2.0
    moving_share: float = (
        0.1  # ours: of the window's pictures, some move; a standing picture shows nobody at work
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class InteractionVerdict:
    """Of timesteps [start, end). `hand_share` is None if hands were not detected."""

    start: int
    end: int
    reason: Reason
    hand_share: float | None

    @property
    def state(self) -> InteractionState:
        return self.reason.state


def decide(
    evidence: Evidence, edges: Iterable[int] = (), limits: InteractionLimits | None = None
) -> list[InteractionVerdict]:
    """One verdict for each window, in order; the windows cover the episode."""
    limits = limits or InteractionLimits()
    at = windows(edges, len(evidence), limits.min_run_s * evidence.rate_hz)
    reasons, shares = _reasons(evidence, at, limits)
    verdicts: list[InteractionVerdict] = []
    for start, end, reason, share in zip(at[:-1], at[1:], reasons, shares, strict=True):
        whole = InteractionVerdict(
            start=int(start),
            end=int(end),
            reason=Reason(int(reason)),
            hand_share=None if np.isnan(share) else float(share),
        )
        verdicts += _trimmed(whole, evidence, limits)
    return verdicts


def windows(edges: Iterable[int], length: int, shortest: float) -> Ints:
    """[N + 1] cuts from 0 to `length`; one nearer than `shortest` to the cut before it, or to the end, is left out."""
    cuts = [0]
    for edge in sorted(set(edges)):
        if edge - cuts[-1] >= shortest and length - edge >= shortest:
            cuts.append(edge)
    return np.array([*cuts, length], dtype=np.int64)


def _reasons(e: Evidence, at: Ints, limits: InteractionLimits) -> tuple[Ints, Array]:
    """[N] the first rule that holds for each window, and the share of it with a hand (NaN: not detected)."""
    is_looked_at = e.hand is not None
    hand = _share(e.hand, at, unknown=np.nan)
    blank = _share(e.blank, at, unknown=0.0)
    moving = _share(e.moving, at, unknown=1.0)
    shares = {kind: _share(e.says == kind, at, unknown=0.0) for kind in TextEvidence}
    handling = shares[TextEvidence.HANDLING] > 0.5
    without = shares[TextEvidence.NO_HANDS] > 0.5
    has_run = _longest(e.hand, at) >= limits.min_run_s * e.rate_hz
    has_hand = has_run & (hand >= limits.min_hand_share)  # NaN compares false
    no_hand = hand < limits.no_hand_share
    is_short = len(e) < limits.min_run_s * e.rate_hz
    rules: list[tuple[Mask | bool, Reason]] = [
        (is_short, Reason.TOO_SHORT),
        (blank >= limits.blank_share, Reason.BLANK),
        (shares[TextEvidence.CAMERA_ONLY] > 0.5, Reason.CAMERA_LABEL),
        (without & no_hand, Reason.LABEL_WITHOUT_HANDS),
        (without & is_looked_at, Reason.LABELS_DISAGREE),
        ((handling | without) & (not is_looked_at), Reason.LABEL_NOT_LOOKED_AT),
        (handling & has_hand & (moving < limits.moving_share), Reason.STILL),
        (handling & has_hand, Reason.LABEL_AND_HAND),
        (handling, Reason.LABEL_BUT_NO_HAND),
        (has_hand & (_share(e.closing, at, unknown=0.0) > 0), Reason.HAND_CLOSES),
        (has_hand, Reason.HAND_ONLY),
        (no_hand, Reason.NO_HAND_SEEN),
        (is_looked_at, Reason.FEW_HANDS),
    ]
    holds = [np.broadcast_to(np.asarray(mask, dtype=bool), hand.shape) for mask, _ in rules]
    chosen = np.select(holds, [int(r) for _, r in rules], default=int(Reason.NOTHING_KNOWN))
    return chosen.astype(np.int64), hand


def _share(mask: Mask | None, at: Ints, *, unknown: float) -> Array:
    """[N] share of each window in which the mask holds."""
    if mask is None:
        return np.full(len(at) - 1, unknown)
    counted = np.concatenate([[0], np.cumsum(mask)])
    return np.asarray(np.diff(counted[at]) / np.diff(at))


def _longest(mask: Mask | None, at: Ints) -> Ints:
    """[N] timesteps of the longest run inside each window."""
    spans = np.array(runs(mask) if mask is not None else [], dtype=np.int64).reshape(-1, 2)
    if not len(spans):
        return np.zeros(len(at) - 1, dtype=np.int64)
    inside = np.minimum(spans[:, 1, None], at[1:]) - np.maximum(spans[:, 0, None], at[:-1])
    return np.asarray(np.maximum(inside.max(axis=0), 0))


def _trimmed(
    whole: InteractionVerdict, e: Evidence, limits: InteractionLimits
) -> Iterator[InteractionVerdict]:
    """An interaction less its long stretches without a hand, which become uncertain: absence by itself rejects nothing."""
    hand = e.hand
    if whole.state is not InteractionState.INTERACTION or hand is None:
        yield whole
        return
    cursor = whole.start
    for start, end, reason in _hand_free(whole, hand, e.rate_hz, limits):
        if start > cursor:
            yield _part(whole, hand, cursor, start, whole.reason)
        yield _part(whole, hand, start, end, reason)
        cursor = end
    if cursor < whole.end:
        yield _part(whole, hand, cursor, whole.end, whole.reason)


def _hand_free(
    whole: InteractionVerdict, hand: Mask, rate_hz: float, limits: InteractionLimits
) -> Iterator[tuple[int, int, Reason]]:
    """Stretches to set apart, a margin kept beside each hand."""
    margin = round(limits.margin_s * rate_hz)
    for start, end in runs(~hand[whole.start : whole.end]):
        first, last = start == 0, end == whole.end - whole.start
        longest_s = limits.end_s if first or last else limits.gap_s
        if end - start <= longest_s * rate_hz:
            continue
        reason = Reason.HAND_FREE_END if first or last else Reason.HAND_FREE_GAP
        low = whole.start + start + (0 if first else margin)
        yield low, whole.start + end - (0 if last else margin), reason


def _part(
    whole: InteractionVerdict, hand: Mask, start: int, end: int, reason: Reason
) -> InteractionVerdict:
    share = float(hand[start:end].mean())
    return InteractionVerdict(start=start, end=end, reason=reason, hand_share=share)
