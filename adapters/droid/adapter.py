"""DROID raw: one Franka Panda, three ZED cameras, 13 labs; one folder per episode.

    [<lab>/]{success|failure}/{YYYY-MM-DD}/{Day_Mon_DD_HH:MM:SS_YYYY}/
        trajectory.h5          state, commands, clock                  motion.py
        metadata_{uuid}.json   uuid, lab, user_id, current_task, scene_id, building, *_cam_serial, trajectory_length
        recordings/MP4/*.mp4                                           cameras.py
Times in names and metadata are local, of no stated zone: nothing here depends on them. Sources: `droid-dataset/droid:
docs/the-droid-dataset.md, droid/postprocessing/schema.py`, and the code named in motion.py and cameras.py.
Not read: right pictures, depth, torques, joint velocities. The language annotations of the RLDS copy are not in the raw set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from adapters.base import SourceInfo
from adapters.containers.hdf5 import Hdf5File
from adapters.containers.listing import entries_named
from adapters.containers.raw_file import raw_file_of
from adapters.containers.safe_path import inside
from adapters.containers.sidecar import Sidecar, json_object, read_sidecar
from adapters.droid.cameras import missing_videos, read_cameras, serials_of, since_first_sample
from adapters.droid.motion import RATE_HZ, motion_facts, motion_streams, read_clock
from schemas.episode import Episode, EpisodeRef, Instruction, Licence
from schemas.errors import Code, ConfigError, SourceError
from schemas.fact import Certainty, Fact, fact
from schemas.regular_file import path_exists

LICENCE = Licence(name="CC BY 4.0 by memory, not verified")
TRAJECTORY = "trajectory.h5"
BYTES_PER_EPISODE = 60 << 20  # without SVO, estimated


class Droid:
    """Adapter for `droid`."""

    name: ClassVar[str] = "droid"
    version: ClassVar[int] = 1
    container: ClassVar[str] = "hdf5 + mp4 + json"
    about: ClassVar[str] = "DROID raw: Franka Panda with a Robotiq gripper in 13 labs"

    def survey(self, root: Path, options: Mapping[str, str]) -> SourceInfo:
        """There are no options."""
        if options:
            raise ConfigError(f"unknown options {sorted(options)}; this source has no options")
        if next(entries_named(root, TRAJECTORY), None) is None:
            raise ConfigError(f"{root}: not DROID raw: expected {TRAJECTORY} below it")
        notes = (
            "the licence is not verified: read the terms before passing data on",
            "SVO recordings, depth and right pictures are not read",
        )
        return SourceInfo(source=self.name, dataset=self.name, licence=LICENCE, notes=notes)

    def discover(self, root: Path, info: SourceInfo) -> Iterator[EpisodeRef]:
        """By folder: every one that holds a trajectory or metadata, complete or not."""
        files = (*entries_named(root, TRAJECTORY), *root.rglob("metadata_*.json"))
        for folder in sorted({path.parent.relative_to(root).as_posix() for path in files}):
            yield EpisodeRef(
                source=self.name,
                dataset=self.name,
                episode_id=folder,
                root=str(root),
                locator=(("folder", folder),),
                bytes_hint=BYTES_PER_EPISODE,
                problem=_absent(root / folder, folder),
            )

    def load(self, ref: EpisodeRef) -> Episode:
        root, folder = Path(ref.root), str(ref.at("folder"))
        h5_path = inside(root, folder, TRAJECTORY)
        metadata, metadata_raw = _metadata(root, folder)
        with Hdf5File(h5_path, where=f"{folder}/{TRAJECTORY}") as file:
            serials = serials_of(file, metadata)
            clock = since_first_sample(file, root, folder, serials, read_clock(file))
            _check_length(metadata, len(clock.t_ns), folder)
            streams = tuple(motion_streams(file, clock))
            cameras = read_cameras(file, root, folder, serials, clock)
            task = str(metadata.get("current_task") or _attribute(file, "current_task")).strip()
            success, success_facts = _success(folder, _attribute(file, "success"))
            facts = (*ref.facts, clock.fact, *motion_facts(file), *cameras.facts, *success_facts)
        paths = (h5_path, *cameras.paths)
        return Episode(
            ref=ref,
            embodiment="droid_panda_robotiq",
            rate_hz=RATE_HZ,
            streams=(*streams, *cameras.streams),
            cameras=cameras.cameras,
            instructions=(Instruction(text=task),) if task else (),
            facts=facts,
            licence=LICENCE,
            raw_files=(*(raw_file_of(path, root) for path in paths), *metadata_raw),
            success=success,
            subject_id=_text(metadata, "user_id"),
            scene_id=_scene(metadata),
        )


def _absent(folder: Path, name: str) -> tuple[str, str] | None:
    """A partial download, seen without opening anything."""
    if not path_exists(folder / TRAJECTORY):
        return Code.MISSING_FILE.value, f"{name}/{TRAJECTORY} is missing; download it"
    why = missing_videos(folder)
    return (Code.MISSING_VIDEO.value, f"{name}: {why}") if why else None


def _metadata(root: Path, folder: str) -> tuple[dict[str, Any], tuple[Any, ...]]:
    """The metadata and its fingerprint; nothing when there is no such file (the attributes then have to do)."""
    files = sorted(inside(root, folder).glob("metadata_*.json"))
    if len(files) > 1:
        raise SourceError(Code.BAD_ANNOTATION, f"{len(files)} metadata files", where=folder)
    if not files:
        return {}, ()
    sidecar = Sidecar(path=f"{folder}/{files[0].name}")
    text, raw = read_sidecar(root, sidecar)
    return json_object(text, sidecar.name), (raw,)


def _check_length(metadata: Mapping[str, Any], num_rows: int, folder: str) -> None:
    promised = metadata.get("trajectory_length", num_rows)
    if promised != num_rows:
        problem = f"{num_rows} rows; trajectory_length states {promised}"
        raise SourceError(Code.FRAME_COUNT, problem, where=folder)


def _attribute(file: Hdf5File, name: str) -> Any:
    return file.attribute("", name) if file.has_attribute("", name) else ""


def _success(folder: str, attribute: Any) -> tuple[bool | None, list[Fact]]:
    """The folder decides; an attribute that says otherwise leaves a fact."""
    parts = folder.split("/")
    success = True if "success" in parts else False if "failure" in parts else None
    if attribute == "" or bool(attribute) == success:
        return success, []
    if success is None:
        return bool(attribute), []
    text = f"the folder says {success}, the attribute {bool(attribute)}"
    return success, [fact("success_conflict", text, Certainty.VERIFIED, "compared in this episode")]


def _text(metadata: Mapping[str, Any], key: str) -> str | None:
    value = metadata.get(key)
    return str(value) if value not in (None, "", "N/A", -1) else None


def _scene(metadata: Mapping[str, Any]) -> str | None:
    parts = [text for key in ("lab", "building", "scene_id") if (text := _text(metadata, key))]
    return "/".join(parts) if _text(metadata, "scene_id") else None
