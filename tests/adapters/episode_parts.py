"""Episodes of a download, and parts of an episode by name."""

from __future__ import annotations

from pathlib import Path

from adapters.base import Adapter
from schemas.episode import Episode, EpisodeRef, Stream
from schemas.geometry import Array
from schemas.hand_track import HandTrack


def refs_of(adapter: Adapter, root: Path, **options: str) -> list[EpisodeRef]:
    return list(adapter.discover(root, adapter.survey(root, options)))


def refs_by_id(adapter: Adapter, root: Path, **options: str) -> dict[str, EpisodeRef]:
    return {ref.episode_id: ref for ref in refs_of(adapter, root, **options)}


def only_episode(adapter: Adapter, root: Path, **options: str) -> Episode:
    """The episode of a download that has no other."""
    (ref,) = refs_of(adapter, root, **options)
    return adapter.load(ref)


def stream_of(episode: Episode, name: str) -> Stream:
    stream = episode.stream(name)
    assert stream is not None, f"no {name} in {[s.name for s in episode.streams]}"
    return stream


def values(episode: Episode, name: str) -> Array:
    return stream_of(episode, name).values


def hand(episode: Episode, side: str) -> HandTrack:
    return next(h for h in episode.hands if h.side == side)
