"""Where the files of an Ego4D download are.

DIR/ego4d.json, DIR/v2/ego4d.json or DIR/v1/ego4d.json; DIR/v2/{full_scale,video_540ss}/<video_uid>.mp4,
DIR/v2/clips/<clip_uid>.mp4, DIR/v2/annotations/*.json (EGO4D/docs:docs/CLI.md; both places of ego4d.json are met).
DIR may also be the version folder itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from adapters.containers.safe_path import inside
from schemas.errors import ConfigError
from schemas.regular_file import path_exists

VIDEO_FOLDERS = ("full_scale", "video_540ss", "clips")  # best first
# For each kind of annotation the sets of file names of which the first that exists is read, so that the same rows
# under two spellings are not read twice.
ANNOTATION_FILES: dict[str, tuple[tuple[str, ...], ...]] = {
    "narrations": (("narration.json", "all_narrations_redacted.json"),),
    "fho": (("fho_main.json",),),
    "goalstep": (
        ("goalstep_train.json",),
        ("goalstep_val.json", "goalstep_valid.json"),
        ("goalstep_test.json",),
    ),
}
WINDOWS = "windows"  # the fourth word of option "annotations": videos that nobody annotated
KINDS = (*ANNOTATION_FILES, WINDOWS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ego4dTree:
    """One download, as far as it is there."""

    root: Path
    metadata: Path | None  # ego4d.json
    annotations: tuple[tuple[str, Path], ...]  # (kind, file), chosen kinds only, in a fixed order
    kinds: tuple[str, ...]
    folder: str  # one of VIDEO_FOLDERS
    files: Mapping[str, str]  # uid -> path of its video relative to root
    goalstep: tuple[Path, ...] = ()  # every file of it there, chosen or not: they name splits

    def path(self, relative: str) -> Path:
        """The file, refused when a link leads out of the root (SourceError UNSAFE_PATH)."""
        return inside(self.root, relative)


def tree_at(root: Path, options: Mapping[str, str]) -> Ego4dTree:
    """Find the parts of the download under `root`.

    Options: `annotations`, a comma list of narrations, fho, goalstep, windows (default: whatever is there);
    `videos`, one of full_scale, video_540ss, clips (default: the first that is there).

    Raises:
        ConfigError: this is no Ego4D download, or an option that does not hold.
    """
    unknown = sorted(set(options) - {"annotations", "videos"})
    if unknown:
        raise ConfigError(f"ego4d has no option {unknown}; expected annotations or videos")
    base = next((b for b in (root / "v2", root / "v1", root) if _is_base(b)), None)
    if base is None:
        expected = "ego4d.json, v2/annotations or v2/full_scale"
        raise ConfigError(f"not an Ego4D download: expected {expected} below it", where=str(root))
    metadata = next((p for p in (root / "ego4d.json", base / "ego4d.json") if path_exists(p)), None)
    folder = _folder(base, options.get("videos"), has_metadata=metadata is not None)
    asked = options.get("annotations")
    kinds = KINDS if asked is None else tuple(w.strip() for w in asked.split(",") if w.strip())
    wrong = sorted(set(kinds) - set(KINDS))
    if wrong or not kinds:
        raise ConfigError(f"option annotations={asked!r}: expected {', '.join(KINDS)}")
    annotations = _annotation_files(base / "annotations", kinds)
    missing = sorted(set(kinds) - {kind for kind, _ in annotations} - {WINDOWS})
    if asked is not None and missing:
        raise ConfigError(
            f"option annotations={asked!r}: no file for {missing}", where=str(base / "annotations")
        )
    return Ego4dTree(
        root=root,
        metadata=metadata,
        annotations=annotations,
        kinds=tuple(k for k in KINDS if k in kinds),
        folder=folder,
        files=_video_files(root, base / folder),
        goalstep=tuple(p for _, p in _annotation_files(base / "annotations", ("goalstep",))),
    )


def _is_base(path: Path) -> bool:
    names = ("ego4d.json", "annotations", *VIDEO_FOLDERS)
    return any(path_exists(path / name) for name in names)


def _folder(base: Path, asked: str | None, *, has_metadata: bool) -> str:
    """The folder of videos to read; with none there at all the annotations still count what is missing."""
    if asked not in (None, *VIDEO_FOLDERS):
        raise ConfigError(f"option videos={asked!r}: expected {', '.join(VIDEO_FOLDERS)}")
    folders = [name for name in VIDEO_FOLDERS if (base / name).is_dir()]
    folder = asked or next(iter(folders), VIDEO_FOLDERS[0])
    if folders and folder not in folders:
        raise ConfigError(
            f"option videos={asked!r}: no such folder; available: {folders}", where=str(base)
        )
    if folder == "clips" and not has_metadata:
        raise ConfigError(
            "clips need ego4d.json, which states their time range",
            remedy="download it",
            where=str(base),
        )
    return folder


def _annotation_files(folder: Path, kinds: tuple[str, ...]) -> tuple[tuple[str, Path], ...]:
    files = []
    for kind, sets in ANNOTATION_FILES.items():
        for names in sets if kind in kinds else ():
            path = next((folder / name for name in names if path_exists(folder / name)), None)
            if path is not None:
                files.append((kind, path))
    return tuple(files)


def _video_files(root: Path, folder: Path) -> dict[str, str]:
    """Every mp4 of the folder by its stem, `.MP4` too. Looking a uid up here never builds a path from it."""
    if not folder.is_dir():
        return {}
    prefix = folder.relative_to(root).as_posix()
    names = sorted(p.name for p in folder.iterdir() if p.suffix.lower() == ".mp4")
    return {Path(name).stem: f"{prefix}/{name}" for name in reversed(names)}
