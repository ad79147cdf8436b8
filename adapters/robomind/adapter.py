"""RoboMIND v1.0 to v1.2: real and simulated arms and a humanoid, one HDF5 file per episode, pictures inside.

    [benchmark1_{0,1,2}_release/]h5_<body>/<task>/success_episodes/{train,val}/<episode>/data/trajectory.hdf5
        puppet/*    follower: the state         master/*    leader: the command         observations/rgb_images/<camera>
    language_description_annotation_json/*.json, RoboMIND_v1_2_instr.csv                 language.py
Which columns hold what is in bodies.py, numbers, images and the certainty of conventions in motion.py. Sources:
`x-humanoid-robomind.github.io:README.md, static/`, `Open-X-Humanoid/RoboMIND-dataset-utils`, `Tavish9/any4lerobot:robomind2lerobot`.
Not read: depth, velocities, efforts, sim_time_seq (whose length fits neither the states nor the pictures).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from adapters.base import SourceInfo
from adapters.containers.hdf5 import Hdf5File
from adapters.containers.listing import natural_key
from adapters.containers.raw_file import raw_file_of
from adapters.containers.safe_path import inside
from adapters.robomind import bodies
from adapters.robomind.bodies import BODIES
from adapters.robomind.language import (
    END,
    SUCCESS,
    body_of,
    files_below,
    instructions_of,
    read_list,
    read_steps,
    split_folder,
)
from adapters.robomind.motion import (
    RobomindMotion,
    general_facts,
    motion_facts,
    num_rows_of,
    read_cameras,
    read_motion,
)
from schemas.episode import Episode, EpisodeRef, Licence
from schemas.errors import Code, ConfigError
from schemas.regular_file import bytes_hint
from schemas.source_split import source_split_of

LICENCE = Licence(name="Apache-2.0", allows_commercial=True, allows_redistribution=True)  # a badge


class RoboMind:
    """Adapter for `robomind`."""

    name: ClassVar[str] = "robomind"
    version: ClassVar[int] = 3
    container: ClassVar[str] = "hdf5 + csv + json"
    about: ClassVar[str] = (
        "RoboMIND v1: AgileX, Franka, FR3, UR5e, Tien Kung, and their simulations"
    )

    def survey(self, root: Path, options: Mapping[str, str]) -> SourceInfo:
        """Options: `body` (for a folder below h5_<body>), `rate_hz`, `gripper` (see bodies.py)."""
        bodies.check(options)
        if not (files := files_below(root)):
            raise ConfigError(f"{root}: not RoboMIND: expected {SUCCESS}/*{END} below it")
        if not any(body_of(root, name, options) in BODIES for name in files):
            raise ConfigError(
                f"{root}: no parent folder h5_<embodiment>", remedy="add --option body=NAME"
            )
        texts = read_list(root)
        return SourceInfo(
            source=self.name,
            dataset=self.name,
            licence=LICENCE,
            notes=(
                "no clock is stored: 30 Hz unless rate_hz says otherwise",
                "grippers have no stated scale: they bar actions until gripper=closed..open is given",
                f"{len(texts)} instructions"
                if texts
                else "no RoboMIND_*_instr.csv: no instructions",
            ),
            details=dict(options),
        )

    def discover(self, root: Path, info: SourceInfo) -> Iterator[EpisodeRef]:
        """By path; a body that is not one of the eleven is a problem of its episodes."""
        texts, steps = read_list(root), read_steps(root)
        for name in sorted(files_below(root), key=natural_key):
            folder = name.removesuffix(END)
            body, episode = body_of(root, name, info.details), folder.rpartition("/")[2]
            before = f"{root.resolve().name}/{folder}".rpartition(f"/{SUCCESS}/")[0]
            task = before.rpartition("/")[2]
            texts_of_episode = {
                "instruction": texts.get(task, ""),
                "steps": steps.get((task, episode), ""),
            }
            where = {
                "file": name,
                "body": body,
                "task": task,
                **{k: v for k, v in texts_of_episode.items() if v},
            }
            stated = {k: v for k, v in info.details.items() if k != "body"}
            unknown = f"{name}: unknown embodiment {body!r}; expected one of {', '.join(BODIES)}"
            yield EpisodeRef(
                source=self.name,
                dataset=self.name,
                episode_id=folder,
                root=str(root),
                locator=(*where.items(), *sorted(stated.items())),
                bytes_hint=bytes_hint(root / name),
                problem=None if body in BODIES else (Code.UNKNOWN_LAYOUT.value, unknown),
                source_split=source_split_of(split_folder(name)),
            )

    def load(self, ref: EpisodeRef) -> Episode:
        root, locator = Path(ref.root), dict(ref.locator)
        path, body = inside(root, locator["file"]), BODIES[locator["body"]]
        rate, is_told = bodies.rate_of(locator["body"], locator)
        scale = bodies.gripper_of(locator["body"], locator)
        facts = list(general_facts(body, str(rate), is_told=is_told))
        motion = RobomindMotion(streams=(), stuck=(), has_command=False)
        with Hdf5File(path, where=locator["file"]) as file:
            count = num_rows_of(file, body) if body.arms and body.rows_per_picture == 1 else None
            if body.arms:
                motion = read_motion(file, body, rate * body.rows_per_picture, scale)
                facts += motion_facts(body, motion, scale)
            cameras, seen, t_ns = read_cameras(file, body, rate, count)
        instructions, spoken = instructions_of(locator, t_ns)
        return Episode(
            ref=ref,
            embodiment=body.embodiment,
            rate_hz=rate,
            streams=motion.streams,
            cameras=tuple(cameras),
            instructions=tuple(instructions),
            facts=(*ref.facts, *facts, *seen, *spoken),
            licence=LICENCE,
            raw_files=(raw_file_of(path, root),),
            success=True,  # failures were announced and not published
        )
