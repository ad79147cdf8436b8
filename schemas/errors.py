"""The exception tree: the type decides what happens next, the code is counted. Errors of the operating system and libav as text for the user."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any


class Code(StrEnum):
    """Why an episode was set aside. Closed list: schemas/remedies.py explains each, with its remedy."""

    MISSING_FILE = "missing_file"
    MISSING_SHARD = "missing_shard"
    MISSING_META = "missing_meta"
    MISSING_VIDEO = "missing_video"
    MISSING_CHANNEL = "missing_channel"
    UNREADABLE = "unreadable"
    TRUNCATED = "truncated"
    WRONG_CRC = "wrong_crc"
    CORRUPT_RECORD = "corrupt_record"
    CORRUPT_VIDEO = "corrupt_video"
    CORRUPT_IMAGE = "corrupt_image"
    FRAME_COUNT = "frame_count"
    SHAPE_MISMATCH = "shape_mismatch"
    NOT_FINITE = "not_finite"
    NOT_A_ROTATION = "not_a_rotation"
    CLOCK_NOT_INCREASING = "clock_not_increasing"
    NO_COMMON_TIME = "no_common_time"
    EMPTY_EPISODE = "empty_episode"
    TOO_LONG = "too_long"
    TOO_LARGE = "too_large"
    UNKNOWN_VERSION = "unknown_version"
    UNKNOWN_LAYOUT = "unknown_layout"
    UNSAFE_PATH = "unsafe_path"
    UNSAFE_CONTENT = "unsafe_content"
    BAD_ANNOTATION = "bad_annotation"
    REDACTED = "redacted"
    KNOWN_DEFECT = "known_defect"
    CONTRACT_BROKEN = "contract_broken"
    WORKER_DIED = "worker_died"
    TIME_LIMIT = "time_limit"
    OUT_OF_MEMORY = "out_of_memory"
    OOM_KILLED = "oom_killed"
    NODE_MEMORY_FULL = "node_memory_full"
    NODE_LOST = "node_lost"
    NODE_PREEMPTED = "node_preempted"


class PipelineError(Exception):
    """Root of every error this project raises on purpose."""

    exit_code = 3

    def __init__(self, message: str, *, where: str = "", remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.remedy = remedy

    def __str__(self) -> str:
        text = f"{self.message}; {self.remedy}" if self.remedy else self.message
        return f"{self.where}: {text}" if self.where else text

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, dict(self.__dict__))


class ConfigError(PipelineError):
    """The caller asked for something that cannot be done; nothing was touched."""

    exit_code = 2


class SourceError(PipelineError):
    """One episode is unusable: it is quarantined under `code` and the run goes on."""

    exit_code = 1

    def __init__(self, code: Code, message: str, *, where: str = "") -> None:
        super().__init__(message, where=where)
        self.code = Code(code)

    def __str__(self) -> str:
        return f"[{self.code.value}] {super().__str__()}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild_source, (self.code, self.message, self.where)


class TransientError(PipelineError):
    """A hiccup of storage or of a worker: worth another try."""

    exit_code = 1


class UnknownOutcome(TransientError):
    """A change was sent and no answer came: it may have happened. The caller reads back before another try."""


class ClusterLost(TransientError):
    """The cluster that ran the work is gone, and this process cannot leave it in an orderly way."""


class InvariantError(PipelineError):
    """Something that our own code guarantees does not hold."""


def _rebuild(cls: type[PipelineError], message: str, state: dict[str, Any]) -> PipelineError:
    error = cls(message)
    error.__dict__.update(state)
    return error


def _rebuild_source(code: Code, message: str, where: str) -> SourceError:
    return SourceError(code, message, where=where)


# AVERROR_INVALIDDATA (libavutil/error.h): libav's one answer to bytes that are damaged and to a file that is cut short.
INVALID_DATA = int.from_bytes(b"INDA", "little")
DAMAGED = "the data is damaged or truncated"


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
