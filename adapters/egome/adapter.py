"""EgoMe: 7,902 pairs of videos from a head camera: people watch a demonstrator (exo), then do the same (ego). No actions.

    {train,val,test}.json or total.json, at the root or in EgoMe_Annotation/ or annotations/       annotations.py
    .../<video name>.mp4                                                                           annotations.py

Only the ego video of a pair shows the wearer's own hands at work; exo videos are not read. Files come after approval by the authors
and no real one was at hand: keys are third party, where files lie is UNVERIFIED, and what is not as expected fails. Not
read: eye gaze, IMU. See docs/reference/sources/egome.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from adapters.base import SourceInfo
from adapters.containers.listing import natural_key
from adapters.containers.safe_path import inside
from adapters.containers.video_clip import Clip, clip_ref, load_clip, no_camera_pose
from adapters.containers.video_probe import video_header
from adapters.egome.annotations import EgomeVideo, annotation_files, clip_for, video_files, videos
from schemas.episode import Episode, EpisodeRef, Instruction, Licence
from schemas.errors import Code, ConfigError, SourceError
from schemas.fact import Certainty, Fact, fact
from schemas.rate import NS_PER_S
from schemas.source_split import source_split_of, strictest

LICENCE = Licence(name="EgoMe agreement, after approval", allows_commercial=False)
READER = "jack1ee/SAVAX:utils/convert_egome_annotations.py, data/video_egome_dataset.py"
FACTS = (
    no_camera_pose("IMU only; a head camera without a pose", Certainty.INFERRED),
    fact("annotation_keys", "as SAVAX reads them", Certainty.THIRD_PARTY, READER),
    fact("video_files", "by name below the root", Certainty.UNVERIFIED, "no real file was at hand"),
    fact("step_clock", "seconds from the video's start", Certainty.UNVERIFIED, READER),
)
MAX_OFF_S, MAX_OFF_SHARE = 1.0, 0.05  # of a stated duration against the file's


class EgoMe:
    """Adapter for `egome`."""

    name: ClassVar[str] = "egome"
    path_options: ClassVar[tuple[str, ...]] = ("annotations",)
    version: ClassVar[int] = 2
    container: ClassVar[str] = "mp4 + json"
    about: ClassVar[str] = "EgoMe: people imitate a demonstrator, head camera; steps, no actions"

    def survey(self, root: Path, options: Mapping[str, str]) -> SourceInfo:
        """Option: `annotations` (the folder of the JSON files, below the root). ConfigError: no or another layout."""
        if unknown := sorted(set(options) - {"annotations"}):
            raise ConfigError(f"unknown options {unknown}; expected annotations=FOLDER")
        counts = Counter(files=sum(map(len, video_files(root).values())))
        for split, path in annotation_files(root, options).items():
            for video in videos(split, path):
                counts[f"{split}_{'broken' if video.why else video.view}"] += 1
        return SourceInfo(
            source=self.name,
            dataset=self.name,
            licence=LICENCE,
            facts=FACTS,
            details={**options, **{name: str(n) for name, n in sorted(counts.items())}},
        )

    def discover(self, root: Path, info: SourceInfo) -> Iterator[EpisodeRef]:
        """Every ego video by name, then files that no annotation names: their view is not known."""
        options = {k: v for k, v in info.details.items() if k == "annotations"}
        files = video_files(root)
        listed = [v for s, p in annotation_files(root, options).items() for v in videos(s, p)]
        published = _source_splits(listed)
        seen: Counter[str] = Counter()
        for video in sorted(listed, key=lambda v: (natural_key(v.name), v.split)):
            if video.view == "exo":
                continue
            clip = clip_for(video, files)
            if again := seen[video.name]:
                clip = Clip(episode_id=f"{video.name}/again/{again}")
                clip = clip.broken(Code.BAD_ANNOTATION, f"a second entry of {video.name}")
            seen[video.name] += 1
            clip = replace(clip, source_split=published[video.name])
            yield clip_ref(self.name, self.name, root, clip, _facts(video), _more(video))
        for stem in sorted(set(files) - {n for v in listed for n in (v.name, v.base)}):
            for path in files[stem]:
                clip = Clip(episode_id=path).broken(Code.MISSING_META, "no annotation refers to it")
                yield clip_ref(self.name, self.name, root, clip, FACTS)

    def load(self, ref: EpisodeRef) -> Episode:
        """The whole video, its sentence as task and its steps as subtasks. Raises as `load_clip`, or BAD_ANNOTATION."""
        episode, stated_s = load_clip(ref, LICENCE), float(ref.at("duration_s"))
        header = video_header(inside(Path(ref.root), ref.at("path")))
        held_s = float(header.end_s) - max(float(header.start_s), 0.0)
        if abs(held_s - stated_s) > max(MAX_OFF_S, MAX_OFF_SHARE * stated_s):
            problem = f"Duration {stated_s:g} for a video of {held_s:g} s; the unit is not seconds, or the video is truncated"
            raise SourceError(Code.BAD_ANNOTATION, problem, where=ref.at("path"))
        steps = tuple(_instructions(ref, held_s))
        instructions = (*episode.instructions, *steps)
        return replace(episode, instructions=instructions, success=bool(ref.at("is_right")))


def _source_splits(listed: Iterable[EgomeVideo]) -> dict[str, str]:
    """Split by video: the strictest one where several files list it, "" where only total.json does."""
    splits: dict[str, str] = {}
    for video in listed:
        known = splits.get(video.name, "")
        splits[video.name] = strictest((known, source_split_of(video.split)))
    return splits


def _more(video: EgomeVideo) -> dict[str, object]:
    """What the locator carries beside the clip."""
    return {"duration_s": video.duration_s, "steps": video.steps, "is_right": video.is_right}


def _facts(video: EgomeVideo) -> tuple[Fact, ...]:
    own = {"split": video.split, "step_verdicts": " ".join(step[3] for step in video.steps)}
    if video.left_out:
        own["steps_left_out"] = f"{video.left_out} without text or length"
    return (*FACTS, *(fact(k, v, Certainty.THIRD_PARTY, READER) for k, v in own.items() if v))


def _instructions(ref: EpisodeRef, held_s: float) -> Iterator[Instruction]:
    """Steps on the episode's clock; a rounded end beyond the file's is cut to it."""
    for start_s, end_s, text, _ in ref.at("steps"):
        start, end = (round(min(s, held_s) * NS_PER_S) for s in (start_s, end_s))
        if start < end:
            yield Instruction(text=text, start_ns=start, end_ns=end, kind="subtask")
