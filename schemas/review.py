"""What a person says of an episode or a part of it: one row of the table `reviews`. A row that breaks a rule cannot be made."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import ClassVar

from schemas.catalog import MOST_FRAMES
from schemas.catalog_rows import CatalogRow

MAX_TEXT = 4_000  # characters of a value
MAX_AUTHOR = 100
TIERS = ("high", "low", "actionless", "excluded")


class ReviewKind(StrEnum):
    """What a review does."""

    TIER_OVERRIDE = "tier_override"  # the value is the tier
    EXCLUDE = "exclude"  # the value is the reason; may be empty
    ACCEPT = "accept"  # the value is a remark; may be empty
    CAPTION_FIX = "caption_fix"  # the value is the text
    NOTE = "note"


@dataclass(frozen=True, slots=True, kw_only=True)
class Review(CatalogRow):
    """One review. `start` and `end` are both None for the whole episode."""

    TABLE: ClassVar[str] = "reviews"

    review_id: str
    uid: str
    start: int | None
    end: int | None
    kind: str
    value: str
    author: str
    at: datetime
    snapshot: int
    supersedes: str | None

    def __post_init__(self) -> None:
        if problem := self._problem():
            raise ValueError(problem)

    def _problem(self) -> str:
        """Which rule the row breaks; "" for none."""
        if not _is_uuid(self.review_id):
            return "review_id: expected a lower-case UUID"
        if self.supersedes is not None and not _is_uuid(self.supersedes):
            return "supersedes: expected a lower-case UUID or nothing"
        if self.supersedes == self.review_id:
            return "supersedes: a review cannot supersede itself"
        if not _is_text(self.uid, 1, MAX_AUTHOR):
            return "uid: expected the uid of an episode"
        if self.kind not in tuple(ReviewKind):
            return f"kind: expected one of {', '.join(ReviewKind)}"
        if not _is_text(self.author, 1, MAX_AUTHOR) or not self.author.isprintable():
            return f"author: expected 1 to {MAX_AUTHOR} printable characters"
        return self._problem_of_place() or self._problem_of_value()

    def _problem_of_place(self) -> str:
        if not isinstance(self.at, datetime) or self.at.utcoffset() != timedelta(0):
            return "at: expected a time in UTC"
        if not _is_count(self.snapshot):
            return "snapshot: expected a whole number from 0"
        if (self.start is None) != (self.end is None):
            return "start and end: expected both or neither"
        if self.start is None or self.end is None:
            return ""
        if not (_is_count(self.start) and _is_count(self.end)):
            return "start and end: expected whole numbers from 0"
        if not self.start < self.end <= MOST_FRAMES:
            return "start and end: expected start below end, in timesteps"
        return ""

    def _problem_of_value(self) -> str:
        needs_text = self.kind in (ReviewKind.CAPTION_FIX, ReviewKind.NOTE)
        if not _is_text(self.value, int(needs_text), MAX_TEXT):
            return f"value: expected {int(needs_text)} to {MAX_TEXT} characters of text"
        if needs_text and not self.value.strip():
            return "value: expected a text"
        if self.kind == ReviewKind.TIER_OVERRIDE and self.value not in TIERS:
            return f"value: expected one of {', '.join(TIERS)}"
        return ""


def utc_time(text: str) -> datetime:
    """A time of ISO 8601 with its offset, in UTC.

    Raises:
        ValueError: it is none, or has no offset.
    """
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError("at: expected an offset from UTC, for example 2026-01-31T12:00:00+00:00")
    try:
        return time.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("at: the time is out of range") from error


def _is_uuid(text: object) -> bool:
    try:
        return isinstance(text, str) and str(uuid.UUID(text)) == text
    except ValueError:
        return False


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


def _is_text(text: object, least: int, most: int) -> bool:
    """Whether it is text of that length that UTF-8 can write."""
    if not isinstance(text, str) or not least <= len(text) <= most:
        return False
    return not any("\ud800" <= character <= "\udfff" for character in text)
