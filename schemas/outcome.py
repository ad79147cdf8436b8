"""What a worker returns for one episode: small, picklable, JSON on disk; the pixels stay in staging."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from schemas.errors import Code
from schemas.json_text import parse_json


class State(StrEnum):
    """discovered = committed + filtered + quarantined + failed for every run that ends by itself; `unaccounted` is the rule."""

    STAGED = "staged"  # the worker is done; the committer decides `committed`
    COMMITTED = "committed"
    FILTERED = "filtered"  # sound, but not wanted by the recipe
    QUARANTINED = "quarantined"  # unusable as it is; listed with a code, re-runnable
    FAILED = "failed"  # our fault or the machine's


ENDS = (State.COMMITTED, State.FILTERED, State.QUARANTINED, State.FAILED)


def unaccounted(run: Mapping[str, Any]) -> int:
    """Episodes of a row of `runs` that no count holds: 0 for a sound row, whether the run ended by itself or was interrupted.

    discovered = committed + filtered + quarantined + failed + not_reached. A row from before `not_reached` existed (NULL) may be of an
    interrupted run, so only too many ends are a contradiction there.
    """
    left = int(run["discovered"]) - sum(int(run[state.value]) for state in ENDS)
    not_reached = run.get("not_reached")
    return min(left, 0) if not_reached is None else left - not_reached


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedEpisode:
    """An episode ready to be numbered and committed. All paths are names inside its staging folder.

    The dicts are catalog rows without what only the committer knows (dataset position, run).
    """

    group: str  # "<source>/<folder>": the LeRobot dataset it belongs to
    robot_type: str
    features: dict[str, Any]  # LeRobot feature table without the five defaults
    spec: list[list[Any]]  # [slice name, width, unit] of observation.state and action
    episode: dict[str, Any]
    segments: list[dict[str, Any]]
    measurements: list[dict[str, Any]]
    stats: dict[str, Any]  # statistics of the numeric columns
    videos: list[dict[str, Any]]  # camera, name, num_bytes, sha256, num_frames, statistics


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
            raise ValueError("an outcome is staged exactly when it carries a staged episode")
        if self.state in (State.FILTERED, State.QUARANTINED, State.FAILED) and not self.code:
            raise ValueError(f"a {self.state} outcome needs a code")

    def to_json(self) -> str:
        return json.dumps(asdict(self), allow_nan=False)  # key order is part of `meta/`

    @staticmethod
    def from_json(text: str) -> Outcome:
        raw = parse_json(text)
        staged = raw.pop("staged")
        state = State(raw.pop("state"))
        return Outcome(
            **raw, state=state, staged=StagedEpisode(**staged) if staged is not None else None
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerFailure:
    """A worker process that ended without an answer.

    `node_lost`: the whole node went with it (a spot instance, say), which says nothing about the episode.
    """

    code: Code
    how: str
    node_lost: bool = False
