"""What the tests of the LeRobot adapter share."""

from __future__ import annotations

from pathlib import Path

from adapters.lerobot.adapter import LeRobot
from jobs.demo.raw import Written
from schemas.episode import Episode, EpisodeRef
from schemas.fact import Fact
from schemas.supervision import Task, allowed_tasks

ADAPTER = LeRobot()


def refs_of(root: Path, **options: str) -> list[EpisodeRef]:
    return list(ADAPTER.discover(root, ADAPTER.survey(root, options)))


def first_of(written: Written, **options: str) -> Episode:
    return ADAPTER.load(refs_of(written.root, **options)[0])


def facts_of(episode: Episode) -> dict[str, Fact]:
    return {f.name: f for f in episode.facts}


def tasks_of(episode: Episode) -> tuple[Task, ...]:
    return allowed_tasks(facts=episode.facts, has_camera=True, action_coverage=1.0)[0]
