"""Where a declared number is after ingestion, found by its values and not by what an adapter says about itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ingest.pipeline.process import is_required
from ingest.recipe import Recipe
from ingest.transforms import time_grid
from ingest.transforms.action_vector import Vectors, canonical_vectors
from ingest.transforms.channel_account import accounted
from schemas.embodiment import embodiment_for
from schemas.episode import Episode
from schemas.fact import Certainty
from schemas.rate import instants_ns
from schemas.supervision import Task, allowed_tasks

SLICES = {
    "T_base_eef": ("position_m", "rot6d_cols"),
    "gripper_opening": ("gripper_opening",),
    "hand_joints_rad": ("hand_joints_rad",),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Ingested:
    """An episode after the stages, as its catalog row would have it."""

    episode: Episode
    vectors: Vectors

    @property
    def tasks(self) -> tuple[Task, ...]:
        facts = (*self.episode.facts, *self.vectors.facts)
        coverage = self.vectors.action_coverage
        return allowed_tasks(facts=facts, has_camera=True, action_coverage=coverage)[0]

    @property
    def parts(self) -> set[str]:
        return {part.name for part in self.vectors.spec.slices} if self.vectors.spec else set()


def ingested(episode: Episode) -> Ingested:
    recipe = Recipe()
    required = [s.t_ns for s in episode.streams if is_required(s.name)]
    clocks = required or [s.t_ns for s in episode.streams]
    at = time_grid.grid(clocks, recipe.rate_hz, recipe.max_episode_s)
    following = instants_ns(len(at) + 1, recipe.rate_hz, int(at[0]))[1:]
    body = embodiment_for(episode.embodiment)
    found = canonical_vectors(episode, body, at, following, recipe)
    return Ingested(episode=episode, vectors=accounted(episode, found))


def assert_not_lost(found: Ingested, channel: str, numbers: np.ndarray) -> None:
    """`numbers` [N, n] of a declared channel, as the source stores them, are in a slice, a column, or a limit.

    What no slice of the action carries may not teach a policy either.
    """
    side, _, part = channel.removeprefix("command.").partition(".")
    slices = {f"{side}.{name}" for name in SLICES.get(part, ())}
    is_streamed = found.episode.stream(channel) is not None
    is_sliced = bool(slices) and slices <= found.parts
    if not (is_streamed and (is_sliced or _is_column(found, channel))):
        assert _is_raw(found, numbers) or _is_limited(found, channel), f"{channel} is lost"
    if slices and found.vectors.spec is not None and not is_sliced:
        assert Task.POLICY not in found.tasks, f"a policy without {channel}"


def _is_column(found: Ingested, channel: str) -> bool:
    side = channel.partition(".")[0]
    names = {f"observation.{channel}", f"observation.source_eef_pose.{side}"}
    return bool(names & found.vectors.features.keys())


def _is_raw(found: Ingested, numbers: np.ndarray) -> bool:
    """Every declared column is a column of a raw stream that the corpus keeps, to the last bit of float32."""
    kept = {"source_state": "observation.source_state", "raw_command": "action.raw"}
    streams = [
        found.episode.stream(name) for name, f in kept.items() if f in found.vectors.features
    ]
    columns = [c.astype(np.float32) for s in streams if s is not None for c in s.values.T]
    return all(
        any(np.array_equal(c, wanted) for c in columns) for wanted in numbers.T.astype(np.float32)
    )


def _is_limited(found: Ingested, channel: str) -> bool:
    facts = {f.name: f for f in found.vectors.facts}
    fact = facts.get(f"not_carried.{channel}")
    is_unknown = fact is not None and fact.certainty is Certainty.UNKNOWN and fact.is_for_actions
    return is_unknown and found.tasks in ((), (Task.VISUAL_FORECASTING,))
