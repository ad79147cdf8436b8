"""HOT3D, full sequences (Aria or Quest 3): two hands and objects on a table, in folders `<participant>_<hash>/`.

    metadata.json                                       headset, participant_id
    {umetrack,mano}_hand_pose_trajectory.jsonl          hands in the world                        sequence.py, hands.py
    umetrack_hand_user_profile.json                     the person's hand                         hands.py
    headset_trajectory.csv, masks/mask_*.csv            T_world_device; which frames are good     sequence.py
    camera_models.json | mps/slam/online_calibration.jsonl    Quest 3 | Aria                      pictures.py
    recording.vrs, or pictures exported from it                                                   pictures.py
Source: facebookresearch/hot3d; read on two real sequences, whose recordings were not at hand. Aria writes each pose twice, 0.09 ms
apart (RGB and mono exposures): the first counts, and a fact says how many were left out. Objects, boxes and gaze are not read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

from adapters.base import SourceInfo
from adapters.containers.listing import entries_named
from adapters.containers.safe_path import inside
from adapters.hot3d import sequence as tables
from adapters.hot3d.hands import FACTS as HAND_FACTS
from adapters.hot3d.pictures import VRS
from adapters.hot3d.read import WORLD_UP, read_sequence
from schemas.episode import Episode, EpisodeRef, Licence
from schemas.errors import Code, ConfigError
from schemas.fact import Certainty, fact
from schemas.regular_file import path_exists

LICENCE = Licence(
    name="CC BY-SA; hand annotations CC BY-NC-SA",
    allows_commercial=False,
    allows_redistribution=True,
)
FACTS = (
    *HAND_FACTS,
    fact(
        "headset_pose",
        "T_world_device",
        Certainty.CODE,
        "facebookresearch/hot3d:hot3d/data_loaders/HeadsetPose3dProvider.py",
        for_actions=True,
    ),
)
RATE_HZ = Fraction(30)
MARKS = (tables.UMETRACK, tables.MANO, tables.HEADSET)  # a folder with one of these is a sequence


class Hot3D:
    """Adapter for `hot3d`; option `video`: a folder with `<sequence>/<stream>.mp4` for those not beside the tables."""

    name: ClassVar[str] = "hot3d"
    path_options: ClassVar[tuple[str, ...]] = ("video",)
    uses: ClassVar[tuple[str, ...]] = ("mano",)  # where nothing else tells the fingers
    version: ClassVar[int] = 1
    container: ClassVar[str] = "jsonl + csv + vrs or mp4"
    about: ClassVar[str] = "HOT3D: hands and objects before Aria and Quest 3, full sequences"

    def survey(self, root: Path, options: Mapping[str, str]) -> SourceInfo:
        """Count the sequences; nothing is opened. ConfigError: there is none, or an unknown option."""
        if unknown := sorted(set(options) - {"video"}):
            raise ConfigError(f"unknown options {unknown}; expected video=...")
        video = options.get("video", "")
        if video and not Path(video).is_dir():
            raise ConfigError("no such folder", where=f"video={video}")
        folders = _sequences(root)
        if not folders:
            raise ConfigError(f"no {' or '.join(MARKS)} below it", where=str(root))
        details = {
            "sequences": str(len(folders)),
            "with_recording": str(sum(path_exists(root / f / VRS) for f in folders)),
            "video": video,
        }
        return SourceInfo(
            source=self.name, dataset=self.name, licence=LICENCE, facts=FACTS, details=details
        )

    def discover(self, root: Path, info: SourceInfo) -> Iterator[EpisodeRef]:
        """One episode a sequence, by folder."""
        for folder in _sequences(root):
            name = folder if folder != "." else root.resolve().name
            problem = None
            if not path_exists(root / folder / tables.METADATA):
                message = f"{folder}/{tables.METADATA} is missing; download it"
                problem = (Code.MISSING_META.value, message)
            yield EpisodeRef(
                source=self.name,
                dataset=self.name,
                episode_id=name,
                root=str(root),
                locator=(("folder", folder), ("video", info.details["video"])),
                facts=FACTS,
                problem=problem,
            )

    def load(self, ref: EpisodeRef) -> Episode:
        """Hands and cameras in the world; pictures where they can be read.

        Raises:
            SourceError: as the readers of read.py.
        """
        root, folder = Path(ref.root), str(ref.at("folder"))
        video = Path(ref.at("video")) if ref.at("video") else None
        sequence = read_sequence(root, inside(root, folder), video)
        return Episode(
            ref=ref,
            embodiment="human_hands" if sequence.hands else "human_video",
            rate_hz=RATE_HZ,
            streams=sequence.streams,
            cameras=tuple(sequence.views.cameras),
            hands=sequence.hands,
            world_up=WORLD_UP.get(sequence.about.headset),
            facts=(*ref.facts, *sequence.facts, *sequence.views.facts),
            licence=LICENCE,
            raw_files=tuple(sequence.views.raw_files),
            subject_id=sequence.about.participant_id,
        )


def _sequences(root: Path) -> list[str]:
    folders = {path.parent for mark in MARKS for path in entries_named(root, mark)}
    return sorted(path.relative_to(root).as_posix() for path in folders)
