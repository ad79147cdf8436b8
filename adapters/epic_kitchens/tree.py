"""Where the files of an EPIC-KITCHENS download are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from adapters.epic_kitchens.rows import FILES, VIDEO_ID
from schemas.errors import ConfigError
from schemas.regular_file import is_there

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
    present = {s: p for s in FILES for f in folders if is_there(p := f / FILES[s])}
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
