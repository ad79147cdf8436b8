"""robomimic and LIBERO: robosuite demonstrations, many in one HDF5 file.

    <any>/<file>.hdf5     data@{env_args, total, ...}, data/demo_<k>@num_samples, data/demo_<k>/{actions, obs/*, rewards, dones}
                          mask/<key> [M] names of demonstrations (train, valid, better, ...)
The numbers are in demo.py, the attributes in environment.py. Sources: `ARISE-Initiative/robomimic:docs/datasets/overview.md,
robomimic/envs/env_robosuite.py`, `Lifelong-Robot-Learning/LIBERO:scripts/create_dataset.py`; frames, gripper and the meaning
of rewards by replay in robosuite 1.4.1. Not read: states, next_obs, depth, object poses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from adapters.base import SourceInfo
from adapters.containers.hdf5 import Hdf5File
from adapters.containers.hdf5_camera import StorageOrder, hdf5_camera
from adapters.containers.listing import natural_key
from adapters.containers.raw_file import raw_file_of
from adapters.containers.safe_path import inside
from adapters.robomimic.demo import clock_of, demo_streams, robots_in
from adapters.robomimic.environment import (
    Environment,
    facts_of,
    read_environment,
    source_splits,
    success_of,
)
from schemas.episode import Camera, Episode, EpisodeRef, Instruction, Licence
from schemas.errors import Code, ConfigError, SourceError
from schemas.regular_file import bytes_hint

UNKNOWN = Licence(name="unknown")
LIBERO = Licence(name="CC BY 4.0", allows_commercial=True, allows_redistribution=True)  # its README
SUFFIXES = ("_image", "_rgb")


class Robomimic:
    """Adapter for `robomimic`."""

    name: ClassVar[str] = "robomimic"
    version: ClassVar[int] = 2
    container: ClassVar[str] = "hdf5"
    about: ClassVar[str] = "robomimic and LIBERO: robosuite demonstrations of one or two Pandas"

    def survey(self, root: Path, options: Mapping[str, str]) -> SourceInfo:
        """Options: `instruction`, the task's text for every demonstration."""
        if unknown := sorted(set(options) - {"instruction"}):
            raise ConfigError(f"unknown options {unknown}; expected only `instruction`")
        if not any(_demos(root, name)[0] for name in _files(root)):
            raise ConfigError(
                f"{root}: neither robomimic nor LIBERO: expected HDF5 files with data/demo_<k>"
            )
        return SourceInfo(
            source=self.name,
            dataset=self.name,
            licence=UNKNOWN,
            notes=("depth, object poses and simulator states are not read",),
            details=dict(options),
        )

    def discover(self, root: Path, info: SourceInfo) -> Iterator[EpisodeRef]:
        """By file, then by the number of the demonstration; a file that does not open is one broken episode."""
        for name in sorted(_files(root), key=natural_key):
            demos, problem = _demos(root, name)
            published = source_splits(root, name) if demos else {}
            for demo in sorted(demos, key=natural_key) or ([""] if problem else []):
                yield EpisodeRef(
                    source=self.name,
                    dataset=self.name,
                    episode_id=f"{name.removesuffix('.hdf5')}/{demo}".rstrip("/"),
                    root=str(root),
                    locator=(("file", name), ("demo", demo), *sorted(info.details.items())),
                    bytes_hint=bytes_hint(root / name) // max(1, len(demos)),
                    problem=problem,
                    source_split=published.get(demo, ""),
                )

    def load(self, ref: EpisodeRef) -> Episode:
        locator = dict(ref.locator)
        path = inside(Path(ref.root), locator["file"])
        group = f"data/{locator['demo']}"
        with Hdf5File(path, where=locator["file"]) as file:
            num_robots = robots_in(file, group)
            env = read_environment(file, is_libero="ee_ori" in file.children(f"{group}/obs"))
            streams = tuple(demo_streams(file, group, env))
            _check_count(file, group)
            cameras = _cameras(file, group, env)
            facts = facts_of(file, locator["demo"], env, num_robots)
            success = success_of(file, group, env)
        text = str(locator.get("instruction", env.language))
        return Episode(
            ref=ref,
            embodiment=_embodiment(env, num_robots),
            rate_hz=env.rate_hz,
            streams=streams,
            cameras=cameras,
            instructions=(Instruction(text=text),) if text else (),
            facts=(*ref.facts, *facts),
            licence=LIBERO if env.is_libero else UNKNOWN,
            raw_files=(raw_file_of(path, Path(ref.root)),),
            success=success,
            scene_id=env.name or None,
        )


def _files(root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in root.rglob("*.hdf5")]


def _demos(root: Path, name: str) -> tuple[tuple[str, ...], tuple[str, str] | None]:
    """Names below data/ of one file, and what is wrong with the file as a whole."""
    try:
        with Hdf5File(inside(root, name), where=name) as file:
            demos = tuple(d for d in file.children("data") if file.children(f"data/{d}"))
    except SourceError as error:
        return (), (error.code.value, str(error))
    return demos, None if demos else (Code.UNKNOWN_LAYOUT.value, f"{name} has no data/demo_<k>")


def _embodiment(env: Environment, num_robots: int) -> str:
    """Pandas have known frames; other robots get a name of their own, and their frames are unknown."""
    if env.is_panda:
        return "robosuite_panda_body" if num_robots == 1 else "robosuite_two_panda_body"
    name = "_".join(env.robots).lower() or "robot"
    return f"robosuite_{''.join(c if c.isascii() and c.isalnum() else '_' for c in name)}"


def _check_count(file: Hdf5File, group: str) -> None:
    if file.has_attribute(group, "num_samples"):
        num_rows, promised = file.shape(f"{group}/actions")[0], file.attribute(group, "num_samples")
        if num_rows != promised:
            problem = f"{num_rows} actions; num_samples states {promised}"
            raise SourceError(Code.FRAME_COUNT, problem, where=f"{file.where}:{group}")


def _cameras(file: Hdf5File, group: str, env: Environment) -> tuple[Camera, ...]:
    """robomimic turns pictures upright before it stores them; LIBERO stores them as OpenGL gives them."""
    colour = StorageOrder(is_upside_down=env.is_libero and env.image_convention != "opencv")
    t_ns = clock_of(env, file.shape(f"{group}/actions")[0]).t_ns
    names = [(key, s) for key in file.children(f"{group}/obs") for s in SUFFIXES if key.endswith(s)]
    return tuple(
        hdf5_camera(file, f"{group}/obs/{key}", key.removesuffix(s), t_ns, colour=colour)
        for key, s in names
    )
