"""TACO: a tool is used on an object with both hands; motion capture in MANO, and a camera on the helmet. 30 Hz.

    Egocentric_RGB_Videos, Egocentric_Camera_Parameters     recording.py
    Hand_Poses                                              recording.py
each with <(verb, tool, object)>/<date_number>/ below; splits: recording.py. Not read: the twelve cameras around, depth, object poses and models.
Source: `leolyliu/TACO-Instructions:README.md` (doc). No real sequence was at hand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

from adapters.base import SourceInfo
from adapters.containers.listing import natural_key
from adapters.taco.recording import (
    LIST,
    T_world_cam_of,
    camera_of,
    hand_of,
    source_splits,
    split_list,
)
from schemas.episode import SIDES, Episode, EpisodeRef, Instruction, Licence
from schemas.errors import Code, ConfigError
from schemas.fact import Certainty, fact
from schemas.rate import instants_ns
from schemas.regular_file import bytes_hint, path_exists

LICENCE = Licence(name="CC BY 4.0", allows_commercial=True, allows_redistribution=True)
RATE_HZ = Fraction(30)
TRIPLET = re.compile(r"\((.+, .+, .+)\)")
CODE = "leolyliu/TACO-Instructions:dataset_utils/"
READER, EGO = f"{CODE}hand_pose_loader.py", f"{CODE}project_pose_to_egocentric_view.py"
FACTS = (
    fact("rate", "30 Hz, pose k is frame k", Certainty.DOCUMENTED, "README", for_actions=True),
    fact("hand_frame", "world, metres", Certainty.CODE, READER, for_actions=True),
    fact("mano_trans", "the wrist (center_idx 0)", Certainty.CODE, READER, for_actions=True),
    fact("flat_hand_mean", "true: no mean pose is added", Certainty.CODE, READER),
    fact("left_shapedirs", "as in the official file", Certainty.CODE, f"{CODE}manopth"),
    fact("camera_pose", "world to camera, OpenCV axes; inverted here", Certainty.CODE, EGO),
    # In the authors' pictures of the axes, z points at a camera on the ceiling (two of 24 looked at).
    fact("world_up", "+z", Certainty.DOCUMENTED, "assets/world_coordinate_system_visualizations"),
)


class Taco:
    """Adapter for `taco`; it has no options."""

    name: ClassVar[str] = "taco"
    version: ClassVar[int] = 2
    container: ClassVar[str] = "pickle of tensors + npy + mp4"
    about: ClassVar[str] = (
        "TACO: both hands as MANO, tools on objects, and a helmet camera with its pose"
    )
    needs: ClassVar[tuple[str, ...]] = ("mano",)

    def survey(self, root: Path, options: Mapping[str, str]) -> SourceInfo:
        """ConfigError: an option, or no sequence in Hand_Poses."""
        if options:
            raise ConfigError(f"unknown options {sorted(options)}; this source has no options")
        if next(_sequences(root), None) is None:
            raise ConfigError(
                f"{root}: not TACO: expected Hand_Poses/<(verb, tool, object)>/<sequence>",
                remedy="unpack its zip archives",
            )
        notes = [
            "hands are MANO parameters: name a model",
            "the twelve cameras around are not read",
        ]
        if split_list(root) is None:
            notes.append(f"no test sets: put {LIST} of github.com/leolyliu/TACO-Instructions here")
        return SourceInfo(
            source=self.name, dataset=self.name, licence=LICENCE, facts=FACTS, notes=tuple(notes)
        )

    def discover(self, root: Path, info: SourceInfo) -> Iterator[EpisodeRef]:
        """By triplet, date and number; 105 of the 2,317 have no video of the helmet camera and are yielded with that."""
        published = source_splits(root)
        for sequence in sorted(_sequences(root), key=natural_key):
            video = root / "Egocentric_RGB_Videos" / sequence / "color.mp4"
            has_video = path_exists(video)
            why = "Egocentric_RGB_Videos has no video of it (105 of 2,317 sequences have none); otherwise download it"
            yield EpisodeRef(
                source=self.name,
                dataset=self.name,
                episode_id=sequence,
                root=str(root),
                facts=info.facts,
                bytes_hint=bytes_hint(video),
                source_split=published.get(sequence.rpartition("/")[2], ""),
                problem=None if has_video else (Code.MISSING_VIDEO.value, why),
            )

    def load(self, ref: EpisodeRef) -> Episode:
        """One sequence, whose camera poses, frames and hand rows are one for one."""
        root, sequence = Path(ref.root), ref.episode_id
        T_world_cam = T_world_cam_of(root, sequence)
        t_ns = instants_ns(len(T_world_cam), RATE_HZ)
        camera, poses, raw_files = camera_of(root, sequence, T_world_cam, t_ns)
        hands = [hand_of(root, sequence, side, t_ns) for side in SIDES]
        triplet = TRIPLET.fullmatch(sequence.rpartition("/")[0])
        return Episode(
            ref=ref,
            embodiment="human_hands",
            rate_hz=RATE_HZ,
            streams=(poses,),
            cameras=(camera,),
            hands=tuple(track for track, _ in hands),
            world_up="+z",
            instructions=(Instruction(text=triplet[1]),) if triplet else (),
            facts=ref.facts,
            licence=LICENCE,
            raw_files=(*raw_files, *(raw for _, of_hand in hands for raw in of_hand)),
        )


def _sequences(root: Path) -> Iterator[str]:
    """`<triplet>/<sequence>` of every folder two below Hand_Poses, unsorted."""
    for folder in (root / "Hand_Poses").glob("*/*"):
        if folder.is_dir():
            yield folder.relative_to(root / "Hand_Poses").as_posix()
