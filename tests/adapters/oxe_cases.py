"""What the tests of Open X-Embodiment share: the adapter, and the smallest sets that it reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adapters.oxe.adapter import OpenXEmbodiment
from jobs.demo.raw.oxe import (
    BRIDGE,
    bridge_episode,
    write_set,
)
from jobs.demo.raw.scene import Scene
from schemas.episode import Episode, EpisodeRef
from schemas.errors import Code, SourceError
from schemas.fact import Fact

OXE = OpenXEmbodiment()


REST = "-rest"


def refs_of(root: Path, **options: str) -> list[EpisodeRef]:
    return list(OXE.discover(root, OXE.survey(root, options)))


def load_all(root: Path, **options: str) -> list[Episode]:
    return [OXE.load(ref) for ref in refs_of(root, **options)]


def fact(episode: Episode | EpisodeRef, name: str) -> Fact:
    return next(f for f in episode.facts if f.name == name)


def stream(episode: Episode, name: str) -> Any:
    found = episode.stream(name)
    assert found is not None, f"no {name} in {[s.name for s in episode.streams]}"
    return found


def tiny(num_steps: int = 4) -> dict[tuple[str, ...], Any]:
    """A small Bridge episode without pictures worth looking at."""
    episode = bridge_episode(Scene(duration_s=1.0, width=16, height=16), num_steps)
    return {k: v for k, v in episode.items() if "image" not in k[-1]}


TINY = {k: v for k, v in BRIDGE.items() if "image" not in k[-1]}


def sharded(root: Path, lengths: tuple[int, ...] = (2, 2, 1)) -> Path:
    return write_set(
        root / "bridge_dataset" / "1.0.0", TINY, [tiny()] * sum(lengths), shard_lengths=lengths
    )


# --- defects of one episode ---------------------------------------------------------------------------------------------


def code_of(ref: EpisodeRef) -> Code:
    with pytest.raises(SourceError) as caught:
        OXE.load(ref)
    return caught.value.code
