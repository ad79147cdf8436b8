"""Which files make one recording: the outputs of the machine perception services and the recording they were made of.

<name>.vrs, <name>.mp4      beside      mps_<name>_vrs/{hand_tracking,slam}/...      (projectaria-mps)
recording.vrs, *.mp4        beside      mps/{hand_tracking,slam}/...                 (Meta's data sets)
hand_tracking/..., slam/...  (or trajectory/...) alone, and .vrs files alone
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import ConfigError
from schemas.regular_file import is_there

HANDS, TRAJECTORY = "hand_tracking_results*.csv", "closed_loop_trajectory.csv"
CALIBRATION = "online_calibration.jsonl"
SLAM_FOLDERS = ("slam", "trajectory")
_MPS_OF = re.compile(r"mps_(.+)_vrs")


@dataclass(frozen=True, slots=True, kw_only=True)
class AriaRecording:
    """Paths relative to the root, "" where there is no such file."""

    name: str
    hands: str = ""
    trajectory: str = ""
    calibration: str = ""
    vrs: str = ""
    video: str = ""


def recordings(root: Path) -> Iterator[AriaRecording]:
    """Every recording below `root`, in order of its name; nothing is opened.

    Raises:
        ConfigError: there is none.
    """
    by_name = {r.name: r for r in (*_of_services(root), *_alone(root))}
    if not by_name:
        raise ConfigError(f"no {HANDS}, {TRAJECTORY} or *.vrs below it", where=str(root))
    yield from (by_name[name] for name in sorted(by_name))


def _of_services(root: Path) -> Iterator[AriaRecording]:
    """One recording a folder of outputs; one for each version of a table."""
    for folder in sorted(_output_folders(root)):
        home = folder.parent if folder.name == "mps" or _MPS_OF.fullmatch(folder.name) else folder
        match = _MPS_OF.fullmatch(folder.name)
        stem = match[1] if match else None
        slam = [folder / name for name in SLAM_FOLDERS] + [folder]
        shared = {
            "trajectory": _first(root, (s / TRAJECTORY for s in slam)),
            "calibration": _first(root, (s / CALIBRATION for s in slam)),
            "vrs": _only(root, home, ".vrs", stem),
            "video": _only(root, home, ".mp4", stem),
        }
        name = (home / stem if stem else home).relative_to(root).as_posix()
        name = root.resolve().name if name == "." else name
        tables = sorted((*folder.glob(HANDS), *folder.glob(f"hand_tracking/{HANDS}")))
        if not tables:
            yield AriaRecording(name=name, **shared)
        for table in tables:
            own = f"{name}/{table.stem}" if len(tables) > 1 else name
            yield AriaRecording(name=own, hands=table.relative_to(root).as_posix(), **shared)


def _alone(root: Path) -> Iterator[AriaRecording]:
    claimed = {r.vrs for r in _of_services(root)}
    for path in sorted(root.rglob("*.vrs")):
        if (vrs := path.relative_to(root).as_posix()) not in claimed:
            video = _only(root, path.parent, ".mp4", path.stem)
            yield AriaRecording(name=vrs.removesuffix(".vrs"), vrs=vrs, video=video)


def _output_folders(root: Path) -> set[Path]:
    steps = (*SLAM_FOLDERS, "hand_tracking")
    files = (path for pattern in (HANDS, TRAJECTORY) for path in root.rglob(pattern))
    return {p.parent.parent if p.parent.name in steps else p.parent for p in files}


def _first(root: Path, paths: Iterator[Path]) -> str:
    return next((p.relative_to(root).as_posix() for p in paths if is_there(p)), "")


def _only(root: Path, home: Path, suffix: str, stem: str | None) -> str:
    """The file of that name, or the only one; several are ambiguous."""
    files = [home / f"{stem}{suffix}"] if stem else sorted(home.glob(f"*{suffix}"))
    files = [path for path in files if is_there(path)]
    return files[0].relative_to(root).as_posix() if len(files) == 1 else ""
