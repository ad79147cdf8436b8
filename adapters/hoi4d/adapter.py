"""HOI4D: one person a scene handles objects of 16 classes, seen by a head camera; MANO hands in the camera, 15 Hz.

Layout, texts and splits: sequences.py; hands, images, intrinsics and poses: capture.py. All parts lie below one root, unpacked.
Read are the RGB video, the hands, the camera poses and the labels; depth, segmentation, object poses and point clouds are not.
No real file was at hand: layout and conventions rest on the authors' README and scripts and on EgoVLA's reader.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from adapters.base import SourceInfo
from adapters.containers.listing import natural_key
from adapters.containers.safe_path import inside
from adapters.hoi4d.capture import RATE_HZ, camera_of, camera_pose, decoded_instants, hands_of
from adapters.hoi4d.sequences import (
    ACTIONS,
    AUTHORS,
    FACTS,
    LICENCE,
    POSES,
    RELEASED,
    TASKS,
    TEST,
    VIDEO,
    events_of,
    has_hands,
    listed,
    object_of,
    part,
    sequences,
    source_splits,
    task_of,
)
from schemas.episode import Episode, EpisodeRef
from schemas.errors import Code, ConfigError
from schemas.fact import Certainty, fact
from schemas.regular_file import bytes_hint, path_exists


class Hoi4D:
    """Adapter for `hoi4d`; it has no options."""

    name: ClassVar[str] = "hoi4d"
    version: ClassVar[int] = 2
    container: ClassVar[str] = "mp4 + pickle + text"
    about: ClassVar[str] = "HOI4D: MANO hands before a head camera with its pose, events"
    needs: ClassVar[tuple[str, ...]] = ("mano",)

    def survey(self, root: Path, options: Mapping[str, str]) -> SourceInfo:
        """ConfigError: an option, no sequences, or no hand poses at all."""
        if options:
            raise ConfigError(f"unknown options {sorted(options)}; this source has no options")
        here = set(sequences(root))
        if not here:
            raise ConfigError(f"{root}: not HOI4D: expected [HOI4D_release/]ZY*/H*/C*/N*/S*/s*/T*")
        if not has_hands(root):
            problem = "[handpose/]refinehandpose_right is missing; unpack the hand poses next to the videos"
            raise ConfigError(f"{root}: {problem} (source `video_folder` reads the videos only)")
        notes = []
        if not path_exists(root / TASKS):
            notes.append(f"no task sentences: put {TASKS} of github.com/{AUTHORS} here")
        if released := listed(root, RELEASED):
            notes.append(f"{len(here & released)} of {len(released)} released sequences are here")
        if not path_exists(root / TEST):
            notes.append(f"no test set: put {TEST} of github.com/{AUTHORS} here")
        return SourceInfo(
            source=self.name, dataset=self.name, licence=LICENCE, facts=FACTS, notes=tuple(notes)
        )

    def discover(self, root: Path, info: SourceInfo) -> Iterator[EpisodeRef]:
        """By camera, person, class and so on, numbers as numbers."""
        published = source_splits(root)
        for name in sorted(sequences(root), key=natural_key):
            video = root / part(root, name, VIDEO)
            has_video = path_exists(video)
            why = (Code.MISSING_VIDEO.value, f"{name}/{VIDEO} is missing; download it")
            yield EpisodeRef(
                source=self.name,
                dataset=self.name,
                episode_id=name,
                root=str(root),
                facts=info.facts,
                bytes_hint=bytes_hint(video),
                source_split=published.get(name, ""),
                problem=None if has_video else why,
            )

    def load(self, ref: EpisodeRef) -> Episode:
        """One sequence; without any hand it is a video of a person. Raises as the four parts do."""
        root, name = Path(ref.root), ref.episode_id
        _, person, _, _, room, layout, _ = name.split("/")
        camera, of_camera = camera_of(root, name, inside(root, part(root, name, VIDEO)))
        t_ns = decoded_instants(camera)
        hands = hands_of(root, name, t_ns)
        streams, of_poses = camera_pose(root, part(root, name, POSES), t_ns)
        task, of_task = task_of(root, name)
        length_ns = round(len(t_ns) * 1_000_000_000 / RATE_HZ)
        events, of_events = events_of(root, part(root, name, ACTIONS), length_ns)
        parts = (of_camera, (hands.raw_files, hands.facts), of_poses, of_task, of_events)
        thing = fact(
            "object", object_of(name) or "unknown", Certainty.DOCUMENTED, f"{AUTHORS}:README.md"
        )
        return Episode(
            ref=ref,
            embodiment="human_hands" if hands.tracks else "human_video",
            rate_hz=RATE_HZ,
            streams=tuple(streams),
            cameras=(camera,),
            hands=tuple(hands.tracks),
            instructions=(*task, *events),
            facts=(*ref.facts, thing, *(f for _, facts in parts for f in facts)),
            licence=LICENCE,
            raw_files=tuple(r for raw_files, _ in parts for r in raw_files),
            subject_id=person,
            scene_id=f"{room}/{layout}",
        )
