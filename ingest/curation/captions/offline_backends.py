"""Caption backends without a model: stored answers from a JSONL file, and rules over the source's own texts."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ingest.curation.captions.answers import Description, Instruction
from ingest.curation.captions.chat import ChatRequest, Completion, NothingRecorded, Pass
from ingest.curation.captions.imperative import imperative
from ingest.curation.captions.prompts import RULES_VERSION
from ingest.curation.captions.protocol import (
    CaptionOutcome,
    DescribeRequest,
    InstructRequest,
    Reply,
)
from ingest.curation.measurements.english import verb_of
from schemas.document import DocumentError
from schemas.errors import ConfigError, SourceError
from schemas.invalid import invalid
from schemas.json_text import parse_json
from schemas.regular_file import read_regular

MAX_BYTES = 1_000_000_000


class _ReplayLine(BaseModel):
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
            raise ConfigError(
                f"not a replay file: {error.message}",
                remedy="pass a JSONL file with --replay",
                where=str(path),
            ) from error
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
            raise NothingRecorded(f"no recorded answer for the {request.which} request")
        return Completion(text=text)

    def stop(self) -> None:
        """Nothing to stop."""


def _lines(data: bytes) -> list[tuple[int, bytes]]:
    numbered = enumerate(data.split(b"\n"), start=1)
    return [(number, line) for number, line in numbered if line.strip()]


def _parsed(line: bytes, number: int, path: Path) -> _ReplayLine:
    try:
        return _ReplayLine.model_validate(parse_json(line))
    except DocumentError as error:
        problem = f"line {number}: {error}"
        raise ConfigError(
            f"not a line of a replay file: {problem}",
            remedy="correct or remove this line",
            where=str(path),
        ) from error
    except ValidationError as error:
        problem = f"line {number}: {invalid(error, _ReplayLine)}"
        raise ConfigError(
            f"not a line of a replay file: {problem}",
            remedy="correct or remove this line",
            where=str(path),
        ) from error


class RulesBackend:
    """The text that a timestep gets, as an imperative; the source's other texts of the segment become rephrasings."""

    id = "rules"
    model = ""
    prompt_version = RULES_VERSION
    prompt_sha256 = ""
    params_json = "{}"
    needs_pictures = False

    def describe(self, request: DescribeRequest) -> Reply[Description]:
        """Nothing is looked at."""
        return Reply(outcome=CaptionOutcome.SKIPPED, detail="rules see no pictures")

    def instruct(self, request: InstructRequest) -> Reply[Instruction]:
        texts = request.segment.texts
        if not texts:
            return Reply(outcome=CaptionOutcome.SKIPPED, detail="no text")
        candidates = [
            imperative(text) for text in reversed(texts)
        ]  # the one that a timestep gets first
        commands = list(dict.fromkeys(one.text for one in candidates if not one.problem))
        if not commands:
            return Reply(outcome=CaptionOutcome.UNCLEAR, detail=candidates[0].problem)
        return Reply(outcome=CaptionOutcome.OK, value=_instruction(commands))

    def stop(self) -> None:
        """Nothing to stop."""


def _instruction(commands: list[str]) -> Instruction:
    first = commands[0].split()[0]
    return Instruction.model_construct(
        status="ok",
        instruction=commands[0],
        left=None,
        right=None,
        verb=verb_of(first) or first,
        object="",
        destination=None,
        agrees_with_source="yes",
        evidence_s=[],
        confidence=1.0,
        rephrasings=commands[1:6],
    )
