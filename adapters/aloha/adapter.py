"""ALOHA / ACT: two ViperX 300s arms (or their simulation), one HDF5 file per episode, joints only.

    [<task>/]episode_<k>.hdf5    attrs sim, [compress]
        action               [T, 14] leader joints, rad and gripper; the target of row k is due at row k + 1
        observations/qpos    [T, 14] follower joints, the same order
        observations/images/<cam>   [T, H, W, 3] uint8 RGB, or [T, S] JPEG rows padded with zeros (attr compress)
        [base_action]        [T, 2] linear and angular velocity of a mobile base, units not stated
No clock, no pose, no instruction. Sources: `tonyzhaozh/act:{record_sim_episodes.py,constants.py,visualize_episodes.py}`,
`MarkFzp/mobile-aloha:aloha_scripts/record_episodes.py`, `agilexrobotics/cobot_magic:collect_data/visualize_episodes.py`.
Not read: qvel, effort. A pose would need forward kinematics, which is not an adapter's work.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from adapters.aloha.joints import read_rows, streams_of
from adapters.base import SourceInfo
from adapters.containers.hdf5 import Hdf5File
from adapters.containers.hdf5_camera import StorageOrder, hdf5_camera
from adapters.containers.listing import natural_key
from adapters.containers.raw_file import raw_file_of
from adapters.containers.safe_path import inside
from schemas.episode import Episode, EpisodeRef, Instruction, Licence
from schemas.errors import ConfigError
from schemas.rate import rate_from
from schemas.regular_file import bytes_hint

LICENCE = Licence(name="unknown")  # the code is MIT; nobody states terms for recordings
FILE = re.compile(r"episode_[0-9]+\.hdf5")
OPTIONS = ("embodiment", "instruction", "rate_hz")
# OpenCV compressed RGB arrays as if they were BGR: every other decoder shows blue for red.
COLOUR = StorageOrder(encoded_is_bgr=True)


class Aloha:
    """Adapter for `aloha`."""

    name: ClassVar[str] = "aloha"
    version: ClassVar[int] = 2
    container: ClassVar[str] = "hdf5"
    about: ClassVar[str] = "ALOHA, Mobile ALOHA and ACT: two ViperX 300s arms, joints and pictures"

    def survey(self, root: Path, options: Mapping[str, str]) -> SourceInfo:
        """Options: `instruction` (the task's text), `rate_hz` (50), `embodiment` (other arms in this layout)."""
        if unknown := sorted(set(options) - set(OPTIONS)):
            raise ConfigError(f"unknown options {unknown}; expected {list(OPTIONS)}")
        if not _files(root):
            raise ConfigError(f"{root}: not ALOHA: expected files episode_<number>.hdf5 below it")
        try:
            rate_from(options.get("rate_hz", "50"))
        except ValueError as error:
            raise ConfigError(f"rate_hz: {error}") from error
        if not re.fullmatch(r"[a-z0-9_]+", options.get("embodiment", "aloha")):
            raise ConfigError("option embodiment: expected only lower-case letters, digits and _")
        notes = ("joints only: no end-effector pose", "qvel and effort are not read")
        return SourceInfo(
            source=self.name,
            dataset=self.name,
            licence=LICENCE,
            notes=notes,
            details=dict(options),
        )

    def discover(self, root: Path, info: SourceInfo) -> Iterator[EpisodeRef]:
        """By folder, then number; the folder is part of the id."""
        for name in sorted(_files(root), key=natural_key):
            yield EpisodeRef(
                source=self.name,
                dataset=self.name,
                episode_id=name.removesuffix(".hdf5"),
                root=str(root),
                locator=(("file", name), *sorted(info.details.items())),
                bytes_hint=bytes_hint(root / name),
            )

    def load(self, ref: EpisodeRef) -> Episode:
        locator = dict(ref.locator)
        path = inside(Path(ref.root), locator["file"])
        with Hdf5File(path, where=locator["file"]) as file:
            rows = read_rows(file, locator)
            cameras = tuple(
                hdf5_camera(file, f"observations/images/{name}", name, rows.t_ns, colour=COLOUR)
                for name in file.children("observations/images")
            )
        return Episode(
            ref=ref,
            embodiment=rows.body,
            rate_hz=rows.rate_hz,
            streams=tuple(streams_of(rows)),
            cameras=cameras,
            instructions=_instructions(locator),
            facts=(*ref.facts, *rows.facts),
            licence=LICENCE,
            raw_files=(raw_file_of(path, Path(ref.root)),),
        )


def _files(root: Path) -> list[str]:
    """Episode files below `root`, relative, unsorted."""
    paths = (path for path in root.rglob("episode_*.hdf5") if FILE.fullmatch(path.name))
    return [path.relative_to(root).as_posix() for path in paths]


def _instructions(locator: Mapping[str, str]) -> tuple[Instruction, ...]:
    """The caller's text, else the name of the task folder below the root (ACT names folders after tasks)."""
    folder = locator["file"].rpartition("/")[0].rpartition("/")[2]
    text = locator.get("instruction", folder.replace("_", " ")).strip()
    return (Instruction(text=text),) if text else ()
