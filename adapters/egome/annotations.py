"""EgoMe's annotation files as entries, and the videos of the entries.

EgoMe's annotation files to entries. No real file was at hand: every key below is THIRD PARTY, read in
`jack1ee/SAVAX:utils/convert_egome_annotations.py, data/video_egome_dataset.py` (by authors of EgoMe among others).

    {train,val,test,total}.json     {"annotations": {video name: entry}}
    entry   "View" Ego | Exo, "Duration" s, "Coarse-level" text, "Fine-level" [step]
            ("Match video", "Video type", "Scene", "Action" and "Split" are not read)
    step    "Step order", "Step timestamp" [start, end] s, "Step discription" [sic]
A name with FALSE in it is an imitation that goes wrong; so is a step whose description begins with `F: `, and `T: ` is a right
one. That times are seconds from the video's start is UNVERIFIED; `Duration` is compared with the file.

Where the video of an entry lies. UNVERIFIED as a whole: the tree of the download is not public.

A video is looked for everywhere below the root by its name, or by the name without _ego in a folder called Ego; folders called
Exo are passed over.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import Field

from adapters.containers.json_rows import (
    LONGEST_UID,
    Broken,
    JsonRow,
    Seconds,
    Text,
    members,
    parse,
)
from adapters.containers.video_clip import Clip
from schemas.errors import Code, ConfigError
from schemas.regular_file import path_exists

# -- annotations ---------------------------------------------------------------------------------------------------

SPLITS = ("train", "val", "test")
WHOLE = "total"  # the same entries again: read only where no split is there
FOLDERS = ("", "EgoMe_Annotation", "annotations")  # UNVERIFIED
PREFIX = re.compile(r"([A-Z]):\s*(.*)", re.DOTALL)
MAX_STEPS = 1_000
SLACK_S = 1.0  # a step may end this much after the stated duration: rounding


class EgomeStep(JsonRow):
    order: int | float = Field(default=0, validation_alias="Step order")
    span_s: tuple[Seconds, Seconds] = Field(validation_alias="Step timestamp")
    text: Text = Field(validation_alias="Step discription")


class Entry(JsonRow):
    view: Annotated[str, Field(max_length=20)] = Field(validation_alias="View")
    duration_s: Seconds = Field(validation_alias="Duration")
    coarse: Text = Field(default="", validation_alias="Coarse-level")
    fine: Annotated[list[Any], Field(max_length=MAX_STEPS)] = Field(
        default_factory=list, validation_alias="Fine-level"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EgomeVideo:
    """One entry; `why` is set where it does not hold. `steps` are (start_s, end_s, text, verdict T, F or -)."""

    name: str
    split: str
    view: str = ""
    duration_s: float = 0.0
    text: str = ""
    steps: tuple[tuple[float, float, str, str], ...] = field(default=())
    left_out: int = 0  # steps without a text or a length
    why: str = ""

    @property
    def base(self) -> str:
        """What both videos of a pair are called but for the view."""
        return re.sub(r"_(ego|exo)$", "", self.name)

    @property
    def is_right(self) -> bool:
        return "FALSE" not in self.name.upper()


def annotation_files(root: Path, options: Mapping[str, str]) -> dict[str, Path]:
    """Split -> file: those that are there, or the one of all videos where no split is.

    Raises:
        ConfigError: none of them.
    """
    folders = (options["annotations"],) if "annotations" in options else FOLDERS
    files = {
        split: path
        for split in (*SPLITS, WHOLE)
        for folder in reversed(folders)
        if path_exists(path := root / folder / f"{split}.json")
    }
    if not files:
        where = " or ".join(f"{folder}/" if folder else "it" for folder in folders)
        raise ConfigError(
            f"expected train.json, val.json, test.json or total.json in {where}", where=str(root)
        )
    return {s: files[s] for s in SPLITS if s in files} or files


def videos(split: str, path: Path) -> Iterator[EgomeVideo]:
    """Every entry of a file, of both views, in file order.

    Raises:
        ConfigError: the file has not the layout above.
    """
    others, count = [], 0
    for where, raw in members(path, inside=("annotations",)):
        if len(where) == 1:
            others.append(where[0][:40])
        elif count == 0 and where[1] == "0":  # positions of a list read as keys
            raise ConfigError("annotations is a list; expected an object", where=str(path))
        else:
            count += 1
            yield _video(split, where[1], raw)
    if count == 0:
        problem = f"top-level keys {others[:8]}; expected annotations with an entry for each video"
        raise ConfigError(problem, where=str(path))


def _video(split: str, key: str, raw: Any) -> EgomeVideo:
    name = PurePosixPath(key).stem[:LONGEST_UID] or "unnamed"
    entry = parse(Entry, raw)
    if isinstance(entry, Broken):
        return EgomeVideo(name=name, split=split, why=entry.why)
    view = entry.view.strip().lower()
    if view not in ("ego", "exo"):
        return EgomeVideo(name=name, split=split, why=f"View {entry.view!r}; expected Ego or Exo")
    if entry.duration_s <= 0:
        return EgomeVideo(name=name, split=split, why=f"Duration {entry.duration_s}")
    steps, left_out, why = _steps(entry)
    return EgomeVideo(
        name=name,
        split=split,
        view=view,
        duration_s=float(entry.duration_s),
        text=entry.coarse.strip(),
        steps=steps,
        left_out=left_out,
        why=why,
    )


def _steps(entry: Entry) -> tuple[tuple[tuple[float, float, str, str], ...], int, str]:
    """Steps in their order, how many have no text or no length, and why they do not hold, if they do not."""
    rows = [parse(EgomeStep, raw) for raw in entry.fine]
    if broken := [row for row in rows if isinstance(row, Broken)]:
        return (), 0, f"Fine-level: {broken[0].why}"
    steps, left_out = [], 0
    for row in sorted(
        (row for row in rows if isinstance(row, EgomeStep)), key=lambda row: row.order
    ):
        start, end = map(float, row.span_s)
        if not 0 <= start <= end <= entry.duration_s + SLACK_S:
            return (), 0, f"step from {start} to {end} s of {entry.duration_s} s"
        text, verdict, why = _verdict(row.text.strip())
        if why:
            return (), 0, why
        if not text or start == end:
            left_out += 1
        else:
            steps.append((start, end, text, verdict))
    return tuple(steps), left_out, ""


def _verdict(text: str) -> tuple[str, str, str]:
    """The description without its label, the label or -, and why it does not hold."""
    match = PREFIX.fullmatch(text)
    if match is None:
        return text, "-", ""
    if match[1] not in "TF":
        return "", "", f"step label {match[1]!r}; expected T or F"
    return match[2].strip(), match[1], ""


# -- clips ---------------------------------------------------------------------------------------------------------

SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi")


def video_files(root: Path) -> dict[str, list[str]]:
    """Stem -> videos below the root, but for those in a folder called Exo."""
    paths: dict[str, list[str]] = defaultdict(list)
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.suffix.lower() in SUFFIXES and path_exists(path) and not _is_in(name, "exo"):
            paths[path.stem].append(name)
    return dict(paths)


def clip_for(video: EgomeVideo, files: Mapping[str, list[str]]) -> Clip:
    """The whole video of an entry, or what is wrong with it."""
    clip = Clip(episode_id=video.name, text=video.text)
    if video.why:
        return clip.broken(Code.BAD_ANNOTATION, video.why)
    paths = files.get(video.name, []) or [p for p in files.get(video.base, []) if _is_in(p, "ego")]
    if not paths:
        return clip.broken(Code.MISSING_VIDEO, f"no video {video.name} below the root")
    if len(paths) > 1:
        return clip.broken(
            Code.UNKNOWN_LAYOUT, f"several files are called {video.name}: {paths[:4]}"
        )
    return replace(clip, path=paths[0])


def _is_in(path: str, folder: str) -> bool:
    return folder in (part.lower() for part in path.split("/")[:-1])
