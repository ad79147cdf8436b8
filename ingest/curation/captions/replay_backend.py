"""Answers out of a JSONL file instead of a model: for demonstrations, tests and repeating a run elsewhere.

A line: {"uid", "start", "end", "pass": "describe" | "instruct", "text": the model's text, and optionally "sample" (0), "part" (0) and
"sheet_sha256"}.
The files of the answer cache are such lines. What a line says goes through the same parser as a model's words.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ingest.curation.captions.chat import ChatRequest, Completion, NothingRecorded, Pass
from schemas.document import DocumentError
from schemas.errors import ConfigError, SourceError
from schemas.invalid import invalid
from schemas.json_text import parse_json
from schemas.regular_file import read_regular

MAX_BYTES = 1_000_000_000


class _Line(BaseModel):
    model_config = ConfigDict(extra="ignore")
    uid: str
    start: int
    end: int
    which: Pass = Field(alias="pass")
    sample: int = 0
    part: int = 0
    text: str


class ReplayChat:
    """What was recorded. The model's name carries the file's digest: another file captions anew."""

    id = "replay"

    def __init__(self, path: Path) -> None:
        """Raises ConfigError: no such file, or a line that is not of the format, by its number."""
        try:
            data = read_regular(path, max_bytes=MAX_BYTES)
        except SourceError as error:
            raise ConfigError(f"no replay file: {error.message}", where=str(path)) from error
        lines = [_parsed(line, number, path) for number, line in _lines(data)]
        self._texts = {
            (one.uid, one.start, one.end, one.which, one.sample, one.part): one.text
            for one in lines
        }
        self.model = f"{path.name}@{hashlib.sha256(data).hexdigest()[:12]}"

    def complete(self, request: ChatRequest) -> Completion:
        about = request.segment
        key = (
            *(about.uid, about.start, about.end),
            *(request.which, request.sample, request.part),
        )
        text = self._texts.get(key)
        if text is None:
            raise NothingRecorded(f"no recorded {request.which}")
        return Completion(text=text)

    def stop(self) -> None:
        """Nobody waits here."""


def _lines(data: bytes) -> list[tuple[int, bytes]]:
    numbered = enumerate(data.split(b"\n"), start=1)
    return [(number, line) for number, line in numbered if line.strip()]


def _parsed(line: bytes, number: int, path: Path) -> _Line:
    try:
        return _Line.model_validate(parse_json(line))
    except DocumentError as error:
        problem = f"line {number}: {error}"
        raise ConfigError(f"no line of a replay file, {problem}", where=str(path)) from error
    except ValidationError as error:
        problem = f"line {number}: {invalid(error, _Line)}"
        raise ConfigError(f"no line of a replay file, {problem}", where=str(path)) from error
