"""Train, val and test: decided by a group that no split may cut through, and by nothing that changes when data grow.

Two episodes of one person, of one scene or cut from one video are nearly the same sample twice. So the unit that is drawn is the
group: the subject when known, else the scene, else the long video an episode was cut from, else the episode itself. The
draw is a hash of the group's name alone: adding sources, episodes or machines moves no group.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from schemas.episode import Episode, VideoWindow
from schemas.source_split import HELD_OUT
from schemas.source_split import SPLITS as SPLITS

_SALT = b"eicorpus split 1"  # fixed for ever, or every corpus would be dealt anew


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """How much of all groups goes where; the rest trains."""

    val: float = 0.02
    test: float = 0.02

    def __post_init__(self) -> None:
        if not (self.val >= 0 and self.test >= 0 and self.val + self.test < 1):
            raise ValueError(
                f"{self}: the shares of val and test must be at least 0 and add up to less than 1"
            )


DEFAULT_SHARES = Shares()


def split_group(episode: Episode) -> str:
    """The name of the group an episode may not be parted from, unique over all sources."""
    ref = episode.ref
    if episode.subject_id:
        kind, name = "subject", episode.subject_id
    elif episode.scene_id:
        kind, name = "scene", episode.scene_id
    elif video := next(
        (c.frames.path for c in episode.cameras if isinstance(c.frames, VideoWindow)), None
    ):
        kind, name = "video", video.removeprefix(ref.root).lstrip("/")
    else:
        kind, name = "episode", ref.episode_id
    return f"{ref.source}/{ref.dataset}/{kind}:{name}"


def default_split(group: str, source_split: str) -> str:
    """The split of an episode at the default shares: the source's own val or test, else what its group draws.

    A source's own train is drawn like the rest, because many sources call everything train.
    """
    return source_split if source_split in HELD_OUT else split_of(group)


def split_of(group: str, shares: Shares = DEFAULT_SHARES) -> str:
    """train, val or test by the group's name: test from the bottom of the unit interval, val above it."""
    digest = hashlib.blake2b(group.encode(), key=_SALT, digest_size=8).digest()
    place = int.from_bytes(digest, "big") / 2**64
    if place < shares.test:
        return "test"
    return "val" if place < shares.test + shares.val else "train"
