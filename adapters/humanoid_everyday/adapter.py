"""Humanoid Everyday, raw: Unitree G1 (Dex3 hands) and H1_2 (Inspire hands), teleoperated, 30 Hz; one folder per episode.

    [<category>/]<task>/episode_<n>/data.json          every step: steps.py
                                    color/*.png|jpg    640 x 480 RealSense D435 on the head
                                    depth/*, lidar/*.pcd    never opened
Tasks come as zip archives: unpack them. No text but the task folder's name is stored. Source: `physical-superintelligence-lab/
Humanoid-Everyday:{README.md,humanoid_everyday/core.py,scripts/he2lerobot.py}`. No real episode was at hand.
Not read: depth, lidar, hand pressure, tau_ff, armtime, iktime, rpy angles.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from adapters.base import SourceInfo
from adapters.containers.images import ImageFolder, LazyImages, image_header
from adapters.containers.listing import natural_key
from adapters.containers.raw_file import raw_file_of
from adapters.containers.safe_path import exists_inside, inside
from adapters.humanoid_everyday.motion import RATE_HZ, clock_of, facts_of, robot_of, streams_of
from adapters.humanoid_everyday.steps import read_steps
from schemas.episode import Camera, EncodedImages, Episode, EpisodeRef, Instruction, Licence
from schemas.errors import Code, ConfigError, SourceError
from schemas.regular_file import bytes_hint, path_exists

LICENCE = Licence(name="MIT", allows_commercial=True, allows_redistribution=True)  # by the README
EPISODE = re.compile(r"episode_[0-9]+")
ROBOT = re.compile(
    r"_(g1|h1(_2)?)$"
)  # the robot's name behind the task's, as in press_the_stapler_g1
CAMERA = "egocentric"  # its name in the set's own LeRobot form


class HumanoidEveryday:
    """Adapter for `humanoid_everyday`."""

    name: ClassVar[str] = "humanoid_everyday"
    version: ClassVar[int] = 2
    container: ClassVar[str] = "json + png/jpg"
    about: ClassVar[str] = (
        "Humanoid Everyday, raw: Unitree G1 and H1 humanoids, joints, hands, one camera"
    )

    def survey(self, root: Path, options: Mapping[str, str]) -> SourceInfo:
        """There are no options."""
        if options:
            raise ConfigError(f"unknown options {sorted(options)}; this source has no options")
        if next(_episodes(root), None) is None:
            raise ConfigError(
                f"{root}: not Humanoid Everyday: expected folders episode_<n> below it",
                remedy="unpack its zip archives",
            )
        return SourceInfo(
            source=self.name,
            dataset=self.name,
            licence=LICENCE,
            notes=("no end-effector pose is stored: name a URDF to have it computed",),
        )

    def discover(self, root: Path, info: SourceInfo) -> Iterator[EpisodeRef]:
        """By folder, then number; an episode without data.json is listed as broken."""
        for name in sorted(_episodes(root), key=natural_key):
            data = root / name / "data.json"
            has_data = path_exists(data)
            why = (Code.MISSING_FILE.value, f"{name}/data.json is missing; download it")
            yield EpisodeRef(
                source=self.name,
                dataset=self.name,
                episode_id=name,
                root=str(root),
                locator=(("folder", name),),
                bytes_hint=bytes_hint(data),
                problem=None if has_data else why,
            )

    def load(self, ref: EpisodeRef) -> Episode:
        root, folder = Path(ref.root), str(ref.at("folder"))
        path = inside(root, folder, "data.json")
        steps = read_steps(path, f"{folder}/data.json")
        robot = robot_of(steps)
        t_ns = clock_of(steps)
        images = _pictures(root, folder, steps.images)
        head = image_header(images[0], f"{folder}/{steps.images[0]}")
        K, K_size = robot.intrinsics((head.width_px, head.height_px))
        frames = EncodedImages(images=images)
        camera = Camera(name=CAMERA, frames=frames, t_ns=t_ns, K_cam=K, K_size=K_size)
        task = path.parent.parent.name if "/" in folder else root.name
        text = ROBOT.sub("", task).replace("_", " ").strip()
        return Episode(
            ref=ref,
            embodiment=robot.embodiment,
            rate_hz=RATE_HZ,
            streams=tuple(streams_of(steps, robot, t_ns)),
            cameras=(camera,),
            instructions=(Instruction(text=text),) if text else (),
            facts=(*ref.facts, *facts_of(steps, robot, is_calibrated=K is not None)),
            licence=LICENCE,
            raw_files=(raw_file_of(path, root),),
        )


def _episodes(root: Path) -> Iterator[str]:
    """Episode folders below `root`, relative, unsorted; their thousands of pictures are not listed."""
    for folder, names, _ in os.walk(root):
        episodes = [name for name in names if EPISODE.fullmatch(name)]
        names[:] = [name for name in names if name not in episodes]
        yield from (Path(folder, name).relative_to(root).as_posix() for name in episodes)


def _pictures(root: Path, folder: str, names: tuple[str, ...]) -> LazyImages:
    """Raises SourceError: UNSAFE_PATH (a name that leads out of the root), MISSING_FILE."""
    for name in names:
        if not exists_inside(root, folder, name):
            problem = "the image is missing; download the episode again"
            raise SourceError(Code.MISSING_FILE, problem, where=f"{folder}/{name}")
    return LazyImages(names, ImageFolder(folder=inside(root, folder), where=folder))
