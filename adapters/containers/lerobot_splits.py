"""`splits` of a LeRobot info.json: split name -> "from:to", a half-open range of episode indices.

Real sets have ranges that end before or after the last episode, so only the range itself is believed: an episode in no range
has no split, and one in several takes the strictest.
Source: huggingface/lerobot `src/lerobot/datasets/utils.py` (code); formats page oxe_lerobot.md §1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from adapters.containers.lerobot_meta import INFO, read_info
from schemas.errors import SourceError
from schemas.source_split import source_split_of, strictest

_RANGE = re.compile(r"\s*(\d{1,12})\s*:\s*(\d{1,12})\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitRanges:
    """(split, first index, end index) of each range, and what could not be read, as notes for the plan."""

    ranges: tuple[tuple[str, int, int], ...] = ()
    notes: tuple[str, ...] = ()

    def split_of(self, index: int) -> str:
        """train, val or test of the episode `index`; "" where no range holds it."""
        return strictest(split for split, start, end in self.ranges if start <= index < end)


def split_ranges(root: Path) -> SplitRanges:
    """The ranges of a set. Metadata that cannot be read give none: every episode is then listed with that problem."""
    try:
        splits = read_info(root).splits
    except SourceError:
        return SplitRanges()
    ranges, notes = [], []
    for name, text in splits.items():
        split = source_split_of(name)
        parts = [_RANGE.fullmatch(part) for part in str(text).split(",")]
        parsed = [(split, int(m[1]), int(m[2])) for m in parts if m is not None]
        if split and len(parsed) == len(parts):
            ranges += parsed
        else:
            why = "is no range FROM:TO" if split else "is none of train, val, test"
            notes.append(f"{INFO}: split {name[:40]!r}: {str(text)[:40]!r} {why}; it is not used")
    return SplitRanges(ranges=tuple(ranges), notes=tuple(notes))
