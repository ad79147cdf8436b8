"""How an episode is played: a rule that gives the action of each timestep, and how many timesteps it may take.

A play ends `AFTER` timesteps after it succeeds. One that is to fail lasts as long as the expert takes in the same scene, so that
length alone does not give it away; only `stopped_early` is short, because it is cut off.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.routing.plan import Play, Take
from benchmarks.routing.scenes import LIMIT, SPEED
from benchmarks.routing.world import GOAL, Expert
from training.rollout.sawyer import OPEN, Array, World

AFTER = 5  # timesteps that go on after a success
NEARER_M, FARTHER_M = (
    0.08,
    0.15,
)  # how far beside its scene the expert of another goal believes to be
OBJECT = slice(4, 7)  # places in Meta-World's observation
STRETCH = 12  # timesteps to each random place
LOW_M, HIGH_M = np.array([-0.15, 0.55, 0.10]), np.array([0.15, 0.80, 0.30])


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """A rule for one take: `act` gives the [4] action of timestep k in this world."""

    act: Callable[[int, World], Array]
    limit: int


def rule_of(take: Take, world: World) -> Played:
    """What is random is drawn now, from the take's seed; the world is the take's own, just reset, and is reset again."""
    expert = Expert(take.task, speed=SPEED)
    rng = np.random.default_rng([take.seed, 1])
    if take.play is Play.EXPERT:
        return Played(act=lambda _, w: expert.act(w.told_to_expert()), limit=LIMIT)
    if take.play is Play.NOISY:
        noise = take.sigma * rng.standard_normal((LIMIT, 3))
        return Played(act=lambda k, w: expert.act(w.told_to_expert(), noise[k]), limit=LIMIT)
    usual = _length_of_expert(take, world, expert)
    if take.play is Play.STOPPED_EARLY:
        limit = max(1, round(usual * rng.uniform(0.4, 0.7)))
        return Played(act=lambda _, w: expert.act(w.told_to_expert()), limit=limit)
    if take.play is Play.OTHER_GOAL:
        angle = rng.uniform(-np.pi, np.pi)
        aside = rng.uniform(NEARER_M, FARTHER_M) * np.array([np.cos(angle), np.sin(angle), 0.0])
        return Played(act=lambda _, w: expert.act(_beside(w.told_to_expert(), aside)), limit=usual)
    places = rng.uniform(LOW_M, HIGH_M, size=(-(-usual // STRETCH), 3))
    return Played(act=lambda k, w: _towards(places[k // STRETCH], w), limit=usual)


def _length_of_expert(take: Take, world: World, expert: Expert) -> int:
    """Timesteps that the expert takes in this scene, with those after its success; the world is reset behind it."""
    world.reset(take.seed)
    count = 0
    while count < LIMIT and not world.is_success:
        world.hold(expert.act(world.told_to_expert()))
        count += 1
    world.reset(take.seed)
    return count + AFTER


def _beside(observation: Array, aside_m: Array) -> Array:
    """The observation as if object and goal lay `aside_m` [3] from where they are."""
    observation = observation.copy()
    observation[OBJECT] += aside_m
    observation[GOAL] += aside_m
    return observation


def _towards(place_m: Array, world: World) -> Array:
    """[4] a move that slows down as it arrives, with the top speed of an expert."""
    away = place_m - world.felt().target_m
    return np.append(np.clip(away / 0.05, -1, 1) * SPEED, OPEN)
