"""A download of VITRA: episode files, the videos they name, and where these come from.

A download of VITRA: episode files by their names, and the videos that they name. Nothing is opened.

    .../<set>_<video>_ep_<number>.npy    and, below the same root or the folder of option `videos`, <video>.mp4, .MP4 or .webm
Raw Ego-Exo4D videos are called otherwise (aria01_214-1.mp4) and are not found: the annotations are for undistorted ones.
Videos cut into parts of 2000 frames for training (<video>_part1.mp4) are not read.

Where the videos of VITRA come from, by the first word of an episode's name: their terms, and whether they were undistorted.

Source: `microsoft/VITRA:data/data.md` and `vitra/datasets/human_dataset.py` (documented, code). The annotations are under the
licence of the repository, MIT; the pictures under that of their own set.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from adapters.containers.listing import natural_key
from adapters.vitra.capture import PAGE
from schemas.episode import Licence
from schemas.fact import Certainty, Fact, fact
from schemas.regular_file import path_exists

# -- tree ----------------------------------------------------------------------------------------------------------

VIDEO_SUFFIXES = (".mp4", ".webm", ".mkv")
_NAME = re.compile(r"(?P<origin>[A-Za-z0-9-]+)_(?P<video>.+)_ep_[A-Za-z0-9]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class VitraTree:
    """`episodes` relative to the root without suffix, in order; `videos` name -> files relative to their folder."""

    episodes: tuple[str, ...]
    videos: dict[str, list[str]]


def tree_at(root: Path, videos: Path) -> VitraTree:
    """All episodes below `root` and all videos below `videos`."""
    episodes = [p.relative_to(root) for p in root.rglob("*_ep_*.npy") if path_exists(p)]
    videos_by_name: dict[str, list[str]] = defaultdict(list)
    for path in videos.rglob("*"):
        if path.suffix.lower() in VIDEO_SUFFIXES and path_exists(path):
            videos_by_name[path.stem].append(path.relative_to(videos).as_posix())
    names = (path.with_suffix("").as_posix() for path in episodes)
    return VitraTree(episodes=tuple(sorted(names, key=natural_key)), videos=dict(videos_by_name))


def parts_of(episode: str) -> tuple[str, str] | None:
    """(set, video) that the name of an episode states; None when it states none."""
    match = _NAME.fullmatch(episode.rpartition("/")[2])
    return (match["origin"], match["video"]) if match else None


# -- origins -------------------------------------------------------------------------------------------------------

LICENCE = Licence(  # of the whole: the strictest
    name="MIT (annotations), each set's own (pictures)",
    allows_commercial=False,
    allows_redistribution=False,
)
_UNDISTORTED = fact(
    "picture_lens",
    "K and poses are for the undistorted video; whether this file was undistorted cannot be told",
    Certainty.UNVERIFIED,
    f"{PAGE}: undistort it with the authors' script first",
)
_AS_PUBLISHED = fact("picture_lens", "as published, a pinhole", Certainty.DOCUMENTED, PAGE)


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoOrigin:
    """One set of videos."""

    licence: Licence
    lens: Fact
    names_start_with_subject: bool = False  # P01_101


def _terms(pictures: str, **flags: bool) -> Licence:
    return Licence(name=f"MIT (annotations), {pictures} (pictures)", **flags)


_SSV2 = VideoOrigin(
    licence=_terms("Something-Something V2 licence", allows_redistribution=False),
    lens=_AS_PUBLISHED,
)
ORIGINS = {
    "ego4d": VideoOrigin(
        licence=_terms("Ego4D licence", allows_redistribution=False), lens=_UNDISTORTED
    ),
    "egoexo4d": VideoOrigin(
        licence=_terms("Ego-Exo4D licence", allows_redistribution=False), lens=_UNDISTORTED
    ),
    "epic": VideoOrigin(
        licence=_terms("CC BY-NC 4.0", allows_commercial=False, allows_redistribution=True),
        lens=_AS_PUBLISHED,
        names_start_with_subject=True,
    ),
    "somethingsomethingv2": _SSV2,
    "ssv2": _SSV2,
}
OTHER = VideoOrigin(licence=_terms("unknown"), lens=_UNDISTORTED)


def origin_of(name: str) -> VideoOrigin:
    """By the word before the first underscore of an episode's name, upper or lower case."""
    return ORIGINS.get(name.lower(), OTHER)
