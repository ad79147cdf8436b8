"""Files, frame numbers and splits by LeRobot's info.json.

From the path templates of info.json to files, and from claimed start times to frame numbers.

The templates are data from strangers (BEHAVIOR-1K writes `task-{...:04d}`, Humanoid Everyday names its camera in
the text), so they are formatted by hand: known fields and plain integer widths only, never attribute access.

`splits` of a LeRobot info.json: split name -> "from:to", a half-open range of episode indices.

Real sets have ranges that end before or after the last episode, so only the range itself is believed: an episode in no range
has no split, and one in several takes the strictest.
Source: huggingface/lerobot `src/lerobot/datasets/utils.py` (code); formats page oxe_lerobot.md §1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from string import Formatter

from adapters.containers.lerobot_episodes import EpisodeMeta
from adapters.containers.lerobot_meta import INFO, SetInfo, read_info
from schemas.errors import Code, SourceError
from schemas.source_split import source_split_of, strictest

# -- lerobot paths -------------------------------------------------------------------------------------------------

_NUMBERS = ("episode_chunk", "episode_index", "chunk_index", "file_index")
_WIDTH = re.compile(r"(0?\d{1,2}d?|d)?")
# Rounding of from_timestamp moves a start by at most one frame, a container that leaves out the last frame's duration by
# one more (measured on a real set: to_timestamp 14.2 s for 427 frames at 30 Hz). More is a gap, not rounding.
MAX_DRIFT_FRAMES = 2


def format_path(template: str, fields: Mapping[str, int | str]) -> str:
    """`template` with `fields` put in.

    Raises:
        SourceError: UNKNOWN_LAYOUT when it asks for anything but a known field with an integer width.
    """
    try:
        pieces = list(Formatter().parse(template))
    except ValueError as error:
        raise SourceError(Code.UNKNOWN_LAYOUT, f"{template!r}: {error}", where=INFO) from error
    out = []
    for text, name, spec, conversion in pieces:
        out.append(text)
        if name is None:
            continue
        allowed = name in fields and not conversion and _WIDTH.fullmatch(spec or "")
        if not allowed or (spec and name not in _NUMBERS):
            problem = (
                f"path template {template!r} asks for {{{name}:{spec}}}; known are {sorted(fields)}"
            )
            raise SourceError(Code.UNKNOWN_LAYOUT, problem, where=INFO)
        out.append(format(fields[name], spec or ""))
    return "".join(out)


def data_path(info: SetInfo, episode: EpisodeMeta) -> str:
    """The data file of an episode, relative to the root.

    Raises:
        SourceError: UNKNOWN_LAYOUT.
    """
    return format_path(
        info.data_path or "", _fields(info, episode.index, episode.chunk, episode.file)
    )


def annotation_path(info: SetInfo, index: int) -> str | None:
    """The annotation file of episode `index` (BEHAVIOR-1K), relative to the root; None when the set has none.

    Raises:
        SourceError: UNKNOWN_LAYOUT.
    """
    if not info.annotation_path:
        return None
    return format_path(info.annotation_path, _fields(info, index, index // info.chunks_size, 0))


def video_path(info: SetInfo, episode: EpisodeMeta, key: str) -> str | None:
    """The video of camera `key`, relative to the root; None when the metadata name none for this episode.

    Raises:
        SourceError: UNKNOWN_LAYOUT.
    """
    chunk, file = episode.chunk, episode.file
    if info.major == 3:
        if key not in episode.videos:
            return None
        chunk, file = episode.videos[key].chunk, episode.videos[key].file
    if not info.video_path:
        return None
    fields = _fields(info, episode.index, chunk, file)
    return format_path(info.video_path, {**fields, "video_key": key})


def _fields(info: SetInfo, index: int, chunk: int, file: int) -> dict[str, int | str]:
    if info.major == 3:
        return {"chunk_index": chunk, "file_index": file}
    # Some v2.1 sets write {chunk_index} where LeRobot writes {episode_chunk}.
    return {"episode_chunk": chunk, "chunk_index": chunk, "episode_index": index}


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstFrame:
    """Where an episode starts in a shared video; `is_counted` when the lengths before it add up to that."""

    number: int
    is_counted: bool


def first_frames(
    episodes: Iterable[EpisodeMeta], key: str, rate_hz: Fraction
) -> dict[int, FirstFrame]:
    """Episode index -> its first frame in its video of camera `key` (v3.0).

    Frames are counted: the lengths of the episodes before it in the same file, as long as every start time up to there
    follows from them within `MAX_DRIFT_FRAMES`. Where it does not (an episode was taken out and the video kept), the
    claimed start time decides, rounded to a frame. Claimed end times are never used: they drift.

    Source: huggingface/lerobot `video_utils.py` concatenation, issues #3177, #2447.
    """
    files: dict[tuple[int, int], list[EpisodeMeta]] = {}
    for episode in episodes:
        if key in episode.videos:
            place = episode.videos[key]
            files.setdefault((place.chunk, place.file), []).append(episode)
    out = {}
    for members in files.values():
        members.sort(key=lambda e: (e.videos[key].from_s, e.index))
        counted, previous, holds = 0, Fraction(0), True
        for episode in members:
            claimed = Fraction(episode.videos[key].from_s) * rate_hz
            holds = holds and abs(claimed - previous) <= MAX_DRIFT_FRAMES
            number = counted if holds else round(claimed)
            out[episode.index] = FirstFrame(number=number, is_counted=holds)
            counted, previous = counted + episode.length, claimed + episode.length
    return out


# -- lerobot splits ------------------------------------------------------------------------------------------------

_RANGE = re.compile(r"\s*(\d{1,12})\s*:\s*(\d{1,12})\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitRanges:
    """(split, first index, end index) of each range, and what could not be read, as notes for the plan."""

    ranges: tuple[tuple[str, int, int], ...] = ()
    notes: tuple[str, ...] = ()

    def split_of(self, index: int) -> str:
        """train, val or test of the episode `index`; "" where no range holds it."""
        return strictest(split for split, start, end in self.ranges if start <= index < end)


def split_ranges(root: Path) -> SplitRanges:
    """The ranges of a set. Metadata that cannot be read give none: every episode is then listed with that problem."""
    try:
        splits = read_info(root).splits
    except SourceError:
        return SplitRanges()
    ranges, notes = [], []
    for name, text in splits.items():
        split = source_split_of(name)
        parts = [_RANGE.fullmatch(part) for part in str(text).split(",")]
        parsed = [(split, int(m[1]), int(m[2])) for m in parts if m is not None]
        if split and len(parsed) == len(parts):
            ranges += parsed
        else:
            why = "is no range FROM:TO" if split else "is none of train, val, test"
            notes.append(f"{INFO}: split {name[:40]!r}: {str(text)[:40]!r} {why}; it is not used")
    return SplitRanges(ranges=tuple(ranges), notes=tuple(notes))
