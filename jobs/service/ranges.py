"""HTTP conditional and range requests for a file: RFC 9110 §13 and §14. Pure functions of header texts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime

MAX_DIGITS = 18
_RANGE = re.compile(r"bytes[ \t]*=[ \t]*(.*)", re.IGNORECASE)
_SPEC = re.compile(rf"([0-9]{{0,{MAX_DIGITS}}})-([0-9]{{0,{MAX_DIGITS}}})")
_TAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')


@dataclass(frozen=True, slots=True, kw_only=True)
class FileStamp:
    """What a file is now. `etag` is strong: other bytes have another one."""

    size: int
    etag: str
    modified_s: int

    @property
    def last_modified(self) -> str:
        return format_datetime(datetime.fromtimestamp(self.modified_s, UTC), usegmt=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class ByteRange:
    """Bytes [start, end)."""

    start: int
    end: int


UNSATISFIABLE = ByteRange(start=0, end=0)


def requested_part(header: str | None, size: int) -> ByteRange | None:
    """The part that a Range header asks for; None: the whole file; UNSATISFIABLE: none of it is there.

    A header that is not valid is ignored (RFC 9110 §14.2), and so is one that asks for several parts, which a server may do (§15.3.7).
    """
    matched = _RANGE.fullmatch(header.strip()) if header is not None else None
    if matched is None:
        return None
    specs = [spec.strip() for spec in matched[1].split(",") if spec.strip()]
    parsed = _SPEC.fullmatch(specs[0]) if len(specs) == 1 else None
    if parsed is None or not (parsed[1] or parsed[2]):
        return None
    if not parsed[1]:  # the last N bytes
        length = int(parsed[2])
        return (
            ByteRange(start=max(size - length, 0), end=size) if length and size else UNSATISFIABLE
        )
    start = int(parsed[1])
    if parsed[2] and int(parsed[2]) < start:
        return None
    if start >= size:
        return UNSATISFIABLE
    end = min(int(parsed[2]) + 1, size) if parsed[2] else size
    return ByteRange(start=start, end=end)


def is_not_modified(
    stamp: FileStamp, if_none_match: str | None, if_modified_since: str | None = None
) -> bool:
    """Whether 304 is the answer (RFC 9110 §13.2.2): If-None-Match decides where it is there."""
    if if_none_match is not None:
        return any_matches(if_none_match, stamp.etag)
    since = _instant(if_modified_since)
    return since is not None and stamp.modified_s <= since


def any_matches(header: str, etag: str) -> bool:
    """Weak comparison (§8.8.3.2) with any tag of a list, or `*`."""
    if header.strip() == "*":
        return True
    opaque = etag.removeprefix("W/")
    return any(tag.removeprefix("W/") == opaque for tag in _TAG.findall(header))


def is_range_current(stamp: FileStamp, if_range: str | None) -> bool:
    """Whether a Range header holds under If-Range (§13.1.5): strong comparison of a tag, or exactly the date."""
    if if_range is None:
        return True
    text = if_range.strip()
    if text.startswith(('"', "W/")):
        return text == stamp.etag and not text.startswith("W/")
    return _instant(text) == stamp.modified_s


def _instant(text: str | None) -> int | None:
    """Seconds since 1970 of an HTTP date; None for what is none."""
    if text is None:
        return None
    try:
        return int(parsedate_to_datetime(text).timestamp())
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
