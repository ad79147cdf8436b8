"""RoboTwin 2.0: two simulated arms in SAPIEN, one HDF5 file per episode, in two layouts.

    legacy    <task>/<config>/data/episode<k>.hdf5, <config>/instructions/episode<k>.json
    current   <config>/<task>/<embodiment>/data/episode_<k:07d>.hdf5, <embodiment>/instruction/episode_<k:07d>.json
The file's own root keys decide which it is (record.py). Texts are in instructions.py.
Source: `RoboTwin-Platform/RoboTwin@cf47ab56`. Not read: depth, point clouds, the MP4 beside each file, scene_info.json,
seed.txt, _traj_data (pickles).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from adapters.base import SourceInfo
from adapters.containers.hdf5 import Hdf5File
from adapters.containers.listing import natural_key
from adapters.containers.raw_file import raw_file_of
from adapters.containers.safe_path import inside
from adapters.robotwin.instructions import SPLITS, read_instructions
from adapters.robotwin.record import (
    facts_of,
    generation_of,
    motion_streams,
    num_rows_of,
    rate_of,
    read_cameras,
)
from schemas.episode import Episode, EpisodeRef, Licence
from schemas.errors import Code, ConfigError, SourceError
from schemas.rate import instants_ns, rate_from
from schemas.regular_file import bytes_hint

LICENCE = Licence(
    name="unknown"
)  # the code is MIT; terms of the published recordings were not seen
FILE = re.compile(r"(.+/)?data/episode_?[0-9]+\.hdf5")
OPTIONS = ("instruction", "rate_hz", "split")
LOOKED_AT = 20  # files opened to tell RoboTwin from others with such names


class RoboTwin:
    """Adapter for `robotwin`."""

    name: ClassVar[str] = "robotwin"
    version: ClassVar[int] = 1
    container: ClassVar[str] = "hdf5 + json"
    about: ClassVar[str] = "RoboTwin 2.0: two simulated arms, both of its file layouts"

    def survey(self, root: Path, options: Mapping[str, str]) -> SourceInfo:
        """Options: `split` (wordings: seen or unseen), `instruction` (one text for all), `rate_hz` (from the file, 50/3)."""
        if unknown := sorted(set(options) - set(OPTIONS)):
            raise ConfigError(f"unknown options {unknown}; expected {list(OPTIONS)}")
        if options.get("split", "seen") not in SPLITS:
            raise ConfigError(f"split={options['split']!r}; expected one of {list(SPLITS)}")
        try:
            rate_from(options.get("rate_hz", 1))
        except ValueError as error:
            raise ConfigError(f"rate_hz: {error}") from error
        files = sorted(_files(root), key=natural_key)
        if not any(_may_be_ours(root, name) for name in files[:LOOKED_AT]):
            expected = (
                "data/episode<k>.hdf5 with joint_action and observation, or state, action, vision"
            )
            raise ConfigError(f"{root}: none of {len(files)} HDF5 files fits; expected {expected}")
        return SourceInfo(
            source=self.name,
            dataset=self.name,
            licence=LICENCE,
            notes=(
                "poses are in the simulator's world: no arm base is stored",
                "joints and grippers are targets, not measurements",
            ),
            details=dict(options),
        )

    def discover(self, root: Path, info: SourceInfo) -> Iterator[EpisodeRef]:
        """By folder, then number."""
        for name in sorted(_files(root), key=natural_key):
            folder, _, file = f"/{name}".rpartition("/data/")
            yield EpisodeRef(
                source=self.name,
                dataset=self.name,
                episode_id=f"{folder}/{file}".removesuffix(".hdf5").lstrip("/"),
                root=str(root),
                locator=(("file", name), *sorted(info.details.items())),
                bytes_hint=bytes_hint(root / name),
            )

    def load(self, ref: EpisodeRef) -> Episode:
        root, locator = Path(ref.root), dict(ref.locator)
        path = inside(root, locator["file"])
        with Hdf5File(path, where=locator["file"]) as file:
            layout = generation_of(file)
            rate, rate_fact = rate_of(file, locator)
            t_ns = instants_ns(num_rows_of(file, layout), rate)
            streams = tuple(motion_streams(file, layout, t_ns))
            cameras, poses, seen = read_cameras(file, layout, t_ns)
            instructions, texts = read_instructions(file, root, locator)
        has_pose = any(s.name.endswith("T_base_eef") for s in streams)
        return Episode(
            ref=ref,
            embodiment="robotwin",
            rate_hz=rate,
            streams=(*streams, *poses),
            cameras=tuple(cameras),
            instructions=instructions,
            facts=(*ref.facts, rate_fact, *facts_of(layout, has_pose=has_pose), *seen),
            licence=LICENCE,
            raw_files=(raw_file_of(path, root), *texts),
            success=True,
        )


def _files(root: Path) -> list[str]:
    names = (path.relative_to(root).as_posix() for path in root.rglob("episode*.hdf5"))
    return [name for name in names if FILE.fullmatch(name)]


def _may_be_ours(root: Path, name: str) -> bool:
    """Whether the file has one of the two layouts; one that does not open is counted later, as broken."""
    try:
        with Hdf5File(inside(root, name), where=name) as file:
            return bool(generation_of(file))
    except SourceError as error:
        return error.code is not Code.UNKNOWN_LAYOUT
