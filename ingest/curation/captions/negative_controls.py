"""Negative controls: segments asked about again with pictures that cannot show them. What is captioned all the same was made up.

black: no picture shows anything. shuffled: the right pictures at wrong times. stranger: another segment's pictures under this one's texts.
Of black pictures every caption counts that is ok, whatever its checks say. Of the others what would be trained on: captions that are ok and
pass their checks (captioning.md §3, 7 counts the status there too; but to call what strangers do by its name is no mistake, nor is a
steady activity in any order).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ingest.curation.captions.describe_then_summarize import CaptionWork, Seen, caption_of, look
from ingest.curation.captions.protocol import Backend, CaptionOutcome
from ingest.curation.captions.settings import CaptionSettings
from ingest.curation.captions.sheet import Picture, sheets_of
from schemas.errors import SourceError

KINDS = ("black", "shuffled", "stranger")


def false_captions(
    works: Sequence[CaptionWork], backend: Backend, settings: CaptionSettings
) -> dict[str, tuple[int, int]]:
    """Kind -> (segments asked about, captioned all the same).

    Raises:
        EndpointDown, ConfigError: see `Backend`.
    """
    seen = list(_seen(works, settings))
    counts = dict.fromkeys(KINDS, (0, 0))
    for index, (work, own) in enumerate(seen):
        other = seen[(index + 1) % len(seen)][1]
        for kind in KINDS:
            pictures = _pictures(kind, own.pictures, other.pictures)
            if pictures is None:
                continue
            times = [time_s for sheet in own.sheets for time_s in sheet.times_s][: len(pictures)]
            wrong = Seen(sheets=sheets_of(pictures, times, settings.sheet.plan), camera=own.camera)
            captioned = caption_of(work, wrong, backend, settings, run_id="")
            if captioned.row is not None:  # an answer, of whatever kind
                asked, false = counts[kind]
                is_false = (
                    captioned.outcome is CaptionOutcome.OK
                    if kind == "black"
                    else captioned.is_usable
                )
                counts[kind] = (asked + 1, false + is_false)
    return counts


def _seen(
    works: Sequence[CaptionWork], settings: CaptionSettings
) -> Iterator[tuple[CaptionWork, Seen]]:
    for work in works:
        try:
            seen = look(work, settings)
        except SourceError:  # counted as skipped where it was captioned
            continue
        if seen is not None:
            yield work, seen


def _pictures(kind: str, own: Sequence[Picture], other: Sequence[Picture]) -> list[Picture] | None:
    """The wrong pictures, or None where they would be the right ones."""
    if kind == "black":
        return [np.zeros_like(picture) for picture in own]
    if kind == "shuffled":
        order = np.random.default_rng(0).permutation(len(own))
        return None if (order == np.arange(len(own))).all() else [own[k] for k in order]
    return None if other is own else list(other[: len(own)])
