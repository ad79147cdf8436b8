"""AgiBot World alpha and beta: AgiBot G1, one HDF5, some MP4 and some JSON per episode.

    task_info/task_{tid}.json                                      what was done            agibot_task_info.py
    proprio_stats/{tid}/{eid}/proprio_stats.h5                     state, action, clock     agibot_proprio.py, _commands.py
    observations/{tid}/{eid}/videos/{cam}_color.mp4                frame k belongs to row k
    parameters/{tid}/{eid}/camera/{cam}_intrinsic_params.json, {cam}_extrinsic_params_aligned.json
Some mirrors have one more level, parameters/{tid}/{eid}/parameters/camera. Source: `AgibotTech/Genie-Envisioner:data/
agibotworld_dataset.py`, `Tavish9/any4lerobot:agibot2lerobot`, `34328/AgiBot_eef_extraction:agibot_world_itrd.md`.
Not read: depth, tactile, head, waist and base motion (the poses already include the waist).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from adapters.agibot_world.cameras import read_cameras
from adapters.agibot_world.commands import read_commands
from adapters.agibot_world.proprio import RATE_HZ, read_state, state_streams
from adapters.agibot_world.task_info import episode_info, instructions_of, read_defects, task_info
from adapters.base import SourceInfo
from adapters.containers.hdf5 import Hdf5File
from adapters.containers.raw_file import raw_file_of
from adapters.containers.safe_path import inside
from schemas.episode import Episode, EpisodeRef, Licence
from schemas.errors import Code, ConfigError, SourceError
from schemas.regular_file import path_exists

LICENCE = Licence(name="CC BY-NC-SA 4.0", allows_commercial=False, allows_redistribution=True)
BYTES_PER_EPISODE = 30 << 20  # 41.64 TB with depth over 1,001,552 episodes is 42 MB


class AgiBotWorld:
    """Adapter for `agibot_world`."""

    name: ClassVar[str] = "agibot_world"
    path_options: ClassVar[tuple[str, ...]] = ("defects",)
    version: ClassVar[int] = 1
    container: ClassVar[str] = "hdf5 + mp4 + json"
    about: ClassVar[str] = (
        "AgiBot World alpha and beta: AgiBot G1 with two grippers or dexterous hands"
    )

    def survey(self, root: Path, options: Mapping[str, str]) -> SourceInfo:
        """Options: `defects`, a folder of community defect lists (*.jsonl)."""
        if unknown := sorted(set(options) - {"defects"}):
            raise ConfigError(f"unknown options {unknown}; expected only `defects`")
        if not (root / "task_info").is_dir() and not (root / "proprio_stats").is_dir():
            raise ConfigError(f"{root}: not AgiBot World: expected task_info/ and proprio_stats/")
        if "defects" in options:
            read_defects(Path(options["defects"]))
        return SourceInfo(
            source=self.name,
            dataset=self.name,
            licence=LICENCE,
            notes=(f"{len(_tasks(root))} tasks", "depth and tactile streams are not read"),
            details=dict(options),
        )

    def discover(self, root: Path, info: SourceInfo) -> Iterator[EpisodeRef]:
        """By task, then episode, both as numbers: every listed episode and every one found on disk."""
        defects = read_defects(Path(info.details["defects"])) if "defects" in info.details else {}
        for task in _tasks(root):
            problems = _episodes(root, task)
            for episode in sorted(problems, key=lambda e: (not _is_number(e), e.zfill(20))):
                why, facts = defects.get((task, episode), (None, ()))
                problem = problems[episode]
                if problem is None and why is not None:
                    problem = (Code.KNOWN_DEFECT.value, f"{task}/{episode}: {why}")
                yield EpisodeRef(
                    source=self.name,
                    dataset=self.name,
                    episode_id=f"{task}/{episode}",
                    root=str(root),
                    locator=(("task", task), ("episode", episode)),
                    facts=facts,
                    bytes_hint=BYTES_PER_EPISODE,
                    problem=problem,
                )

    def load(self, ref: EpisodeRef) -> Episode:
        root, task, episode = Path(ref.root), str(ref.at("task")), str(ref.at("episode"))
        info_path = inside(root, "task_info", f"task_{task}.json")
        info = episode_info(info_path, int(episode))
        h5_path = inside(root, "proprio_stats", task, episode, "proprio_stats.h5")
        with Hdf5File(h5_path, where=f"proprio_stats/{task}/{episode}/proprio_stats.h5") as file:
            state = read_state(file)
            streams = state_streams(state, file.where)
            commands, command_facts = read_commands(file, state)
        cameras = read_cameras(root, task, episode, state.t_ns)
        instructions, text_facts = instructions_of(info, state.t_ns)
        paths = (h5_path, info_path, *cameras.paths)
        return Episode(
            ref=ref,
            embodiment=state.embodiment,
            rate_hz=RATE_HZ,
            streams=(*streams, *commands, *cameras.streams),
            cameras=cameras.cameras,
            instructions=instructions,
            facts=(*ref.facts, *state.facts, *command_facts, *cameras.facts, *text_facts),
            licence=LICENCE,
            raw_files=tuple(raw_file_of(path, root) for path in paths),
        )


def _tasks(root: Path) -> list[str]:
    """Task ids, as numbers in order, from task_info and from what is on disk."""
    named = {p.stem.removeprefix("task_") for p in (root / "task_info").glob("task_*.json")}
    return sorted(filter(_is_number, named | _folders(root)), key=int)


def _folders(root: Path, task: str = "") -> set[str]:
    """Names below proprio_stats/<task> and observations/<task> that are numbers."""
    places = (root / top / task for top in ("proprio_stats", "observations"))
    return {p.name for place in places if place.is_dir() for p in place.iterdir() if p.is_dir()}


def _episodes(root: Path, task: str) -> dict[str, tuple[str, str] | None]:
    """Episode id -> what is known to be wrong with it, for one task."""
    on_disk = set(filter(_is_number, _folders(root, task)))
    try:
        listed = task_info(inside(root, "task_info", f"task_{task}.json"))
    except SourceError as error:
        return dict.fromkeys(on_disk or {"task_info"}, (error.code.value, error.message))
    known = {str(number): _absent(root, task, str(number)) for number in listed.entries}
    unlisted = (Code.MISSING_META.value, f"on disk, but not listed in task_{task}.json")
    faults = {
        name: (Code.BAD_ANNOTATION.value, f"task_{task}.json: {why}")
        for name, why in listed.faults.items()
    }
    return {**dict.fromkeys(on_disk, unlisted), **known, **faults}


def _absent(root: Path, task: str, episode: str) -> tuple[str, str] | None:
    """A partial download, seen without opening anything."""
    needed = (
        (Code.MISSING_FILE, f"proprio_stats/{task}/{episode}/proprio_stats.h5"),
        (Code.MISSING_VIDEO, f"observations/{task}/{episode}/videos/head_color.mp4"),
    )
    for code, name in needed:
        if not path_exists(root / name):
            return code.value, f"{name} is missing; download it"
    return None


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit()
