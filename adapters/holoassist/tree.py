"""Where the files of a HoloAssist download are. Names of sessions are looked up here, no path is ever built from one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import Code, ConfigError
from schemas.regular_file import is_there

BASES = ("", "raw_data", "videos", "data/videos")
LABELS = ("labels", "data/labels")
OPTIONS = ("segments", "annotations")
EXPORT = "Export_py"
VIDEO = f"{EXPORT}/Video_pitchshift.mp4"
POSES = f"{EXPORT}/Video/Pose_sync.txt"
TIMING = f"{EXPORT}/Video/VideoMp4Timing.txt"
INTRINSICS = f"{EXPORT}/Video/Intrinsics.txt"
HANDS = {side: f"{EXPORT}/Hands/{side.capitalize()}_sync.txt" for side in ("left", "right")}
NEEDED = (VIDEO, POSES, TIMING, INTRINSICS, *HANDS.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class HoloAssistTree:
    """`sessions`: name -> its folder, relative to root; `labels`: the files of labels in a fixed order."""

    root: Path
    sessions: Mapping[str, str]
    labels: tuple[Path, ...]

    def problem(self, session: str) -> tuple[Code, str] | None:
        """Why no episode of this session can be read, if a file that each needs is not there."""
        if session not in self.sessions:
            return Code.MISSING_VIDEO, f"{session}/{EXPORT} is missing; download it"
        folder = self.root / self.sessions[session]
        missing = [name for name in NEEDED if not is_there(folder / name)]
        if not missing:
            return None
        code = Code.MISSING_VIDEO if VIDEO in missing else Code.MISSING_FILE
        return code, f"{session} has no {', '.join(missing)}; download them"


def tree_at(root: Path, options: Mapping[str, str]) -> HoloAssistTree:
    """Find ROOT[/raw_data | /videos | /data/videos]/<session>/Export_py and the labels.

    Option `annotations`: the JSON file, or the folder of one JSON file a session, absolute or below `root`; by default
    ROOT/data-annotation*.json, else ROOT/labels or ROOT/data/labels.

    Raises:
        ConfigError: an unknown option, no labels where they were named, or nothing of the kind.
    """
    if unknown := sorted(set(options) - set(OPTIONS)):
        raise ConfigError(f"unknown options {unknown}; expected {', '.join(OPTIONS)}")
    sessions: dict[str, str] = {}
    for base in BASES:
        for path in sorted((root / base).glob(f"*/{EXPORT}")):
            sessions.setdefault(path.parent.name, path.parent.relative_to(root).as_posix())
    named = options.get("annotations")
    if named is None:
        labels = sorted(root.glob("data-annotation*.json"))
        labels = labels or [
            path for folder in LABELS for path in sorted((root / folder).glob("*.json"))
        ]
    else:
        place = root / named
        labels = sorted(place.glob("*.json")) if place.is_dir() else [place]
        if not labels or not is_there(labels[0]):
            raise ConfigError("no JSON file with labels", where=str(place))
    if not sessions and not labels:
        raise ConfigError(
            "not HoloAssist: expected <session>/Export_py or labels below it", where=str(root)
        )
    return HoloAssistTree(root=root, sessions=dict(sorted(sessions.items())), labels=tuple(labels))
