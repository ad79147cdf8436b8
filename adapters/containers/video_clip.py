"""A stretch of a video as one episode.

Cut an unannotated interval of video into windows of bounded length.

Source of the 60 s bound: design §3 ("windows of at most 60 s on scene and validity breaks").

A stretch of a video of people: from a place in a file to a ref, from the ref to an episode with one camera.

Sources of plain video differ in how they name files and segments, in nothing else. Times are seconds of the container's
PTS: the container is the clock, frame numbers of annotations are never used.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

from adapters.containers.raw_file import raw_file_of, raw_part_of
from adapters.containers.safe_path import inside
from adapters.containers.video_probe import VideoHeader, video_header
from schemas.episode import Camera, Episode, EpisodeRef, Instruction, Licence, RawFile, VideoWindow
from schemas.errors import Code, SourceError
from schemas.fact import Certainty, Fact

# -- windows -------------------------------------------------------------------------------------------------------

LONGEST_WINDOW_S = 60.0
# An annotated segment up to here stays whole: a real Goal-Step step lasts up to 3,077 s, an episode may have 1,000 s.
LONGEST_WHOLE_S = 300.0


def windows(
    start_s: float,
    end_s: float,
    *,
    breaks_s: Iterable[float] = (),
    longest_s: float = LONGEST_WINDOW_S,
) -> tuple[tuple[float, float], ...]:
    """Half-open windows that cover [start_s, end_s) exactly, in order, none crossing a break.

    Each stretch between two breaks is divided into the fewest EQUAL windows of at most `longest_s`: a fixed length
    would leave a useless last window of a fraction of a second. Breaks outside the stretch are ignored.

    Raises:
        ValueError: `longest_s` is not positive or a bound is not finite.
    """
    if longest_s <= 0 or not (math.isfinite(start_s) and math.isfinite(end_s)):
        raise ValueError(f"cannot cut [{start_s}, {end_s}) s into windows of {longest_s} s")
    if end_s <= start_s:
        return ()
    edges = sorted({start_s, end_s, *(b for b in breaks_s if start_s < b < end_s)})
    spans: list[tuple[float, float]] = []
    for first, last in pairwise(edges):
        count = math.ceil((last - first) / longest_s)
        cuts = [first + (last - first) * k / count for k in range(count)] + [last]
        spans += pairwise(cuts)
    return tuple(spans)


def parts(start_s: float, end_s: float) -> tuple[tuple[float, float], ...]:
    """An annotated segment as it is up to 300 s, else cut into windows of at most 60 s."""
    if end_s - start_s <= LONGEST_WHOLE_S:
        return ((start_s, end_s),)
    return windows(start_s, end_s)


# -- video clip ----------------------------------------------------------------------------------------------------

EMBODIMENT = "human_video"
# A stated end this close to the real one is the rounding of its two or three decimals, not a segment that runs over.
ROUNDING_S = Fraction(1, 100)
IN_LOCATOR = (
    "path",
    "member",
    "byte_range",
    "start_s",
    "end_s",
    "text",
    "rate_hz",
    "camera",
    "views",
    "subject_id",
    "scene_id",
)
MAX_WINDOWS = 100_000  # 69 days of 60 s: beyond that a header lies


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """[start_s, end_s) of a video file, or of a member of a tar shard; `end_s` None means to its end.

    `path` and `views` are relative to the root, with forward slashes; `views` (camera, path) show the same on the same clock.
    """

    episode_id: str
    path: str = ""
    member: str = ""  # its name in the shard at `path`
    byte_range: tuple[int, int] | None = None  # of that member
    start_s: float = 0.0
    end_s: float | None = None
    text: str = ""
    rate_hz: Fraction | None = None  # as the annotations state it; else the file does
    camera: str = "ego"
    views: tuple[tuple[str, str], ...] = ()
    subject_id: str | None = None
    scene_id: str | None = None
    num_bytes: int = 0  # what a worker may have to read; a hint
    problem: tuple[str, str] | None = None
    stands_for: int = 1  # clips that are lost with it
    source_split: str = ""  # as in EpisodeRef

    def broken(self, code: Code, message: str, *, stands_for: int = 1) -> Clip:
        return replace(self, problem=(code.value, message), stands_for=max(stands_for, 1))


def no_camera_pose(source: str, certainty: Certainty = Certainty.DOCUMENTED) -> Fact:
    """The fact that excludes every task but forecasting: the head moves and its pose is unknown."""
    return Fact(
        name="camera_motion_removed",
        value="false",
        certainty=certainty,
        source=source,
        is_for_actions=False,
    )


def cut(clip: Clip) -> Iterator[Clip]:
    """An annotated clip as it is up to 300 s, else its windows of at most 60 s with `/0000` ... on the id."""
    spans = parts(clip.start_s, clip.start_s if clip.end_s is None else clip.end_s)
    if clip.problem or len(spans) < 2:
        yield clip
        return
    for k, (start, end) in enumerate(spans):
        yield replace(clip, episode_id=f"{clip.episode_id}/{k:04d}", start_s=start, end_s=end)


def windowed(root: Path, clip: Clip, *, longest_s: float = LONGEST_WINDOW_S) -> Iterator[Clip]:
    """Equal windows `/0000` ... over a whole video, by its header; one clip with a problem when that is unreadable."""
    if clip.problem:
        yield clip
        return
    try:
        header = video_header(inside(root, clip.path), clip.byte_range)
        spans = windows(_start(header), float(header.end_s), longest_s=longest_s)
        if len(spans) > MAX_WINDOWS:
            problem = f"the video header states {float(header.end_s):.0f} s, which would give {len(spans)} windows; the header is probably damaged"
            raise SourceError(Code.CORRUPT_VIDEO, problem)
    except SourceError as error:
        yield clip.broken(error.code, error.message)
        return
    for k, (start, end) in enumerate(spans):
        yield replace(clip, episode_id=f"{clip.episode_id}/{k:04d}", start_s=start, end_s=end)


def clip_ref(
    source: str,
    dataset: str,
    root: Path,
    clip: Clip,
    facts: tuple[Fact, ...],
    more: Mapping[str, Any] = MappingProxyType({}),
) -> EpisodeRef:
    """The ref of a clip; `clip_of` gives the clip back, and `more` is in the locator beside it."""
    whole_s = 0.0 if clip.end_s is None else clip.end_s - clip.start_s
    return EpisodeRef(
        source=source,
        dataset=dataset,
        episode_id=clip.episode_id,
        root=str(root),
        locator=(*((name, getattr(clip, name)) for name in IN_LOCATOR), *more.items()),
        facts=facts,
        duration_hint_s=max(whole_s, 0.0),
        bytes_hint=clip.num_bytes,
        problem=clip.problem,
        stands_for=clip.stands_for,
        source_split=clip.source_split,
    )


def clip_of(ref: EpisodeRef) -> Clip:
    held = dict(ref.locator)
    return Clip(episode_id=ref.episode_id, **{name: held[name] for name in IN_LOCATOR})


def load_clip(ref: EpisodeRef, licence: Licence) -> Episode:
    """One camera per view, the clip's text as the task; what lies beyond the file is cut off and said in a fact.

    Raises:
        SourceError: MISSING_VIDEO, CORRUPT_VIDEO, TRUNCATED, UNSAFE_PATH, or BAD_ANNOTATION (nothing of it is in the file).
    """
    clip, root = clip_of(ref), Path(ref.root)
    cameras, raw_files, facts = [], [], list(ref.facts)
    rates = []
    for camera, name in ((clip.camera, clip.path), *clip.views):
        path = inside(root, name)
        header = video_header(path, clip.byte_range)
        window, clamped = _window(path, clip, header)
        cameras.append(Camera(name=camera, frames=window))
        raw_files.append(_raw(path, root, clip))
        facts += [_clamped_fact(camera, clamped)] if clamped else []
        rates.append(header.rate_hz)
    return Episode(
        ref=ref,
        embodiment=EMBODIMENT,
        rate_hz=clip.rate_hz or rates[0],
        cameras=tuple(cameras),
        instructions=(Instruction(text=clip.text),) if clip.text.strip() else (),
        facts=tuple(facts),
        licence=licence,
        raw_files=tuple(raw_files),
        subject_id=clip.subject_id,
        scene_id=clip.scene_id,
    )


def _raw(path: Path, root: Path, clip: Clip) -> RawFile:
    if clip.byte_range is None:
        return raw_file_of(path, root)
    return raw_part_of(path, root, clip.byte_range, clip.member)


def _start(header: VideoHeader) -> float:
    return max(float(header.start_s), 0.0)


def _window(path: Path, clip: Clip, header: VideoHeader) -> tuple[VideoWindow, str]:
    """The clip within what the file holds, and in words what was cut off, if anything worth the word."""
    stated = (clip.start_s, float(header.end_s) if clip.end_s is None else clip.end_s)
    start, end = max(stated[0], _start(header)), min(stated[1], float(header.end_s))
    span, held = f"[{stated[0]}, {stated[1]}) s", f"[{_start(header)}, {float(header.end_s)}) s"
    if start >= end:
        problem = f"segment {span} is outside the file, which covers {held}"
        raise SourceError(Code.BAD_ANNOTATION, problem, where=clip.path)
    window = VideoWindow(path=str(path), start_s=start, end_s=end, byte_range=clip.byte_range)
    is_cut = clip.end_s is not None and clip.end_s - end > ROUNDING_S
    return window, f"{span} ends where the file does: {held}" if is_cut else ""


def _clamped_fact(camera: str, clamped: str) -> Fact:
    return Fact(
        name=f"segment_clamped.{camera}",
        value=clamped,
        certainty=Certainty.VERIFIED,
        source="annotation against the video's header",
        is_for_actions=False,
    )
