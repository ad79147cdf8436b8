"""What the tests of AgiBot World share: the adapter, and one short episode."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.agibot_world.adapter import AgiBotWorld
from jobs.demo.raw import agibot_world as generator
from jobs.demo.raw.scene import Scene
from schemas.episode import Episode, EpisodeRef
from schemas.errors import SourceError

SIDES = ("left", "right")


ADAPTER = AgiBotWorld()


def refs_of(root: Path, **options: str) -> list[EpisodeRef]:
    return list(ADAPTER.discover(root, ADAPTER.survey(root, options)))


def one(root: Path, **options: object) -> tuple[Path, Scene]:
    """A single short episode 327/7 (0.5 s, so 15 rows) and its scene."""
    scene = Scene(seed=3, duration_s=0.5, sides=SIDES, width=160, height=120)
    steps = options.pop("steps", ((0, 5, "Reach."), (5, 15, "Grasp.")))
    h5 = generator.write_episode(root, 327, 7, scene=scene, steps=steps, **options)  # type: ignore[arg-type]
    return h5, scene


def load(root: Path) -> Episode:
    (ref,) = refs_of(root)
    assert ref.problem is None, ref.problem
    return ADAPTER.load(ref)


def fails(root: Path) -> SourceError:
    with pytest.raises(SourceError) as caught:
        load(root)
    return caught.value


def fact_of(episode: Episode, name: str) -> str:
    return next(f.value for f in episode.facts if f.name == name)
