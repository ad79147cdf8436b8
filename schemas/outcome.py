"""What a worker returns for one episode: small, picklable, JSON on disk; the pixels stay in staging."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields, is_dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypedDict

from schemas.catalog import ADDED_COLUMNS
from schemas.catalog_rows import PLACE, EpisodeFacts, MeasurementRow, SegmentRow
from schemas.errors import Code
from schemas.json_text import parse_json

if TYPE_CHECKING:  # a worker does not import it
    from schemas.committed_rows import RunRow


class State(StrEnum):
    """discovered = committed + filtered + quarantined + failed for every run that ends by itself; `unaccounted` is the rule."""

    STAGED = "staged"  # the worker is done; the committer decides `committed`
    COMMITTED = "committed"
    FILTERED = "filtered"  # sound, but not wanted by the recipe
    QUARANTINED = "quarantined"  # unusable as it is; listed with a code, re-runnable
    FAILED = "failed"  # our fault or the machine's


ENDS = (State.COMMITTED, State.FILTERED, State.QUARANTINED, State.FAILED)


def ends_of(run: RunRow) -> dict[State, int]:
    """Episodes by how they ended."""
    return {state: int(getattr(run, state.value)) for state in ENDS}


def unaccounted(run: RunRow) -> int:
    """Episodes of a row of `runs` that no count holds: 0 for a sound row, whether the run ended by itself or was interrupted.

    discovered = committed + filtered + quarantined + failed + not_reached. A row from before `not_reached` existed (NULL) may be of an
    interrupted run, so only too many ends are a contradiction there.
    """
    left = run.discovered - sum(ends_of(run).values())
    return min(left, 0) if run.not_reached is None else left - run.not_reached


class StagedVideo(TypedDict):
    """A video in the staging folder."""

    camera: str
    name: str
    num_bytes: int
    sha256: str
    num_frames: int
    stats: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedEpisode:
    """An episode ready to be numbered and committed. All paths are names inside its staging folder."""

    group: str  # "<source>/<folder>": the LeRobot dataset it belongs to
    robot_type: str
    features: dict[str, Any]  # LeRobot feature table without the five defaults
    spec: list[list[Any]]  # [slice name, width, unit] of observation.state and action
    episode: EpisodeFacts
    segments: list[SegmentRow]
    measurements: list[MeasurementRow]
    stats: dict[str, Any]  # statistics of the numeric columns
    videos: list[StagedVideo]

    @staticmethod
    def from_dict(raw: dict[str, Any]) -> StagedEpisode:
        """As `to_json` writes it; what an older version staged lacks newer columns, and has NULL for the place."""
        later = dict.fromkeys(ADDED_COLUMNS["episodes"])
        known = {name: value for name, value in raw["episode"].items() if name not in PLACE}
        episode = EpisodeFacts(**{**later, **known})
        own = {"uid": episode.uid}
        rows = {
            "episode": episode,
            "segments": [SegmentRow(**{**own, **row}) for row in raw["segments"]],
            "measurements": [MeasurementRow(**{**own, **row}) for row in raw["measurements"]],
        }
        return StagedEpisode(**{**raw, **rows})


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one attempt at one episode ended."""

    uid: str
    state: State
    code: str = ""
    message: str = ""
    num_frames: int = 0
    video_s: float = 0.0  # seconds of canonical video written, all cameras together
    staged: StagedEpisode | None = field(default=None)

    def __post_init__(self) -> None:
        if (self.state is State.STAGED) != (self.staged is not None):
            raise ValueError(
                "an outcome has state staged if and only if it contains a staged episode"
            )
        if self.state in (State.FILTERED, State.QUARANTINED, State.FAILED) and not self.code:
            raise ValueError(f"an outcome {self.state} needs a code")

    def to_json(self) -> str:
        # The order of keys is part of `meta/`. `asdict` would copy every list in it, which takes longer than all else here.
        return json.dumps(self, default=_fields_of, allow_nan=False)

    @staticmethod
    def from_json(text: str) -> Outcome:
        raw = parse_json(text)
        staged = raw.pop("staged")
        state = State(raw.pop("state"))
        return Outcome(
            **raw,
            state=state,
            staged=StagedEpisode.from_dict(staged) if staged is not None else None,
        )


def _fields_of(value: Any) -> dict[str, Any]:
    if not is_dataclass(value):
        raise TypeError(f"{type(value).__name__} is not JSON")
    return {each.name: getattr(value, each.name) for each in fields(value)}


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerFailure:
    """A worker process that ended without an answer.

    `node_lost`: the whole node went with it (a spot instance, say), which says nothing about the episode.
    """

    code: Code
    how: str
    node_lost: bool = False
    node: str = ""  # where it was, if that is known
