"""Where the video of an entry lies. UNVERIFIED as a whole: the tree of the download is not public.

A video is looked for everywhere below the root by its name, or by the name without _ego in a folder called Ego; folders called
Exo are passed over.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from adapters.containers.video_clip import Clip
from adapters.egome.annotations import EgomeVideo
from schemas.errors import Code
from schemas.regular_file import is_there

SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi")


def video_files(root: Path) -> dict[str, list[str]]:
    """Stem -> videos below the root, but for those in a folder called Exo."""
    paths: dict[str, list[str]] = defaultdict(list)
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.suffix.lower() in SUFFIXES and is_there(path) and not _is_in(name, "exo"):
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
