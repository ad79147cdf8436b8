"""Parts of an episode that a test asks for by name."""

from __future__ import annotations

from schemas.episode import Episode, Stream
from schemas.geometry import Array
from schemas.hand_track import HandTrack


def stream_of(episode: Episode, name: str) -> Stream:
    stream = episode.stream(name)
    assert stream is not None, f"no {name} in {[s.name for s in episode.streams]}"
    return stream


def values(episode: Episode, name: str) -> Array:
    return stream_of(episode, name).values


def hand(episode: Episode, side: str) -> HandTrack:
    return next(h for h in episode.hands if h.side == side)
