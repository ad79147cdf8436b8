"""HoloAssist: people who assemble, repair and operate things under spoken instruction; HoloLens 2 with both hands. MP4 and text, 30 Hz.

    <session>/Export_py/{Video_pitchshift.mp4, Video/*.txt, Hands/*_sync.txt}     recording.py, sync.py
    data-annotation-trainval-v1_1.json, or labels/<session>.json                  labels.py
One episode a coarse action (its fine ones are subtasks), or a fine one with option segments=fine; unlabelled sessions in windows.
Everything goes by the ticks of the rows and the PTS of the video, which begins at the first tick of VideoMp4Timing.txt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

from adapters.base import SourceInfo
from adapters.containers.video_clip import clip_ref, load_clip
from adapters.holoassist.labels import KINDS, count, instructions, labels_in
from adapters.holoassist.recording import FACTS, LICENCE, lens_fact, recording_of
from adapters.holoassist.tree import segments_in, source_splits, tree_at
from schemas.episode import Camera, Episode, EpisodeRef, VideoWindow
from schemas.errors import ConfigError

RATE_HZ = Fraction(30)


class HoloAssist:
    """Adapter for `holoassist`; options `segments`, `annotations`."""

    name: ClassVar[str] = "holoassist"
    path_options: ClassVar[tuple[str, ...]] = ("annotations",)
    version: ClassVar[int] = 2
    container: ClassVar[str] = "mp4 + text + json"
    about: ClassVar[str] = (
        "HoloAssist: both hands, 26 joints each, head camera and its pose, labelled actions"
    )

    def survey(self, root: Path, options: Mapping[str, str]) -> SourceInfo:
        """Read all labels once and count them. ConfigError: no such download, or an option that does not hold."""
        tree, kind = tree_at(root, options), _kind(options)
        counts: Counter[str] = Counter(sessions_on_disk=len(tree.sessions))
        for path in tree.labels:
            for labels in labels_in(path):
                counts.update(count(labels))
        details = {name: str(number) for name, number in sorted(counts.items()) if number}
        details |= {"segments": kind, "annotations": options.get("annotations", "")}
        return SourceInfo(
            source=self.name, dataset=self.name, licence=LICENCE, facts=FACTS, details=details
        )

    def discover(self, root: Path, info: SourceInfo) -> Iterator[EpisodeRef]:
        """Sessions in the order of the labels, one ref for a session that is not there whole, then unlabelled sessions."""
        named = info.details["annotations"]
        tree = tree_at(root, {"annotations": named} if named else {})
        published = source_splits(root)
        for segment, folder in segments_in(tree, info.details["segments"]):
            session = Path(folder).name or segment.clip.episode_id.partition("/")[0]
            clip = replace(segment.clip, source_split=published.get(session, ""))
            more = {"folder": folder, "told": segment.texts, "success": segment.success}
            facts = (*FACTS, *segment.facts)
            yield clip_ref(self.name, self.name, root, clip, facts, more)

    def load(self, ref: EpisodeRef) -> Episode:
        """One segment, from its first camera pose on. Raises as `load_clip` and `recording_of`."""
        episode = load_clip(ref, LICENCE)
        (camera,) = episode.cameras
        assert isinstance(camera.frames, VideoWindow)
        span = camera.frames
        rec = recording_of(Path(ref.root), ref.at("folder"), span.start_s, span.end_s)
        seen = Camera(
            name=camera.name,
            frames=replace(span, start_s=rec.start_s),
            K_cam=rec.intrinsics.K_cam,
            K_size=rec.intrinsics.size,
        )
        return replace(
            episode,
            embodiment="human_hands",
            rate_hz=min(episode.rate_hz, RATE_HZ),
            streams=(rec.camera_motion,),
            cameras=(seen,),
            hands=rec.hands,
            world_up="+z",
            instructions=(
                *episode.instructions,
                *instructions(ref.at("told"), rec.start_s, span.end_s),
            ),
            facts=(
                *episode.facts,
                *rec.facts,
                *lens_fact(has_distortion=rec.intrinsics.has_distortion),
            ),
            raw_files=(*episode.raw_files, *rec.raw_files),
            success=ref.at("success"),
        )


def _kind(options: Mapping[str, str]) -> str:
    kind = options.get("segments", KINDS[0])
    if kind not in KINDS:
        raise ConfigError(f"segments={kind!r}; expected one of {', '.join(KINDS)}")
    return kind
