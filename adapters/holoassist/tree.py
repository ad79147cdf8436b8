"""The files of a HoloAssist download: sessions, published splits, and what is missing.

Where the files of a HoloAssist download are. Names of sessions are looked up here, no path is ever built from one.

The official split files of HoloAssist: `train-v1_2.txt`, `val-v1_2.txt`, a test list of the challenge; one session a line.

Source: formats page hands.md (train and val seen in the toolkit, that a test list looks the same is inferred).

Everything that a download of HoloAssist holds, and what of it is not there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from adapters.containers.json_rows import Broken
from adapters.containers.listing import list_lines
from adapters.containers.video_clip import Clip, windowed
from adapters.holoassist.labels import HoloAssistSegment, labels_in, segments_of
from schemas.errors import Code, ConfigError
from schemas.regular_file import path_exists
from schemas.source_split import SPLITS, strictest

# -- tree ----------------------------------------------------------------------------------------------------------

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
        missing = [name for name in NEEDED if not path_exists(folder / name)]
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
        if not labels or not path_exists(labels[0]):
            raise ConfigError("no JSON file with labels", where=str(place))
    if not sessions and not labels:
        raise ConfigError(
            "not HoloAssist: expected <session>/Export_py or labels below it", where=str(root)
        )
    return HoloAssistTree(root=root, sessions=dict(sorted(sessions.items())), labels=tuple(labels))


# -- splits --------------------------------------------------------------------------------------------------------

FOLDERS = ("", "labels", "data", "data/labels", "splits", "data_splits")


def source_splits(root: Path) -> dict[str, str]:
    """Split by session; the strictest where several files list one. Empty where no split file is there.

    Raises:
        ConfigError: a split file that is no text, or too large for one.
    """
    splits: dict[str, str] = {}
    for split in SPLITS:
        for path in sorted(p for f in FOLDERS for p in (root / f).glob(f"{split}-v*.txt")):
            for session in list_lines(path):
                splits[session] = strictest((splits.get(session, ""), split))
    return splits


# -- listing -------------------------------------------------------------------------------------------------------


def segments_in(tree: HoloAssistTree, kind: str) -> Iterator[tuple[HoloAssistSegment, str]]:
    """(segment, folder of its session): labelled sessions in the order of their labels, then the others in windows of 60 s."""
    labelled: set[str] = set()
    for path in tree.labels:
        for number, labels in enumerate(labels_in(path)):
            if isinstance(labels, Broken) or labels.session in labelled:
                why = (
                    labels.why
                    if isinstance(labels, Broken)
                    else f"{labels.session}: labelled twice"
                )
                clip = Clip(episode_id=f"{path.name}/{number}").broken(Code.BAD_ANNOTATION, why)
                yield HoloAssistSegment(clip=clip), ""
                continue
            labelled.add(labels.session)
            folder = tree.sessions.get(labels.session, "")
            segments = list(segments_of(labels, kind, f"{folder}/{VIDEO}"))
            yield from _of_session(tree, labels.session, segments)
    for session in sorted(tree.sessions.keys() - labelled):
        whole = Clip(episode_id=f"{session}/window", path=f"{tree.sessions[session]}/{VIDEO}")
        clips = windowed(tree.root, whole)
        yield from _of_session(tree, session, [HoloAssistSegment(clip=clip) for clip in clips])


def _of_session(
    tree: HoloAssistTree, session: str, segments: list[HoloAssistSegment]
) -> Iterator[tuple[HoloAssistSegment, str]]:
    """The segments, or one that stands for all of them when a file that each needs is not there."""
    problem = tree.problem(session)
    if problem is None:
        yield from ((segment, tree.sessions[session]) for segment in segments)
    elif segments:
        clip = Clip(episode_id=f"{session}/session")
        yield HoloAssistSegment(clip=clip.broken(*problem, stands_for=len(segments))), ""
