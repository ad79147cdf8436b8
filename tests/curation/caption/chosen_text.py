"""How a segment's text is chosen, row by row: the reference that the query of `ingest/curation/manifests/sql.py` is held against."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ingest.curation.captions.offline_backends import RulesBackend
from ingest.curation.captions.select import MIN_OVERLAP, TextPolicy, is_usable


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenText:
    """`caption_id` None: the source's own text, or none at all."""

    text: str
    caption_id: str | None = None
    origin: str = "source"  # source | rules | seen | none


def choose_text(
    policy: TextPolicy, source_text: str, captions: Iterable[Mapping[str, Any]]
) -> ChosenText:
    """The text of a segment.

    Args:
        policy: see `TextPolicy`.
        source_text: what the source says at most of the segment's timesteps; "" for nothing.
        captions: rows of the `captions` table that hold there, best fitting first (`covering`).
    """
    own = ChosenText(text=source_text, origin="source" if source_text.strip() else "none")
    if policy is TextPolicy.SOURCE:
        return own
    usable = [row for row in captions if is_usable(row)]
    rules = [row for row in usable if row["backend"] == RulesBackend.id]
    seen = [row for row in usable if row["backend"] != RulesBackend.id]
    order = [*rules, *seen] if policy is TextPolicy.BEST else [*seen, *rules]
    if not order:
        return own
    row = order[0]
    origin = "rules" if row["backend"] == RulesBackend.id else "seen"
    return ChosenText(text=row["text"], caption_id=row["caption_id"], origin=origin)


def covering(
    captions: Sequence[Mapping[str, Any]], start: int, end: int
) -> list[Mapping[str, Any]]:
    """Captions that hold for at least half of timesteps [start, end): most overlap first, then the tightest, then the newest."""

    def overlap(row: Mapping[str, Any]) -> int:
        return max(min(int(row["end"]), end) - max(int(row["start"]), start), 0)

    overlapping = [row for row in captions if overlap(row) >= MIN_OVERLAP * (end - start)]
    newest = sorted(overlapping, key=lambda row: (row["run_id"], row["caption_id"]), reverse=True)
    return sorted(newest, key=lambda row: (-overlap(row), row["end"] - row["start"]))
