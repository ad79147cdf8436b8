"""EPIC-KITCHENS-100: kitchen video from a head camera, every narrated action a segment. No robot, no action.

ROOT[/EPIC-KITCHENS]/P01/videos/P01_01.MP4 as the official script leaves it (epic-kitchens/epic-kitchens-download-scripts:
epic_downloader.py) and the CSV files of epic-kitchens/epic-kitchens-100-annotations; see docs/reference/sources/epic_kitchens.md.
Segments go by TIMESTAMP. The frame columns count extracted frames: sought in the video they lead up to 1.65 s astray.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from adapters.base import SourceInfo
from adapters.containers.video_clip import Clip, clip_ref, cut, load_clip, no_camera_pose, windowed
from adapters.epic_kitchens.segments import (
    OPTIONS,
    WINDOWS,
    EpicRow,
    EpicTree,
    is_extension,
    read_rows,
    tree_at,
)
from schemas.episode import Episode, EpisodeRef, Licence
from schemas.errors import Code
from schemas.fact import Certainty, fact
from schemas.source_split import source_split_of, strictest

LICENCE = Licence(name="CC BY-NC 4.0", allows_commercial=False, allows_redistribution=True)
REPO = "epic-kitchens/epic-kitchens-100-annotations"
FACTS = (
    no_camera_pose("the poses of EPIC-Fields have no metric scale and are not read"),
    fact(
        "segment_clock", "seconds of the container's PTS", Certainty.VERIFIED, f"{REPO}: all rows"
    ),
)


class EpicKitchens:
    """Reads a download by the official script; options `splits`, `annotations`."""

    name: ClassVar[str] = "epic_kitchens"
    path_options: ClassVar[tuple[str, ...]] = ("annotations",)
    version: ClassVar[int] = 2
    container: ClassVar[str] = "mp4 + csv"
    about: ClassVar[str] = "EPIC-KITCHENS-100: egocentric video with narrated actions; no actions"

    def survey(self, root: Path, options: Mapping[str, str]) -> SourceInfo:
        """Read every chosen CSV file once. ConfigError: nothing there, or an option that does not hold."""
        tree = tree_at(root, options)
        counts: Counter[str] = Counter(videos_on_disk=len(tree.videos))
        for split, path in tree.rows:
            for row in read_rows(path):
                counts[f"{split}_segments"] += 1
                counts["segments_without_video"] += not row.why and row.video_id not in tree.videos
                counts["rows_that_do_not_hold"] += bool(row.why)
        chosen = [split for split, _ in tree.rows] + [WINDOWS] * tree.has_windows
        details = {"splits": ",".join(chosen), "annotations": options.get("annotations", "")}
        return SourceInfo(
            source=self.name,
            dataset=self.name,
            licence=LICENCE,
            facts=FACTS,
            details=details | {name: str(count) for name, count in sorted(counts.items())},
        )

    def discover(self, root: Path, info: SourceInfo) -> Iterator[EpisodeRef]:
        """Segments in file order, one ref per video that is not there, then windows of videos without rows."""
        tree = tree_at(root, {key: info.details[key] for key in OPTIONS if info.details[key]})
        published = _source_splits(tree)
        for clip in _clips(tree):
            placed = replace(clip, source_split=published.get(_video_of(clip), ""))
            release = "extension" if is_extension(clip.episode_id) else "EPIC-55"
            of_clip = fact("release", release, Certainty.DOCUMENTED, f"{REPO}:README.md")
            yield clip_ref(self.name, self.name, root, placed, (*FACTS, of_clip))

    def load(self, ref: EpisodeRef) -> Episode:
        """One segment as a camera window; what runs past the video's end is cut, and a fact says so.

        Raises:
            SourceError: as `load_clip`.
        """
        return load_clip(ref, LICENCE)


def _source_splits(tree: EpicTree) -> dict[str, str]:
    """Split by video, which the CSV files never divide: the strictest one where they disagree."""
    splits: dict[str, str] = {}
    for split, path in tree.all_rows:
        for row in read_rows(path):
            known = splits.get(row.video_id, "")
            splits[row.video_id] = strictest((known, source_split_of(split)))
    return splits


def _video_of(clip: Clip) -> str:
    """P01_01 of a clip, also of one whose file is not there."""
    return Path(clip.path).stem if clip.path else clip.episode_id.partition("/")[0]


def _clips(tree: EpicTree) -> Iterator[Clip]:
    lost: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    with_rows: set[str] = set()
    for _, path in tree.rows:
        for row in read_rows(path):
            seen[row.narration_id] += 1
            with_rows.add(row.video_id)
            if row.why or seen[row.narration_id] > 1:
                name = f"{row.narration_id} (row {sum(seen.values())})"
                why = row.why or "a second action with this id"
                yield Clip(episode_id=name).broken(Code.BAD_ANNOTATION, why)
            elif row.video_id in tree.videos:
                yield from cut(_clip(tree, row))
            else:
                lost[row.video_id] += 1
    for video_id, count in sorted(lost.items()):
        message = f"P??/videos/{video_id}.MP4 is missing, which {count} segments need; download it"
        clip = Clip(episode_id=f"{video_id}/video")
        yield clip.broken(Code.MISSING_VIDEO, message, stands_for=count)
    for video_id in sorted(tree.videos.keys() - with_rows if tree.has_windows else ()):
        person = video_id.partition("_")[0]
        whole = Clip(episode_id=video_id, path=tree.videos[video_id], subject_id=person)
        yield from windowed(tree.root, whole)


def _clip(tree: EpicTree, row: EpicRow) -> Clip:
    return Clip(
        episode_id=row.narration_id,
        path=tree.videos[row.video_id],
        start_s=row.start_s,
        end_s=row.stop_s,
        text=row.narration,
        subject_id=row.participant_id,
    )
