"""Ego4D v2 / v2.1: egocentric video with narrations, hand-object actions (FHO) and Goal-Step. No robot, no action.

Layout: tree.py; annotations: annotations.py, segments.py. One episode per annotated segment or window; everything is in seconds of
the container's PTS, never in frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from adapters.base import SourceInfo
from adapters.containers.video_clip import Clip, clip_ref, load_clip, no_camera_pose
from adapters.ego4d.listing import Placed, counted, metadata_of, placed, source_splits
from adapters.ego4d.tree import WINDOWS, Ego4dTree, tree_at
from schemas.episode import Episode, EpisodeRef, Licence
from schemas.fact import Certainty, Fact
from schemas.rate import rate_from

LICENCE = Licence(name="Ego4D licence", allows_redistribution=False)
FACTS = (
    no_camera_pose("core Ego4D has none per frame: EGO4D/docs:docs/data/annotations-schemas.md"),
    Fact(
        name="segment_clock",
        value="seconds of the canonical video's container PTS",
        certainty=Certainty.VERIFIED,
        source="EGO4D/docs:docs/data/videos.md; real Goal-Step and narration rows",
        is_for_actions=False,
    ),
    Fact(
        name="narration_interval",
        value="t -/+ beta/(2*4.9 s), length within [1, 8] s, ended by the next narration",
        certainty=Certainty.THIRD_PARTY,
        source="showlab/EgoVLP:README.md; the clamp is ours",
        is_for_actions=False,
    ),
)


class Ego4D:
    """Reads a download made by the official `ego4d` command."""

    name: ClassVar[str] = "ego4d"
    version: ClassVar[int] = 3
    container: ClassVar[str] = "mp4 + json"
    about: ClassVar[str] = "egocentric video with narrations, FHO and Goal-Step; no actions"

    def survey(self, root: Path, options: Mapping[str, str]) -> SourceInfo:
        """Read every annotation file once and count what it gives and what it leaves out, by reason.

        Raises:
            ConfigError: no Ego4D download, an unknown option, or an annotation file that is no JSON.
        """
        tree = tree_at(root, options)
        metadata = metadata_of(tree.metadata)
        counts, left_out = counted(tree, metadata)
        kinds = sorted({kind for kind, _ in tree.annotations})
        details = {
            "annotations": ",".join([*kinds, *({WINDOWS} & set(tree.kinds))]) or WINDOWS,
            "videos": tree.folder,
            "videos_listed": str(len(metadata.videos)),
            "videos_on_disk": str(len(tree.files)),
        }
        details |= {name: str(count) for name, count in sorted((counts + left_out).items())}
        notes = [f"{count} rows are no episode: {why}" for why, count in sorted(left_out.items())]
        notes += [] if tree.metadata else ["no ego4d.json: redacted and stereo videos unknown"]
        return SourceInfo(
            source=self.name,
            dataset=self.name,
            licence=LICENCE,
            facts=FACTS,
            notes=tuple(notes),
            details=details,
        )

    def discover(self, root: Path, info: SourceInfo) -> Iterator[EpisodeRef]:
        """Yield one ref per segment in file order, then windows, then one per unusable video.

        Raises:
            ConfigError: as `survey`.
        """
        tree = tree_at(root, {key: info.details[key] for key in ("annotations", "videos")})
        metadata = metadata_of(tree.metadata)
        published = source_splits(tree, metadata)
        for one in placed(tree, metadata):
            yield _ref(tree, one, published.get(one.video.video_uid, ""))

    def load(self, ref: EpisodeRef) -> Episode:
        """Return one segment as a camera window with its instruction.

        Raises:
            SourceError: MISSING_VIDEO, CORRUPT_VIDEO, UNSAFE_PATH, or BAD_ANNOTATION (not in this file).
        """
        return load_clip(ref, LICENCE)


def _ref(tree: Ego4dTree, one: Placed, source_split: str) -> EpisodeRef:
    video, segment, fps = one.video, one.segment, one.video.video_metadata.fps
    clip = Clip(
        episode_id=one.episode_id,
        path=one.path,
        start_s=segment.start_s - one.offset_s,
        end_s=segment.end_s - one.offset_s,
        text=segment.text,
        rate_hz=rate_from(fps) if fps is not None and 1 <= fps <= 1000 else None,
        subject_id=None if video.fb_participant_id is None else str(video.fb_participant_id),
        scene_id=video.physical_setting_name,
        problem=segment.problem,
        source_split=source_split,
    )
    ref = clip_ref(Ego4D.name, Ego4D.name, tree.root, clip, FACTS)
    return replace(ref, stands_for=one.stands_for)
