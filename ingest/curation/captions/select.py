"""Which captions may be trained on, and by which policies a manifest chooses between them and the text of the source."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from ingest.curation.captions.protocol import CaptionOutcome

ADVISORY = frozenset({"hand_agreement"})  # trackers swap sides: it is told, and decides nothing
MIN_OVERLAP = 0.5


class TextPolicy(StrEnum):
    """source: what the source says. caption: what was seen, else the source normalised, else as it is.
    best: the source normalised where that is sound, else what was seen, else as it is (captioning.md §2)."""

    SOURCE = "source"
    CAPTION = "caption"
    BEST = "best"


def is_usable(row: Mapping[str, Any]) -> bool:
    """A caption that may be trained on: the backend was sure, and no check but an advisory one failed."""
    failed = set(row["checks_failed"] or ()) - ADVISORY
    return row["outcome"] == CaptionOutcome.OK and bool((row["text"] or "").strip()) and not failed
