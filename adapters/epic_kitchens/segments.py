"""Files of an EPIC-KITCHENS download, and the action segments of its CSV files.

The action segments of EPIC-KITCHENS-100's CSV files, in seconds of the video.

Source: epic-kitchens/epic-kitchens-100-annotations:README.md (documented) and its real files (verified). Every column is
text: `participant_id` is `P01` although the README calls it an int. `start_frame` and `stop_frame` are NOT read: they count
frames extracted at 60 or 50 fps, whatever the rate of the video, and `narration_timestamp`, which some rows lack, is not
needed. `all_nouns` and `all_noun_classes` are Python literals and never evaluated.

Where the files of an EPIC-KITCHENS download are.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path

from schemas.errors import ConfigError, SourceError, system_error_text
from schemas.regular_file import open_regular, path_exists

# -- rows ----------------------------------------------------------------------------------------------------------

FILES = {
    "train": "EPIC_100_train.csv",
    "validation": "EPIC_100_validation.csv",
    "test": "EPIC_100_test_timestamps.csv",  # has no narrations
}
COLUMNS = ("narration_id", "participant_id", "video_id", "start_timestamp", "stop_timestamp")
VIDEO_ID = re.compile(r"(P\d{2})_(\d{2}|1\d{2})")
LONGEST_TEXT = 2_000
_TIME = re.compile(r"(\d{1,2}):([0-5]\d):([0-5]\d(?:\.\d{1,6})?)")


@dataclass(frozen=True, slots=True, kw_only=True)
class EpicRow:
    """One narrated action, [start_s, stop_s) of a video; `why` says what is wrong with it."""

    narration_id: str
    video_id: str
    participant_id: str = ""
    start_s: float = 0.0
    stop_s: float = 0.0
    narration: str = ""
    why: str = ""


def read_rows(path: Path) -> Iterator[EpicRow]:
    """Every row of a file, in order; a row that does not hold comes with `why`, never not at all.

    Raises:
        ConfigError: the file cannot be read as CSV in UTF-8, or lacks a column.
    """
    try:
        with TextIOWrapper(open_regular(path), encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise ConfigError(
                    f"the file has no column {missing}", remedy="download it again", where=str(path)
                )
            for number, fields in enumerate(reader, start=1):
                yield _row(fields, number)
    except SourceError as error:
        raise ConfigError(f"cannot be read: {error.message}", where=str(path)) from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(
            f"not a readable CSV file: {system_error_text(error, str(path))}",
            remedy="download it again",
            where=str(path),
        ) from error


def seconds(text: str) -> float | None:
    """`HH:MM:SS.ff` in seconds; None when it is none."""
    match = _TIME.fullmatch(text)
    if not match:
        return None
    return int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3])


def is_extension(name: str) -> bool:
    """Whether a video or narration id is of the 2020 release: three digits (README), and frames that count at 50 fps."""
    return re.match(r"P\d{2}_1\d{2}(_|/|$)", name) is not None


def _row(fields: dict[str, str | None], number: int) -> EpicRow:
    text = {name: fields.get(name) or "" for name in (*COLUMNS, "narration")}
    start, stop = seconds(text["start_timestamp"]), seconds(text["stop_timestamp"])
    why = ""
    if not re.fullmatch(r"P\d{2}_\d{2,3}_\d{1,6}", text["narration_id"]):
        why = f"narration_id {text['narration_id'][:60]!r}"
    elif not VIDEO_ID.fullmatch(text["video_id"]):
        why = f"video_id {text['video_id'][:60]!r}"
    elif start is None or stop is None:
        why = f"from {text['start_timestamp'][:60]!r} to {text['stop_timestamp'][:60]!r}"
    elif stop <= start:
        why = f"the segment from {start} to {stop} s does not end after it starts"
    elif len(text["narration"]) > LONGEST_TEXT:
        why = f"a narration of {len(text['narration'])} characters, which is too long"
    if why:
        name = text["narration_id"][:60] if not why.startswith("narration_id") else ""
        return EpicRow(narration_id=name or f"row {number}", video_id="", why=why)
    return EpicRow(
        narration_id=text["narration_id"],
        video_id=text["video_id"],
        participant_id=text["participant_id"][:60],
        start_s=start or 0.0,
        stop_s=stop or 0.0,
        narration=text["narration"],
    )


# -- tree ----------------------------------------------------------------------------------------------------------

WINDOWS = "windows"  # the fourth word of option "splits": videos without a row
SPLITS = (*FILES, WINDOWS)
OPTIONS = ("splits", "annotations")
ANNOTATION_FOLDERS = ("", "annotations", "epic-kitchens-100-annotations")


@dataclass(frozen=True, slots=True, kw_only=True)
class EpicTree:
    """One download, as far as it is there."""

    root: Path
    videos: Mapping[str, str]  # video id -> path of its file relative to root
    rows: tuple[tuple[str, Path], ...]  # (split, file), chosen and there, in a fixed order
    has_windows: bool
    all_rows: tuple[tuple[str, Path], ...] = ()  # (split, file) of every file there, chosen or not


def tree_at(root: Path, options: Mapping[str, str]) -> EpicTree:
    """Find ROOT[/EPIC-KITCHENS]/P01/videos/*.MP4 and the CSV files.

    Options: `splits`, a comma list of train, validation, test, windows (default: whatever is there); `annotations`, the
    folder of the CSV files, absolute or below `root` (default: looked for there).

    Raises:
        ConfigError: nothing of the kind is there, or an option that does not hold.
    """
    if unknown := sorted(set(options) - set(OPTIONS)):
        raise ConfigError(f"unknown options {unknown}; expected {', '.join(OPTIONS)}")
    asked = tuple(options["splits"].split(",")) if "splits" in options else SPLITS
    if wrong := sorted(set(asked) - set(SPLITS)):
        raise ConfigError(
            f"splits={options['splits']!r}: {wrong}; expected one of {', '.join(SPLITS)}"
        )
    bases = (root / "EPIC-KITCHENS", root)
    named = "annotations" in options
    folders = [root / options["annotations"]] if named else _looked_in(bases)
    present = {s: p for s in FILES for f in folders if path_exists(p := f / FILES[s])}
    rows = {split: path for split, path in present.items() if split in asked}
    videos = _videos(root, bases)
    if named and not rows:
        raise ConfigError(f"none of {', '.join(FILES.values())}", where=str(folders[0]))
    if missing := sorted(set(asked) - {WINDOWS} - set(rows) if "splits" in options else ()):
        raise ConfigError(f"splits={options['splits']!r}: no CSV for {missing}", where=str(root))
    if not videos and not rows:
        raise ConfigError(
            "not EPIC-KITCHENS: expected P??/videos/*.MP4 or annotations below it", where=str(root)
        )
    return EpicTree(
        root=root,
        videos=videos,
        rows=tuple(rows.items()),
        has_windows=WINDOWS in asked,
        all_rows=tuple(present.items()),
    )


def _looked_in(bases: tuple[Path, ...]) -> list[Path]:
    """Places of the annotations, the last one wins."""
    return [base / name for base in bases for name in ANNOTATION_FOLDERS]


def _videos(root: Path, bases: tuple[Path, ...]) -> dict[str, str]:
    """Looking an id up here never builds a path from it."""
    files = sorted(path for base in bases for path in base.glob("P??/videos/*"))
    paths = {p.stem: p.relative_to(root).as_posix() for p in files if p.suffix.lower() == ".mp4"}
    return {name: path for name, path in sorted(paths.items()) if VIDEO_ID.fullmatch(name)}
