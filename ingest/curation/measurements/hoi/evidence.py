"""What an episode has to say about its hands, on its K timesteps: from its annotations, its texts, its pictures and a detector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ingest.curation.measurements.hoi.hand_observer import STEP, SeenHands
from ingest.curation.measurements.hoi.labels import TextEvidence, text_evidence
from ingest.transforms.resample import runs

Mask = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

HAND_GAP_S = 0.5  # hoi_filter.md §5, hand_gap_s: what a track is filled over
MIN_TRACK_S = 0.5  # hoi_filter.md §5, min_track 5 frames at 10 Hz; AMEGO keeps tracks of 5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evidence:
    """Masks are [K]; None: not observed.

    tracked: a valid hand in the source's own annotation. seen: a hand found by the detector, without gaps and lone finds.
    closing: fingers that close. blank: every camera is black or flat. moving: something in the picture moves.
    says: [K] `Says` of the text that holds.
    """

    tracked: Mask | None
    seen: Mask | None
    closing: Mask
    blank: Mask | None
    moving: Mask | None
    says: Ints
    rate_hz: float

    def __len__(self) -> int:
        return len(self.says)

    @property
    def hand(self) -> Mask | None:
        """[K] a hand by any observer; None if there is none."""
        known = [mask for mask in (self.tracked, self.seen) if mask is not None]
        return np.logical_or.reduce(known) if known else None


def seen_mask(seen: SeenHands, length: int, rate_hz: float) -> Mask:
    """[K] timesteps with a hand: each find stands for its STEP timesteps, gaps are filled, short tracks dropped."""
    mask = np.zeros(length, dtype=bool)
    timesteps = seen.at[seen.count > 0]
    for offset in range(STEP):
        mask[np.minimum(timesteps + offset, length - 1)] = True
    return without_short(filled(mask, HAND_GAP_S * rate_hz), MIN_TRACK_S * rate_hz)


def filled(mask: Mask, longest: float) -> Mask:
    """Gaps of up to `longest` timesteps between two runs closed."""
    out = mask.copy()
    for start, end in runs(~mask):
        if start > 0 and end < len(mask) and end - start <= longest:
            out[start:end] = True
    return out


def without_short(mask: Mask, shortest: float) -> Mask:
    """Runs of less than `shortest` timesteps dropped, unless the whole is shorter."""
    out = mask.copy()
    for start, end in runs(mask):
        if end - start < min(shortest, len(mask)):
            out[start:end] = False
    return out


def text_evidence_of(segments: Sequence[Mapping[str, Any]], length: int) -> Ints:
    """[K] what the texts say. A sub-task outweighs the task it is part of, unless it says nothing; summaries do not count.

    Where two of a kind overlap the one that starts later holds, as in `task_of_timesteps`; and handling outweighs
    the rest, because a hand does what one of two narrators says it does.
    """
    out = np.full(length, int(TextEvidence.NOTHING), dtype=np.int64)
    for kind in ("task", "subtask"):
        rows = sorted((r for r in segments if r["kind"] == kind), key=lambda r: int(r["start"]))
        by_text = np.full(length, int(TextEvidence.NOTHING), dtype=np.int64)
        for row in rows:
            evidence = text_evidence(row["text"] or "")
            part = by_text[row["start"] : row["end"]]
            part[part != TextEvidence.HANDLING] = int(evidence)
        out = np.where(by_text != TextEvidence.NOTHING, by_text, out)
    return out


def edges_of(segments: Sequence[Mapping[str, Any]], blank: Mask | None) -> set[int]:
    """Where windows begin or end: at the edges of narrated stretches and of blank ones."""
    narrated = [r for r in segments if r["kind"] in ("task", "subtask")]
    edges = {int(row[end]) for row in narrated for end in ("start", "end")}
    return edges | {edge for run in (runs(blank) if blank is not None else ()) for edge in run}
