"""Ego-Exo4D v2: skilled activity seen by the wearer's Aria glasses and standing GoPros; keysteps, descriptions, hands of some.

takes.json, takes/<take_name>/frame_aligned_videos/*.mp4 (or downscaled/448/), annotations/{keystep,atomic_descriptions}_{train,val}.
json and annotations/ego_pose/ (hands.py) as the official `egoexo` command leaves them (EGO4D/Ego-Exo4D-docs:docs/
download.md). Everything is in seconds of the take, the one clock of its videos. See docs/reference/sources/ego_exo4d.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from adapters.base import SourceInfo
from adapters.containers.json_rows import Broken
from adapters.containers.video_clip import Clip, clip_ref, cut, load_clip, no_camera_pose, windowed
from adapters.ego_exo4d.hands import pose_files, with_hands
from adapters.ego_exo4d.segments import EgoExo4dSegment, annotated
from adapters.ego_exo4d.takes import (
    OPTIONS,
    SMALL,
    WINDOWS,
    Choice,
    Take,
    chosen_from,
    ego_file,
    small,
    source_splits,
    takes_in,
    video_file,
)
from schemas.episode import Episode, EpisodeRef, Licence
from schemas.errors import Code, SourceError
from schemas.fact import Certainty, fact

LICENCE = Licence(name="Ego-Exo4D licence", allows_redistribution=False)
FACTS = (
    no_camera_pose("closed_loop_trajectory.csv is not read by this adapter"),
    fact(
        "description_interval",
        "half the gap to each neighbour, each half within [0.5, 4] s",
        Certainty.INFERRED,
        "an atomic description is a point in time",
    ),
)


class EgoExo4D:
    """Reads a download by the official command; options `annotations`, `cameras` (beside the ego one), `hands`."""

    name: ClassVar[str] = "ego_exo4d"
    version: ClassVar[int] = 3
    container: ClassVar[str] = "mp4 + json"
    about: ClassVar[str] = (
        "Ego-Exo4D: the wearer's view with keysteps and descriptions; hands of some takes"
    )

    def survey(self, root: Path, options: Mapping[str, str]) -> SourceInfo:
        """Read every annotation file once and count. ConfigError: no takes.json, or an option that does not hold."""
        chosen = chosen_from(root, options)
        uids = [getattr(take, "take_uid", "") for _, take in takes_in(root / "takes.json")]
        counts: Counter[str] = Counter(takes=len(uids))
        counts["takes_with_hands"] = sum(bool(pose_files(root, u, chosen.hands)) for u in uids)
        for kind, path in chosen.files:
            for _, segments, left_out in annotated(kind, path):
                counts[f"{kind}_segments"] += len(segments)
                counts.update(left_out)
        kinds = [*dict(chosen.files), *([WINDOWS] * chosen.has_windows)]
        details = {"annotations": ",".join(kinds), "cameras": ",".join(chosen.exo)}
        details["hands"] = ",".join(chosen.hands) or "none"
        return SourceInfo(
            source=self.name,
            dataset=self.name,
            licence=LICENCE,
            facts=FACTS,
            details=details | {key: str(count) for key, count in sorted(counts.items())},
        )

    def discover(self, root: Path, info: SourceInfo) -> Iterator[EpisodeRef]:
        """Take by take in the order of takes.json: its segments, or windows; then takes that takes.json does not know."""
        options = {key: info.details[key] for key in OPTIONS if info.details[key]}
        chosen = chosen_from(root, options)
        published = source_splits(root)
        for clip in _clips(chosen):
            take_uid = clip.episode_id.partition("/")[0]
            files = pose_files(root, take_uid, chosen.hands)
            placed = replace(clip, source_split=published.get(take_uid, ""))
            yield clip_ref(self.name, self.name, root, placed, FACTS, files)

    def load(self, ref: EpisodeRef) -> Episode:
        """One segment: the camera `ego`, the standing ones asked for, hands. Raises as `load_clip` and `with_hands`."""
        return with_hands(load_clip(ref, LICENCE), Path(ref.root), dict(ref.locator))


def _clips(chosen: Choice) -> Iterator[Clip]:
    of_take: dict[str, list[EgoExo4dSegment]] = {}
    for kind, path in chosen.files:
        for uid, segments, _ in annotated(kind, path):
            of_take.setdefault(uid, []).extend(segments)
    for position, take in takes_in(chosen.root / "takes.json"):
        if isinstance(take, Broken):
            yield Clip(episode_id=f"takes.json/{position}").broken(Code.BAD_ANNOTATION, take.why)
        else:
            yield from _of_take(chosen, take, of_take.pop(take.take_uid, None))
    for uid, segments in sorted(of_take.items()):
        message = f"takes.json does not list the take of {len(segments)} segments"
        clip = Clip(episode_id=f"{uid}/take")
        yield clip.broken(Code.MISSING_META, message, stands_for=len(segments))


def _of_take(chosen: Choice, take: Take, segments: list[EgoExo4dSegment] | None) -> Iterator[Clip]:
    whole = Clip(
        episode_id=take.take_uid,
        subject_id=None if take.participant_uid is None else str(take.participant_uid),
    )
    lost = "" if segments is None else f"; {len(segments)} segments are lost"
    try:
        if take.is_dropped:
            raise SourceError(Code.KNOWN_DEFECT, "takes.json marks the take as dropped")
        whole = replace(whole, path=ego_file(chosen.root, take))
    except SourceError as error:
        if segments or chosen.has_windows:
            clip = replace(whole, episode_id=f"{take.take_uid}/take")
            yield clip.broken(error.code, f"{error.message}{lost}", stands_for=len(segments or ()))
        return
    names = [(c, take.video(c) or "") for c in take.exo(chosen.exo)]
    is_small = SMALL in whole.path
    seen = tuple((c, video_file(take, small(v) if is_small else v)) for c, v in names)
    whole = replace(whole, views=seen)
    if segments is None and chosen.has_windows:
        yield from windowed(chosen.root, whole)
    for segment in segments or ():
        yield from cut(_clip(whole, segment))


def _clip(whole: Clip, segment: EgoExo4dSegment) -> Clip:
    name = f"{whole.episode_id}/{segment.key}"
    if segment.why:
        return Clip(episode_id=name).broken(Code.BAD_ANNOTATION, segment.why)
    return replace(
        whole, episode_id=name, text=segment.text, start_s=segment.start_s, end_s=segment.end_s
    )
