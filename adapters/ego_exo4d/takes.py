"""Takes of Ego-Exo4D: typed rows, files, published split, and which of them the user asks for.

takes.json of Ego-Exo4D as typed rows, and the files of a take.

Source: EGO4D/Ego-Exo4D-docs:docs/data/{metadata,takes,downscaled_takes}.md (documented).

Which split Ego-Exo4D publishes a take in.

    annotations/splits.json                                  take_uid_to_split {take uid: train | val | test}
    annotations/{keystep,atomic_descriptions}_{train,val}.json     by the file that annotates the take
Source: EGO4D/ego-exo4d-egopose:handpose/data_preparation (code). A take takes the strictest of all that list it.

What a user asks to be read of an Ego-Exo4D download: which annotations, which standing cameras, which hand labels.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from adapters.containers.json_rows import Broken, JsonRow, Text, Uid, members, parse
from adapters.containers.safe_path import exists_inside
from adapters.ego_exo4d.hands import FOLDER, SPLITS
from adapters.ego_exo4d.hands import KINDS as HAND_KINDS
from schemas.errors import Code, ConfigError, SourceError
from schemas.regular_file import path_exists
from schemas.source_split import source_split_of, strictest

# -- takes ---------------------------------------------------------------------------------------------------------

RGB = "rgb"  # the stream of an Aria camera that is the colour picture; a GoPro has one stream, "0"
SMALL = "downscaled/448"
_CAMERA = re.compile(r"[a-z0-9][a-z0-9_]{0,40}")


class FrameAligned(JsonRow):
    relative_path: Text


class RigCamera(JsonRow):
    cam_id: Uid
    is_ego: bool = False


class Capture(JsonRow):
    cameras: list[RigCamera] = Field(default_factory=list)


class Take(JsonRow):
    """One take. Its `task_start_sec` and `task_end_sec` may be null and are not used."""

    take_uid: Uid
    take_name: Uid
    root_dir: Text = ""
    is_dropped: bool = False
    participant_uid: int | str | None = None
    capture: Capture = Capture()
    frame_aligned_videos: dict[str, dict[str, FrameAligned]] = Field(default_factory=dict)

    @property
    def ego(self) -> str | None:
        """The wearer's camera; it is not always called aria01."""
        return next((c.cam_id for c in self.capture.cameras if c.is_ego), None)

    def video(self, camera: str) -> str | None:
        """The path of its colour video within the take, as takes.json has it."""
        streams = self.frame_aligned_videos.get(camera, {})
        stream = streams.get(RGB) or (next(iter(streams.values())) if len(streams) == 1 else None)
        return stream.relative_path if stream else None

    def exo(self, asked: tuple[str, ...]) -> list[str]:
        """Those of the standing cameras that were asked for ("all": every one), in order of name."""
        known = {c.cam_id for c in self.capture.cameras if not c.is_ego and self.video(c.cam_id)}
        return sorted(c for c in known if _CAMERA.fullmatch(c) and (c in asked or "all" in asked))


def takes_in(path: Path) -> Iterator[tuple[str, Take | Broken]]:
    """(position, take) of each entry of takes.json."""
    for where, raw in members(path, inside=()):
        yield where[0], parse(Take, raw)


def ego_file(root: Path, take: Take) -> str:
    """The colour video of the wearer's camera relative to `root`: full size, else 448 px wide, which is fetched more often.

    Raises:
        SourceError: UNKNOWN_LAYOUT when takes.json names none, MISSING_VIDEO, UNSAFE_PATH.
    """
    where = take.take_name[:100]
    listed = take.video(take.ego) if take.ego else None
    if listed is None:
        problem = f"takes.json lists no {RGB} video of an egocentric camera"
        raise SourceError(Code.UNKNOWN_LAYOUT, problem, where=where)
    for name in (video_file(take, listed), video_file(take, small(listed))):
        if exists_inside(root, name):
            return name
    raise SourceError(Code.MISSING_VIDEO, f"no {listed} or {SMALL}; download it", where=where)


def video_file(take: Take, listed: str) -> str:
    return f"{take.root_dir or f'takes/{take.take_name}'}/{listed}"


def small(listed: str) -> str:
    """frame_aligned_videos/x.mp4 -> frame_aligned_videos/downscaled/448/x.mp4."""
    folder, _, name = listed.rpartition("/")
    return f"{folder}/{SMALL}/{name}"


# -- splits --------------------------------------------------------------------------------------------------------

SPLITS_FILE = "annotations/splits.json"
BY_TAKE = "take_uid_to_split"
ANNOTATED = ("keystep", "atomic_descriptions")


def source_splits(root: Path) -> dict[str, str]:
    """Split by take uid, from every file of the download that names one."""
    splits: dict[str, str] = {}

    def note(uid: str, split: str) -> None:
        splits[uid] = strictest((splits.get(uid, ""), split))

    path = root / SPLITS_FILE
    for where, raw in members(path, inside=(BY_TAKE,)) if path_exists(path) else ():
        if where[0] == BY_TAKE and len(where) == 2 and isinstance(raw, str):
            note(where[1], source_split_of(raw))
    for split in SPLITS:
        for kind in ANNOTATED:
            path = root / "annotations" / f"{kind}_{split}.json"
            for where, _ in members(path, inside=("annotations",)) if path_exists(path) else ():
                if where[0] == "annotations" and len(where) == 2:
                    note(where[1], split)
        for pose in (root / FOLDER / split).glob("*/**/*.json"):
            note(pose.stem, split)
    return splits


# -- choice --------------------------------------------------------------------------------------------------------

WINDOWS = "windows"
KINDS = ("keystep", "atomic_descriptions", WINDOWS)
OPTIONS = ("annotations", "cameras", "hands")


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """`hands`: kinds of hand labels, the first that a take has counts; none for no hands."""

    root: Path
    files: tuple[tuple[str, Path], ...]  # (kind, file)
    has_windows: bool
    exo: tuple[str, ...]
    hands: tuple[str, ...]


def chosen_from(root: Path, options: Mapping[str, str]) -> Choice:
    """ConfigError: no takes.json at `root`, or an option that does not hold."""
    if unknown := sorted(set(options) - set(OPTIONS)):
        raise ConfigError(f"unknown options {unknown}; expected {', '.join(OPTIONS)}")
    if not path_exists(root / "takes.json"):
        raise ConfigError("not an Ego-Exo4D download: takes.json is missing", where=str(root))
    asked = options.get("annotations", ",".join(KINDS)).split(",")
    if wrong := sorted(set(asked) - set(KINDS)):
        raise ConfigError(f"annotations: {wrong}; expected one of {', '.join(KINDS)}")
    paths = [(k, root / "annotations" / f"{k}_{s}.json") for k in KINDS for s in ("train", "val")]
    files = tuple((kind, path) for kind, path in paths if kind in asked and path_exists(path))
    if missing := sorted(
        set(asked) - {WINDOWS} - set(dict(files)) if "annotations" in options else ()
    ):
        raise ConfigError(f"no file in annotations/ for {missing}", where=str(root))
    exo = tuple(name for name in options.get("cameras", "").split(",") if name)
    hands = options.get("hands", ",".join(HAND_KINDS))
    kinds = () if hands == "none" else tuple(hands.split(","))
    if wrong := sorted(set(kinds) - set(HAND_KINDS)):
        raise ConfigError(f"option hands={wrong}: expected none or {', '.join(HAND_KINDS)}")
    return Choice(root=root, files=files, has_windows=WINDOWS in asked, exo=exo, hands=kinds)
