"""A download of VITRA: episode files by their names, and the videos that they name. Nothing is opened.

    .../<set>_<video>_ep_<number>.npy    and, below the same root or the folder of option `videos`, <video>.mp4, .MP4 or .webm
Raw Ego-Exo4D videos are called otherwise (aria01_214-1.mp4) and are not found: the annotations are for undistorted ones.
Videos cut into parts of 2000 frames for training (<video>_part1.mp4) are not read.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from adapters.containers.natural_order import natural_key
from schemas.regular_file import is_there

VIDEO_SUFFIXES = (".mp4", ".webm", ".mkv")
_NAME = re.compile(r"(?P<origin>[A-Za-z0-9-]+)_(?P<video>.+)_ep_[A-Za-z0-9]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class VitraTree:
    """`episodes` relative to the root without suffix, in order; `videos` name -> files relative to their folder."""

    episodes: tuple[str, ...]
    videos: dict[str, list[str]]


def tree_at(root: Path, videos: Path) -> VitraTree:
    """All episodes below `root` and all videos below `videos`."""
    episodes = [p.relative_to(root) for p in root.rglob("*_ep_*.npy") if is_there(p)]
    videos_by_name: dict[str, list[str]] = defaultdict(list)
    for path in videos.rglob("*"):
        if path.suffix.lower() in VIDEO_SUFFIXES and is_there(path):
            videos_by_name[path.stem].append(path.relative_to(videos).as_posix())
    names = (path.with_suffix("").as_posix() for path in episodes)
    return VitraTree(episodes=tuple(sorted(names, key=natural_key)), videos=dict(videos_by_name))


def parts_of(episode: str) -> tuple[str, str] | None:
    """(set, video) that the name of an episode states; None when it states none."""
    match = _NAME.fullmatch(episode.rpartition("/")[2])
    return (match["origin"], match["video"]) if match else None
