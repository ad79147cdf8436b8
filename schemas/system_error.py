"""What the operating system or libav refused, in words for the user: without the error's number, its path at most once."""

from __future__ import annotations

from pathlib import Path

# AVERROR_INVALIDDATA (libavutil/error.h): libav's one answer to bytes that are damaged and to a file that is cut short.
INVALID_DATA = int.from_bytes(b"INDA", "little")
DAMAGED = "the data is damaged or cut short"


def system_error_text(error: BaseException, where: str = "") -> str:
    """The reason alone: "Permission denied", DAMAGED, or what libav reports; of any other error its message.

    Args:
        where: what the new message names already; a path whose file name is in it is not repeated.
    """
    number, reason, name = (getattr(error, key, None) for key in ("errno", "strerror", "filename"))
    if not reason:
        return str(error)
    if number == INVALID_DATA:
        reason = DAMAGED
    elif not isinstance(error, OSError):
        reason = f"libav reports: {reason}"
    path = str(name or "").removeprefix("file:")
    return str(reason) if not path or Path(path).name in where else f"{path}: {reason}"
