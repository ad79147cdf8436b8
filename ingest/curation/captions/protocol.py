"""What a captioning backend is asked and what it answers: values, outcomes, and the protocol itself.

Two passes, as LeRobot's `lerobot-annotate` has them (huggingface/lerobot: docs/source/annotation_pipeline.mdx, DOCUMENTED): DESCRIBE what
is described without any expected text, then INSTRUCT from that description and the source's texts.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, Protocol, TypeVar

from ingest.curation.captions.answers import Description, Instruction
from ingest.curation.captions.sheet import Sheet
from schemas.errors import TransientError

Value = TypeVar("Value", Description, Instruction)


class CaptionOutcome(StrEnum):
    """How one attempt at a caption ended (captioning.md §2)."""

    OK = "ok"
    NO_ACTION = "no_action"  # nothing is handled here
    UNCLEAR = "unclear"  # it cannot be told, or samples disagree
    TRUNCATED = "truncated"  # the answer did not fit, twice
    BLOCKED = "blocked"  # a filter or the model refused
    PARSE_ERROR = "parse_error"  # no answer of the schema, twice
    TRANSPORT_ERROR = (
        "transport_error"  # nobody answered; the segment is tried again by the next run
    )
    SKIPPED = "skipped"  # the backend has nothing to go by; also tried again


# Nothing was said about the segment: no row, so that the next run finds it missing.
UNSAID = frozenset({CaptionOutcome.TRANSPORT_ERROR, CaptionOutcome.SKIPPED})


class EndpointDown(TransientError):
    """Too many failures in a row: the backend is down, and more requests would only take time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Timesteps [start, end) of an episode, and the source's own texts of exactly them, the one that a timestep gets last."""

    uid: str
    start: int
    end: int
    duration_s: float
    texts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribeRequest:
    """What is seen? No hint of what to expect. `part`: which sheet of the segment it is."""

    segment: Segment
    sheet: Sheet | None
    part: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class InstructRequest:
    """The instruction for this recording. `sample` 0 is the answer; other samples test whether it is stable.

    `sheet_sha256`: the pictures that the description is of.
    """

    segment: Segment
    description: Description | None
    sheet_sha256: str = ""
    sample: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply(Generic[Value]):
    """`value` is there when the outcome is OK; `detail` says why when it is not. `latency_s` None: no model was called."""

    outcome: CaptionOutcome
    value: Value | None = None
    detail: str = ""
    cache_key: str = ""
    latency_s: float | None = None
    was_cached: bool = False


class Backend(Protocol):
    """A backend that writes captions. `id`, `model` and `prompt_version` together identify a caption; a change of any of them makes a new one."""

    id: str
    model: str
    prompt_version: str
    prompt_sha256: str
    params_json: str
    needs_pictures: bool

    def describe(self, request: DescribeRequest) -> Reply[Description]:
        """Pass one. Every ending is a reply; only what stops the whole run is raised.

        Raises:
            EndpointDown: too many failures in a row.
            ConfigError: the endpoint refuses for a reason that will not pass (a key, a model's name).
        """
        ...

    def instruct(self, request: InstructRequest) -> Reply[Instruction]:
        """Pass two; the same errors."""
        ...

    def stop(self) -> None:
        """The run was interrupted: stop waiting for a reply."""
        ...
