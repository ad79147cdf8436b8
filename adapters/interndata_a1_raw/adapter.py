"""InternData-A1, raw: simulated Franka, Genie-1, ARX Lift-2 and split ALOHA, 30 Hz; one LMDB per episode.

    [<robot>/<task>/<collection>/]<episode>/meta_info.pkl, lmdb/data.mdb      keys and values: record.py
The robot is not stored: the folders say it (the engine writes <robot> first), else the option `robot` does. Values are pickles and
are read without `pickle`; pictures are read one at a time. Source: `InternRobotics/InternDataEngine:workflows/simbox/core/loggers/
lmdb_logger.py, policy/lmdb2lerobotv21/*`. No real episode was at hand. Not read: depth, segmentation, boxes, qvel, object states,
`actions.*` (the next state). The LeRobot form of this set is `interndata_a1`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from adapters.base import SourceInfo
from adapters.containers.listing import natural_key
from adapters.containers.lmdb_store import DATA, check_lmdb, open_lmdb
from adapters.containers.raw_file import raw_file_of
from adapters.containers.safe_path import inside
from adapters.interndata_a1_raw.motion import (
    RATE_HZ,
    ROBOTS,
    facts_of,
    has_poses,
    robot_in,
    streams_of,
)
from adapters.interndata_a1_raw.record import camera_poses, cameras_of, json_data, read_meta
from schemas.episode import Episode, EpisodeRef, Licence
from schemas.errors import Code, ConfigError, SourceError
from schemas.rate import instants_ns
from schemas.regular_file import bytes_hint, path_exists

LICENCE = Licence(
    name="unknown"
)  # the code is CC BY-NC-SA 4.0; the terms of the data were not confirmed
META = "meta_info.pkl"


class InternDataA1Raw:
    """Adapter for `interndata_a1_raw`."""

    name: ClassVar[str] = "interndata_a1_raw"
    version: ClassVar[int] = 1
    container: ClassVar[str] = "lmdb + pickle"
    about: ClassVar[str] = (
        "InternData-A1 before its LeRobot form: simulated arms, one LMDB per episode"
    )

    def survey(self, root: Path, options: Mapping[str, str]) -> SourceInfo:
        """Option: `robot`, one of robots.ROBOTS, for folders that do not name it."""
        if unknown := sorted(set(options) - {"robot"}):
            raise ConfigError(f"unknown options {unknown}; expected robot=NAME")
        if options.get("robot", "franka") not in ROBOTS:
            raise ConfigError(f"robot {options['robot']!r}; expected one of {', '.join(ROBOTS)}")
        if next(_episodes(root), None) is None:
            raise ConfigError(
                f"{root}: not InternData-A1: expected folders with {META} or lmdb/{DATA}"
            )
        return SourceInfo(
            source=self.name,
            dataset=self.name,
            licence=LICENCE,
            notes=("two-armed episodes without stored poses need a URDF to be named",),
            details=dict(options),
        )

    def discover(self, root: Path, info: SourceInfo) -> Iterator[EpisodeRef]:
        """By folder; one that lacks the pickle or the LMDB is listed as broken."""
        for name in sorted(_episodes(root), key=natural_key):
            missing = [f for f in (META, f"lmdb/{DATA}") if not path_exists(root / name / f)]
            why = (Code.MISSING_FILE.value, f"{name}: no {' and no '.join(missing)}; download it")
            yield EpisodeRef(
                source=self.name,
                dataset=self.name,
                episode_id=name if name != "." else root.name,
                root=str(root),
                locator=(("folder", name), *info.details.items()),
                bytes_hint=bytes_hint(root / name / "lmdb" / DATA),
                problem=why if missing else None,
            )

    def load(self, ref: EpisodeRef) -> Episode:
        root, locator = Path(ref.root), dict(ref.locator)
        name = str(locator["folder"])
        episode_name = ref.episode_id.rpartition("/")[2]
        key = locator.get("robot") or robot_in([*name.split("/"), root.name])
        if not key:
            problem = f"the folder names do not state the robot; add --option robot=NAME, one of {sorted(ROBOTS)}"
            raise SourceError(Code.UNKNOWN_LAYOUT, problem, where=name)
        robot = ROBOTS[key]
        meta = read_meta(inside(root, name, META), f"{name}/{META}")
        t_ns = instants_ns(meta.num_steps, RATE_HZ)
        folder = check_lmdb(root, f"{name}/lmdb")
        with open_lmdb(folder, f"{name}/lmdb") as reader:
            cameras = tuple(cameras_of(reader, folder, meta, json_data(reader), t_ns))
            streams = (
                *streams_of(reader, robot, episode_name, t_ns),
                *camera_poses(reader, meta, t_ns),
            )
            posed = has_poses(reader, robot, episode_name)
        origin = "the caller's option" if "robot" in locator else f"folder names, {key}"
        return Episode(
            ref=ref,
            embodiment=robot.embodiment,
            rate_hz=RATE_HZ,
            streams=streams,
            cameras=cameras,
            instructions=meta.instructions,
            facts=(*ref.facts, *facts_of(robot, origin, has_poses=posed)),
            licence=LICENCE,
            raw_files=tuple(raw_file_of(p, root) for p in (folder.parent / META, folder / DATA)),
        )


def _episodes(root: Path) -> Iterator[str]:
    """Episode folders at or below `root`, relative, unsorted; what is inside of them is not walked."""
    for folder, names, files in os.walk(root):
        if META in files or "lmdb" in names:
            names.clear()
            yield Path(folder).relative_to(root).as_posix()
