"""Scene folders of RH20T, their metadata and the sentences of their tasks; shared by `rh20t` and `rh20t_human`.

    RH20T_cfg{1..7}/task_XXXX_user_XXXX_scene_XXXX_cfg_XXXX[_human[_N]]/metadata.json
    task_description.json     {"task_0001": {"task_description_english", "task_description_chinese"}}, from the web site
metadata.json (`rh20t/rh20t_api:rh20t_api/scene.py, visualize.py`, issue 16; `rh20t/act_baseline:dataset/rh20t.py`): calib
(a folder of calib/, or -1), calib_quality, start_time, end_time, finish_time (ms: later frames are cut), rating (0 emergency
stop, 1 failed, 2 to 9 the user's grade). Any of them may be missing. That human folders may carry a number is third party
(a public converter's pattern).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from adapters.base import SourceInfo
from adapters.containers.json_rows import Broken, JsonRow, Text, members, parse
from adapters.containers.listing import natural_key
from adapters.containers.sidecar import Sidecar, json_object, read_sidecar
from adapters.rh20t.configurations import CONFIGURATIONS
from schemas.episode import EpisodeRef, Instruction, Licence, RawFile
from schemas.errors import Code, ConfigError, SourceError
from schemas.fact import Certainty, Fact, fact
from schemas.regular_file import path_exists

# CC BY-SA 4.0 and CC BY-NC 4.0 parts, which is which is not stated in the tree: the stricter one holds for all.
LICENCE = Licence(name="CC BY-SA 4.0 and CC BY-NC 4.0 parts, not verified", allows_commercial=False)
SCENE = re.compile(r"(task_\d{4})_(user_\d{4})_(scene_\d{4})_cfg_000([1-7])(_human(?:_\d+)?)?")
CFG_FOLDERS = ("", "RH20T/")
DESCRIPTIONS = "task_description.json"
RATE_HZ = Fraction(10)  # about; instants are recorded
Kind = Literal["robot", "human"]
BYTES_PER_SCENE = 20 << 20


class SceneMetadata(JsonRow):
    calib: int = -1
    calib_quality: int | None = None
    finish_time: int | None = None
    rating: int | None = None


class TaskDescription(JsonRow):
    task_description_english: Text


@dataclass(frozen=True, slots=True, kw_only=True)
class Rh20tScene:
    """What a folder's name says. `folder` is relative to the root."""

    folder: str
    task: str
    user: str
    place: str
    number: int  # of the configuration
    kind: Kind

    @property
    def name(self) -> str:
        return self.folder.rpartition("/")[2] or self.folder


def scene_of(folder: str) -> Rh20tScene | None:
    """The scene in that folder, or None when it is none: calib, say."""
    match = SCENE.fullmatch(folder.rpartition("/")[2])
    if match is None:
        return None
    task, user, place, number, human = match.groups()
    kind: Kind = "human" if human else "robot"
    return Rh20tScene(
        folder=folder, task=task, user=user, place=place, number=int(number), kind=kind
    )


def scenes(root: Path, kind: Kind) -> list[Rh20tScene]:
    """Those of one kind, by name; `root` is the folder of one configuration, of all, or the one above RH20T/."""
    folders = [root]
    for prefix in CFG_FOLDERS:
        folders += [root / f"{prefix}RH20T_cfg{number}" for number in CONFIGURATIONS]
    all_scenes = (
        scene_of(path.relative_to(root).as_posix())
        for folder in folders
        for path in folder.glob("task_*")
        if path.is_dir()
    )
    of_kind = (scene for scene in all_scenes if scene is not None and scene.kind == kind)
    return sorted(of_kind, key=lambda s: (natural_key(s.name), s.folder))


def survey_scenes(source: str, root: Path, kind: Kind, options: Mapping[str, str]) -> SourceInfo:
    """Count scenes and sentences.

    Raises:
        ConfigError: no such scene, an option other than `task_description`, or a file of sentences that does not hold.
    """
    if unknown := sorted(set(options) - {"task_description"}):
        raise ConfigError(f"unknown options {unknown}; expected task_description=FILE.json")
    listed = scenes(root, kind)
    if not listed:
        name = "task_XXXX_user_XXXX_scene_XXXX_cfg_000N" + ("_human" if kind == "human" else "")
        raise ConfigError(
            f"{root}: not RH20T: expected folders {name}, or folders RH20T_cfgN with them"
        )
    texts = task_texts(root, options)
    untitled = sorted({scene.task for scene in listed} - set(texts))
    notes = [f"no sentence for {len(untitled)} tasks: name the web site's file by task_description"]
    return SourceInfo(
        source=source,
        dataset=source,
        licence=LICENCE,
        notes=tuple(notes if untitled else ()),
        details={"scenes": str(len(listed)), **options},
    )


def task_texts(root: Path, options: Mapping[str, str]) -> dict[str, str]:
    """The English sentence of each task; none when there is no file."""
    named = options.get("task_description")
    path = Path(named) if named else root / DESCRIPTIONS
    if not path_exists(path):
        if named:
            raise ConfigError(f"option task_description: no file {named}")
        return {}
    rows = {where[0]: parse(TaskDescription, raw) for where, raw in members(path, inside=())}
    for key, row in rows.items():
        if isinstance(row, Broken):
            raise ConfigError(f"{key[:40]}: {row.why}", where=str(path))
    return {
        key: row.task_description_english.strip()
        for key, row in rows.items()
        if isinstance(row, TaskDescription)
    }


def scene_refs(root: Path, kind: Kind, info: SourceInfo) -> Iterator[EpisodeRef]:
    """One ref for each scene by name, its sentence in the locator; a name that is there twice is broken."""
    texts = task_texts(root, info.details)
    seen: set[str] = set()
    for scene in scenes(root, kind):
        is_second, problem = scene.name in seen, _problem(root / scene.folder, scene)
        if is_second:
            problem = (Code.UNKNOWN_LAYOUT.value, f"another folder is also the scene {scene.name}")
        seen.add(scene.name)
        yield EpisodeRef(
            source=info.source,
            dataset=info.dataset,
            episode_id=scene.folder if is_second else scene.name,
            root=str(root),
            locator=(("folder", scene.folder), ("text", texts.get(scene.task, ""))),
            bytes_hint=BYTES_PER_SCENE,
            problem=problem,
        )


def _problem(folder: Path, scene: Rh20tScene) -> tuple[str, str] | None:
    """A partial download, seen without opening anything."""
    needed = ["metadata.json"]
    if scene.kind == "robot":
        needed += ["transformed/tcp_base.npy", "transformed/gripper.npy"]
    for name in needed:
        if not path_exists(folder / name):
            return Code.MISSING_FILE.value, f"{scene.folder}/{name} is missing; download it"
    if not any(path_exists(camera / "color.mp4") for camera in folder.glob("cam_*")):
        return Code.MISSING_VIDEO.value, f"{scene.folder}: no cam_*/color.mp4; download them"
    return None


def scene_at(ref: EpisodeRef) -> Rh20tScene:
    """The scene of a ref that `scene_refs` made."""
    scene = scene_of(str(ref.at("folder")))
    if scene is None:
        raise SourceError(Code.UNKNOWN_LAYOUT, "not the name of a scene", where=ref.episode_id)
    return scene


def read_metadata(root: Path, scene: Rh20tScene) -> tuple[SceneMetadata, RawFile]:
    """Raises SourceError as `read_sidecar`, or BAD_ANNOTATION."""
    sidecar = Sidecar(path=f"{scene.folder}/metadata.json")
    text, raw = read_sidecar(root, sidecar)
    row = parse(SceneMetadata, json_object(text, sidecar.name))
    if isinstance(row, Broken):
        raise SourceError(Code.BAD_ANNOTATION, row.why, where=sidecar.name)
    return row, raw


def metadata_facts(metadata: SceneMetadata) -> list[Fact]:
    """Grade and quality of calibration as the set has them."""
    source = "metadata.json; rh20t/act_baseline:dataset/rh20t.py"
    cut = "not cut" if metadata.finish_time is None else f"cut after {metadata.finish_time} ms"
    stated = {
        "finish_time": cut,
        "rating": metadata.rating,
        "calib_quality": metadata.calib_quality,
    }
    return [
        fact(name, str(value), Certainty.CODE, source)
        for name, value in stated.items()
        if value is not None
    ]


def instructions_of(ref: EpisodeRef) -> tuple[Instruction, ...]:
    text: Any = ref.at("text")
    return (Instruction(text=text),) if text else ()
