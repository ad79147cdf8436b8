"""Meta-World played by scripts, as `python -m benchmarks.routing` records it: one HDF5 file and one MP4 for each episode.

    <task>/<number>.hdf5          rows and commands: motion.py; a file of `time_s` alone is an action-free video
    <task>/<number>.mp4           picture i is what was seen at row i, before the command of row i
    <task>/<number>.label.json    how it was played and whether it succeeded: NEVER opened here
The label is what tiers and policies are judged by, so nothing of it may reach the corpus: no `success`, no play, no seed. Source:
`Farama-Foundation/Metaworld:metaworld/sawyer_xyz_env.py` (3.1.1), and benchmarks/routing/record.py, which writes the layout.
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
from adapters.containers.video_probe import probe_video
from adapters.metaworld_hdf5.motion import clock_of, has_motion, motion_facts, motion_streams
from schemas.episode import Camera, Episode, EpisodeRef, Instruction, Licence, VideoSpan
from schemas.errors import Code, ConfigError, SourceError
from schemas.regular_file import bytes_hint, path_exists

LICENCE = Licence(
    name="MIT (Meta-World and its assets)", allows_commercial=True, allows_redistribution=True
)
LAYOUT = "metaworld_hdf5 1"
CAMERA = "front"
SUFFIXES = (".hdf5", ".mp4")


class MetaWorldHdf5:
    """Adapter for `metaworld_hdf5`; it has no options."""

    name: ClassVar[str] = "metaworld_hdf5"
    version: ClassVar[int] = 1
    container: ClassVar[str] = "hdf5 + mp4"
    about: ClassVar[str] = "Meta-World's Sawyer played by scripts, recorded by benchmarks/routing"

    def survey(self, root: Path, options: Mapping[str, str]) -> SourceInfo:
        """ConfigError: an option, or no `<task>/<number>.hdf5` that says it is of this layout."""
        if options:
            raise ConfigError(f"unknown options {sorted(options)}; this source has no options")
        if not any(_is_ours(root / f"{name}.hdf5") for name in _files(root)):
            todo = "record episodes with `python -m benchmarks.routing --out DIR --until record`"
            raise ConfigError(
                f"{root}: expected <task>/<number>.hdf5 with layout {LAYOUT!r}", remedy=todo
            )
        return SourceInfo(
            source=self.name,
            dataset=self.name,
            licence=LICENCE,
            notes=("labels of quality lie beside the episodes and are not read",),
        )

    def discover(self, root: Path, info: SourceInfo) -> Iterator[EpisodeRef]:
        """By task and number; half a pair is yielded with its problem."""
        for name, suffixes in sorted(_files(root).items(), key=lambda item: natural_key(item[0])):
            problem = None
            if suffixes != set(SUFFIXES):
                lost = next(s for s in SUFFIXES if s not in suffixes)
                code = Code.MISSING_VIDEO if lost == ".mp4" else Code.MISSING_FILE
                problem = (code.value, f"{name} has no {lost}; record it again")
            yield EpisodeRef(
                source=self.name,
                dataset=self.name,
                episode_id=name,
                root=str(root),
                bytes_hint=bytes_hint(*(root / f"{name}{suffix}" for suffix in suffixes)),
                problem=problem,
            )

    def load(self, ref: EpisodeRef) -> Episode:
        """Raises SourceError: UNKNOWN_LAYOUT, FRAME_COUNT, and as `clock_of` and `motion_streams`."""
        root, name = Path(ref.root), ref.episode_id
        path, video = inside(root, f"{name}.hdf5"), inside(root, f"{name}.mp4")
        with Hdf5File(path, where=f"{name}.hdf5") as file:
            layout = str(file.attribute("", "layout"))
            if layout != LAYOUT:
                problem = f"layout {layout!r}; expected {LAYOUT!r}"
                raise SourceError(Code.UNKNOWN_LAYOUT, problem, where=file.where)
            clock = clock_of(file)
            streams = tuple(motion_streams(file, clock)) if has_motion(file) else ()
            facts = tuple(motion_facts(clock, has_actions=bool(streams)))
            text = str(file.attribute("", "instruction")).strip()
        num_frames, num_rows = probe_video(video).num_frames, len(clock.t_ns)
        if num_frames != num_rows:
            problem = f"{num_frames} frames for {num_rows} rows; record it again"
            raise SourceError(Code.FRAME_COUNT, problem, where=f"{name}.mp4")
        frames = VideoSpan(path=str(video), first_frame=0, num_frames=num_frames)
        return Episode(
            ref=ref,
            embodiment="metaworld_sawyer",
            rate_hz=clock.rate_hz,
            streams=streams,
            cameras=(Camera(name=CAMERA, frames=frames, t_ns=clock.t_ns),),
            instructions=(Instruction(text=text),) if text else (),
            facts=(*ref.facts, *facts),
            licence=LICENCE,
            raw_files=(raw_file_of(path, root), raw_file_of(video, root)),
        )


def _files(root: Path) -> dict[str, set[str]]:
    """`<task>/<number>` -> which of its two files are there."""
    suffixes: dict[str, set[str]] = {}
    for suffix in SUFFIXES:
        for path in root.glob(f"*/*{suffix}"):
            if path.stem.isascii() and path.stem.isdigit() and path_exists(path):
                name = path.with_suffix("").relative_to(root).as_posix()
                suffixes.setdefault(name, set()).add(suffix)
    return suffixes


def _is_ours(path: Path) -> bool:
    """Whether the file says so; one that does not open may be ours, and discovery lists it."""
    if not path_exists(path):
        return False
    try:
        with Hdf5File(path) as file:
            return str(file.attribute("", "layout")) == LAYOUT
    except SourceError:
        return False
