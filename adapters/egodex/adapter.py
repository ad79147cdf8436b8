"""EgoDex: tabletop work of two bare hands, seen and tracked by an Apple Vision Pro. HDF5 and MP4, 30 Hz.

    {part1..part5,test,extra}/<task>/<idx>.hdf5 + <idx>.mp4    frame i of the video is row i
        camera/intrinsic [3, 3], transforms/*, confidences/* and attributes: recording.py
No real HDF5 file could be obtained. Of the 69 transforms the 50 of the hands and the camera's are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

from adapters.base import SourceInfo
from adapters.containers.hdf5 import Hdf5File
from adapters.containers.listing import natural_key
from adapters.containers.raw_file import raw_file_of
from adapters.containers.safe_path import inside
from adapters.containers.video_probe import probe_video
from adapters.egodex.recording import (
    AXES,
    POSES,
    camera_of,
    camera_pose,
    clamped,
    confidence_facts,
    hands_of,
    instruction_of,
    setting_facts,
    text_of,
)
from schemas.episode import Episode, EpisodeRef, Licence
from schemas.errors import Code, ConfigError
from schemas.fact import Certainty, fact
from schemas.rate import instants_ns
from schemas.regular_file import bytes_hint, path_exists
from schemas.source_split import source_split_of

LICENCE = Licence(name="CC BY-NC-ND 4.0", allows_commercial=False, allows_redistribution=False)
RATE_HZ = Fraction(30)
READERS = "HongzheBi/H_RDT:datasets/pretrain/egodex_dataset.py; IstariRobotics/egohub"
FACTS = (
    fact("rate", "30 Hz, row i is frame i", Certainty.CODE, READERS, for_actions=True),
    fact("hand_frame", "joints to the world, metres", Certainty.CODE, READERS, for_actions=True),
    # What decides about actions is the fact `wrist_frame` of the hand stage, which holds the palm against this.
    fact("wrist_axes", AXES, Certainty.INFERRED, "the Vision Pro's native axes; see hands.yaml"),
    fact("camera_pose", "camera to world, OpenCV axes", Certainty.CODE, READERS),
    fact("world_up", "+y", Certainty.CODE, READERS),
)


class EgoDex:
    """Adapter for `egodex`; it has no options."""

    name: ClassVar[str] = "egodex"
    version: ClassVar[int] = 2
    container: ClassVar[str] = "hdf5 + mp4"
    about: ClassVar[str] = "EgoDex: both hands, 25 joints each, and a head camera with its pose"

    def survey(self, root: Path, options: Mapping[str, str]) -> SourceInfo:
        """ConfigError: an option, or no `<task>/<number>.hdf5` with a video beside it."""
        if options:
            raise ConfigError(f"unknown options {sorted(options)}; this source has no options")
        if not any(suffixes >= {".hdf5", ".mp4"} for suffixes in _files(root).values()):
            raise ConfigError(
                f"{root}: not EgoDex: expected <task>/<number>.hdf5 with an .mp4 beside it"
            )
        notes = ("derived corpora must not be passed on (ND)", "only hands and camera are read")
        return SourceInfo(
            source=self.name, dataset=self.name, licence=LICENCE, facts=FACTS, notes=notes
        )

    def discover(self, root: Path, info: SourceInfo) -> Iterator[EpisodeRef]:
        """By part, task and number; half a pair is yielded with its problem."""
        for name, suffixes in sorted(_files(root).items(), key=lambda item: natural_key(item[0])):
            problem = None
            if ".hdf5" not in suffixes:
                problem = (Code.MISSING_FILE.value, f"{name}.mp4 has no .hdf5; download it again")
            elif ".mp4" not in suffixes:
                problem = (Code.MISSING_VIDEO.value, f"{name}.hdf5 has no .mp4; download it again")
            yield EpisodeRef(
                source=self.name,
                dataset=self.name,
                episode_id=name,
                root=str(root),
                facts=info.facts,
                bytes_hint=bytes_hint(*(root / (name + suffix) for suffix in suffixes)),
                problem=problem,
                source_split=_source_split(root, name),
            )

    def load(self, ref: EpisodeRef) -> Episode:
        """One recording, as long as the shorter of its video and its rows."""
        root, name = Path(ref.root), ref.episode_id
        path, video = inside(root, f"{name}.hdf5"), inside(root, f"{name}.mp4")
        task = name.rpartition("/")[0].rpartition("/")[2]
        probe = probe_video(video)
        with Hdf5File(path, where=f"{name}.hdf5") as file:
            num_rows = len(file.rows(POSES, 4, 4))
            t_ns = instants_ns(min(num_rows, probe.num_frames), RATE_HZ)
            return Episode(
                ref=ref,
                embodiment="human_hands",
                rate_hz=RATE_HZ,
                streams=(camera_pose(file, t_ns),),
                cameras=(camera_of(file, video, t_ns, probe),),
                hands=hands_of(file, t_ns),
                world_up="+y",
                instructions=(instruction_of(file, task),),
                facts=(
                    *(*ref.facts, *confidence_facts(file)),
                    *(*setting_facts(file), *clamped(num_rows, probe.num_frames)),
                ),
                licence=LICENCE,
                raw_files=(raw_file_of(path, root), raw_file_of(video, root)),
                scene_id=text_of(file, "session_name") or None,
            )


def _source_split(root: Path, name: str) -> str:
    """By the folder above the task: `test` is the published test set, part1 to part5 train; `extra` is in neither."""
    part = f"{root.resolve().name}/{name}".split("/")[-3]
    return "train" if part.removeprefix("part").isdigit() else source_split_of(part)


def _files(root: Path) -> dict[str, set[str]]:
    """Path without suffix, relative to `root` -> which of the two files are there."""
    files: dict[str, set[str]] = {}
    for suffix in (".hdf5", ".mp4"):
        for path in root.rglob(f"*{suffix}"):
            if (
                path.stem.isascii()
                and path.stem.isdigit()
                and path_exists(path)
                and path.parent != root
            ):
                name = path.with_suffix("").relative_to(root).as_posix()
                files.setdefault(name, set()).add(suffix)
    return files
