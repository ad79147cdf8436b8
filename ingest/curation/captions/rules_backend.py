"""Captions from the texts that a source already has: no model, no network, no picture. It says nothing where the source says nothing."""

from __future__ import annotations

from ingest.curation.captions.answers import Description, Instruction
from ingest.curation.captions.imperative import imperative
from ingest.curation.captions.protocol import (
    CaptionOutcome,
    DescribeRequest,
    InstructRequest,
    Reply,
)
from ingest.curation.measurements.english import verb_of

VERSION = "1"  # of the rules; raise it when any text would come out differently


class RulesBackend:
    """The text that a timestep gets, as an imperative; the source's other texts of the segment become rephrasings."""

    id = "rules"
    model = ""
    prompt_version = VERSION
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
        """Nobody waits here."""


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
