"""Every segment of an Ego4D download with the file that shows it, and the published split of its video.

Every segment of an Ego4D download with the file that shows it, one annotation file after the other.

Which split Ego4D publishes a video in, over all its benchmarks.

ego4d.json gives one word per benchmark (`split_em`, `split_av`, `split_fho`), Goal-Step one file per split. An episode shows the
same pictures whichever benchmark its text is from, so a video takes the strictest of all of them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from adapters.containers.json_rows import Broken
from adapters.containers.video_probe import video_header
from adapters.ego4d.annotations import (
    Ego4dClip,
    Ego4dVideo,
    FhoVideo,
    GoalStepVideo,
    metadata_entries,
    narration_entries,
    video_entries,
)
from adapters.ego4d.segments import (
    ROUNDING_S,
    AnnotatedSegments,
    Bounds,
    Ego4dSegment,
    cut_long,
    fho_segments,
    goalstep_segments,
    mark_redacted,
    narration_segments,
    window_segments,
)
from adapters.ego4d.tree import WINDOWS, Ego4dTree
from schemas.errors import Code, SourceError
from schemas.source_split import source_split_of, strictest

# -- listing -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """ego4d.json, or nothing where it is absent: then files and annotations speak for themselves."""

    videos: dict[str, Ego4dVideo] = field(default_factory=dict)
    clips: dict[str, list[Ego4dClip]] = field(default_factory=dict)  # by video, in order of start
    broken: tuple[tuple[str, Broken], ...] = ()

    def video(self, uid: str) -> Ego4dVideo:
        return self.videos.get(uid) or Ego4dVideo(video_uid=uid or "unknown")


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A segment and where to see it: file seconds are video seconds minus `offset_s`."""

    episode_id: str
    video: Ego4dVideo
    segment: Ego4dSegment
    path: str = ""  # relative to the root; empty with a problem
    offset_s: float = 0.0
    stands_for: int = 1  # segments that are lost with an unusable video


def metadata_of(path: Path | None) -> Metadata:
    """Read ego4d.json."""
    videos: dict[str, Ego4dVideo] = {}
    clips: dict[str, list[Ego4dClip]] = {}
    broken: list[tuple[str, Broken]] = []
    for where, row in metadata_entries(path) if path else ():
        if isinstance(row, Ego4dVideo):
            videos[row.video_uid] = row
        elif isinstance(row, Ego4dClip):
            clips.setdefault(row.video_uid, []).append(row)
        else:
            broken.append((where, row))
    for of_video in clips.values():
        of_video.sort(key=lambda clip: (clip.video_start_sec, clip.clip_uid))
    return Metadata(videos=videos, clips=clips, broken=tuple(broken))


def annotated(tree: Ego4dTree, metadata: Metadata) -> Iterator[tuple[str, str, AnnotatedSegments]]:
    """(kind, video uid, what was found) for each video of each chosen annotation file, in file order."""
    seen: set[tuple[str, str]] = set()
    for kind, path in tree.annotations:
        for uid, annotation in _entries(kind, path, metadata):
            if uid and (kind, uid) in seen:  # the same video in two splits, or twice in a file
                repeats = {f"{kind}_repeated_videos": 1}
                yield kind, uid, AnnotatedSegments(faults=repeats)
                continue
            seen.add((kind, uid))
            redacted = metadata.video(uid).redacted_s
            whole = (part for segment in annotation.segments for part in cut_long(segment))
            yield (
                kind,
                uid,
                replace(annotation, segments=tuple(mark_redacted(s, redacted) for s in whole)),
            )


def placed(tree: Ego4dTree, metadata: Metadata) -> Iterator[Placed]:
    """Every episode: segments in file order, then windows of unannotated videos, then unusable videos."""
    for where, row in metadata.broken:
        yield _broken(f"ego4d.json/{where}", row.why)
    lost: Counter[str] = Counter()
    with_rows: set[str] = set()
    for kind, uid, annotation in annotated(tree, metadata):
        if annotation.segments or annotation.left_out:
            with_rows.add(uid)
        yield from _of_video(tree, metadata, uid, annotation.segments, lost, kind)
    if WINDOWS in tree.kinds:
        for uid in _unannotated(tree, metadata, with_rows):
            segments = _windows_of(tree, metadata, uid)
            yield from _of_video(tree, metadata, uid, segments, lost, WINDOWS)
    for uid in sorted(lost):
        code, why = why_unusable(tree, metadata, uid) or _not_in_a_clip()
        message = f"{why}; {lost[uid]} segments are not listed individually"
        segment = Ego4dSegment(key="video", start_s=0.0, end_s=0.0, problem=(code.value, message))
        video = metadata.video(uid)
        yield Placed(
            episode_id=f"{uid}/video", video=video, segment=segment, stands_for=max(lost[uid], 1)
        )


def counted(tree: Ego4dTree, metadata: Metadata) -> tuple[Counter[str], Counter[str]]:
    """Counts of segments and irregularities, and of rows that are no segment, by reason."""
    counts: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    for kind, uid, annotation in annotated(tree, metadata):
        counts[f"{kind}_videos"] += 1
        counts[f"{kind}_segments"] += len(annotation.segments)
        counts.update(annotation.faults)
        left_out.update(annotation.left_out)
        if uid and why_unusable(tree, metadata, uid):
            counts[f"{kind}_segments_of_unusable_videos"] += len(annotation.segments)
    return counts, left_out


def why_unusable(tree: Ego4dTree, metadata: Metadata, uid: str) -> tuple[Code, str] | None:
    """What keeps a whole video from being used; None when it is there and single-eyed."""
    if metadata.video(uid).is_stereo:
        return Code.KNOWN_DEFECT, "is_stereo: two images in one frame"
    if _files_of(tree, metadata, uid):
        return None
    return Code.MISSING_VIDEO, f"no file in {tree.folder} contains it; download it"


def _of_video(
    tree: Ego4dTree,
    metadata: Metadata,
    uid: str,
    segments: tuple[Ego4dSegment, ...],
    lost: Counter[str],
    kind: str,
) -> Iterator[Placed]:
    """The segments of one video with their file; those of an unusable one are only counted in `lost`."""
    if not uid:  # an entry so broken that it names no video
        for segment in segments:
            yield _broken(f"{kind}/{segment.key}", segment.problem[1] if segment.problem else "")
        return
    if why_unusable(tree, metadata, uid):
        lost[uid] += len(segments)
        return
    video, files = metadata.video(uid), _files_of(tree, metadata, uid)
    for segment in segments:
        at = next(
            (f for f in files if _holds(f[2], segment)), files[0] if segment.problem else None
        )
        if at is None:
            lost[uid] += 1
            continue
        name = f"{uid}/{segment.key}"
        yield Placed(episode_id=name, video=video, segment=segment, path=at[0], offset_s=at[1])


def _files_of(tree: Ego4dTree, metadata: Metadata, uid: str) -> list[tuple[str, float, Bounds]]:
    """(file, offset, the part of the video that it shows) of each file that shows part of a video.

    Clip seconds are video seconds minus the clip's start (verified on real rows, video.md §0).
    """
    if tree.folder != "clips":
        return [(tree.files[uid], 0.0, (0.0, math.inf))] if uid in tree.files else []
    return [
        (
            tree.files[clip.clip_uid],
            float(clip.video_start_sec),
            (float(clip.video_start_sec), float(clip.video_end_sec)),
        )
        for clip in metadata.clips.get(uid, ())
        if clip.clip_uid in tree.files
    ]


def _holds(part: Bounds, segment: Ego4dSegment) -> bool:
    return part[0] - ROUNDING_S <= segment.start_s and segment.end_s <= part[1] + ROUNDING_S


def _unannotated(tree: Ego4dTree, metadata: Metadata, with_rows: set[str]) -> list[str]:
    on_disk = set(tree.files) if tree.folder != "clips" else set()
    return sorted((set(metadata.videos) | on_disk) - with_rows)


def _windows_of(tree: Ego4dTree, metadata: Metadata, uid: str) -> tuple[Ego4dSegment, ...]:
    """Windows over a video, cut where it is redacted and where a clip begins or ends."""
    if why_unusable(tree, metadata, uid):
        return ()
    video = metadata.video(uid)
    files = _files_of(tree, metadata, uid)
    try:
        bounds = video.bounds_s
        if math.isinf(bounds[1]) and tree.folder != "clips":
            header = video_header(tree.path(files[0][0]))
            bounds = max(float(header.start_s), 0.0), float(header.end_s)
        elif math.isinf(bounds[1]):
            bounds = bounds[0], max(part[1] for _, _, part in files)
    except SourceError as error:
        problem = (error.code.value, error.message)
        return (Ego4dSegment(key="window/0000", start_s=0.0, end_s=0.0, problem=problem),)
    breaks = [t for span in (*video.redacted_s, *(part for _, _, part in files)) for t in span]
    segments = window_segments(bounds, breaks)
    return tuple(mark_redacted(segment, video.redacted_s) for segment in segments)


def _entries(kind: str, path: Path, metadata: Metadata) -> Iterator[tuple[str, AnnotatedSegments]]:
    """(video uid, found) of each entry of one file; the uid is empty where the entry is broken."""
    if kind == "narrations":
        for uid, passes in narration_entries(path):
            if isinstance(passes, Broken):
                yield "", _unnamed(f"{path.name}/{uid}", passes)
            else:
                yield uid, narration_segments(passes, metadata.video(uid).bounds_s)
    elif kind == "fho":
        for where, fho in video_entries(path, FhoVideo):
            if isinstance(fho, Broken):
                yield "", _unnamed(f"{path.name}/{where}", fho)
            else:
                yield fho.video_uid, fho_segments(fho, metadata.video(fho.video_uid).bounds_s)
    else:
        for where, goal in video_entries(path, GoalStepVideo):
            if isinstance(goal, Broken):
                yield "", _unnamed(f"{path.name}/{where}", goal)
            else:
                bounds = metadata.video(goal.video_uid).bounds_s
                yield goal.video_uid, goalstep_segments(goal, bounds)


def _unnamed(name: str, row: Broken) -> AnnotatedSegments:
    """What an entry gives that does not even name its video."""
    problem = (Code.BAD_ANNOTATION.value, row.why)
    return AnnotatedSegments(
        segments=(Ego4dSegment(key=name, start_s=0.0, end_s=0.0, problem=problem),)
    )


def _broken(name: str, why: str) -> Placed:
    problem = (Code.BAD_ANNOTATION.value, why)
    segment = Ego4dSegment(key="", start_s=0.0, end_s=0.0, problem=problem)
    return Placed(episode_id=name, video=Ego4dVideo(video_uid="unknown"), segment=segment)


def _not_in_a_clip() -> tuple[Code, str]:
    return Code.MISSING_VIDEO, "no local clip contains the whole segment; use full_scale videos"


# -- splits --------------------------------------------------------------------------------------------------------

MULTI = "multi"  # clips of one video are in several splits; which, the metadata of the video do not say (UNVERIFIED)


def source_splits(tree: Ego4dTree, metadata: Metadata) -> dict[str, str]:
    """Split by video uid; a video that nothing lists is not in it."""
    splits = {
        uid: strictest(map(_split, (video.split_em, video.split_av, video.split_fho)))
        for uid, video in metadata.videos.items()
    }
    for path in tree.goalstep:
        split = source_split_of(path.stem.removeprefix("goalstep_"))
        for _, row in video_entries(path, GoalStepVideo):
            if not isinstance(row, Broken):
                splits[row.video_uid] = strictest((splits.get(row.video_uid, ""), split))
    return splits


def _split(word: Any) -> str:
    """`multi` is held out as test, because some of the video may be."""
    if not isinstance(word, str):
        return ""
    return "test" if word == MULTI else source_split_of(word)
