"""A small text beside a video: a file of its own, or another member of the same shard."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.containers.raw_file import raw_record, read_range
from adapters.containers.safe_path import inside
from schemas.document import DocumentError
from schemas.episode import RawFile
from schemas.errors import Code, SourceError
from schemas.json_text import parse_json
from schemas.regular_file import check_regular

LIMIT_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Sidecar:
    """`path` is relative to the root; `byte_range` [start, end) and `member` are set within a shard."""

    path: str
    member: str = ""
    byte_range: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        return f"{self.path}:{self.member}" if self.member else self.path


def read_sidecar(root: Path, sidecar: Sidecar) -> tuple[str, RawFile]:
    """The text and the fingerprint.

    Raises:
        SourceError: MISSING_FILE, UNREADABLE, UNSAFE_PATH, TRUNCATED, TOO_LARGE (1 MiB), or BAD_ANNOTATION (no UTF-8).
    """
    path = inside(root, sidecar.path)
    start, end = sidecar.byte_range or (0, check_regular(path, where=sidecar.name))
    data = read_range(path, start, end, limit=LIMIT_BYTES)
    try:
        return data.decode("utf-8"), raw_record(sidecar.name, data)
    except UnicodeDecodeError as error:
        raise SourceError(
            Code.BAD_ANNOTATION, f"not UTF-8 text: {error}", where=sidecar.name
        ) from error


def json_object(text: str, where: str) -> dict[str, Any]:
    """The JSON object in `text`.

    Raises:
        SourceError: BAD_ANNOTATION.
    """
    try:
        value = parse_json(text, allow_nan=True)  # as writers in Python make it
    except DocumentError as error:
        raise SourceError(Code.BAD_ANNOTATION, str(error), where=where) from error
    if not isinstance(value, dict):
        problem = f"a {type(value).__name__}; expected an object"
        raise SourceError(Code.BAD_ANNOTATION, problem, where=where)
    return value
