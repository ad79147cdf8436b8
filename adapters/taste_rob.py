"""TASTE-Rob: 100,856 clips of one or two hands doing one captioned thing, seen by a fixed camera at head height. No actions.

    TASTE_Rob/{SingleHand,DoubleHand}/<Scene>.zip -> <id>.mp4     captions.xlsx, sheets Single-Hand and Double-Hand

(GAP-LAB-CUHK-SZ/TASTE-Rob:README.md, documented.) UNVERIFIED, for no real file was at hand: the headers `id`, `scene`,
`caption` of the sheets as spelled here; that an id is unique within its hand and scene; that a scene's zip is to be unpacked into
a folder of its name. Anything else fails: see docs/reference/sources/taste_rob.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from adapters.base import SourceInfo
from adapters.containers.listing import natural_key
from adapters.containers.video_clip import Clip, clip_ref, load_clip, no_camera_pose
from adapters.containers.xlsx import sheet_rows
from schemas.episode import Episode, EpisodeRef, Licence
from schemas.errors import Code, ConfigError
from schemas.fact import Certainty, fact
from schemas.regular_file import path_exists

# Repository LICENSE; the data come after a form whose terms are not public.
LICENCE = Licence(name="CC BY-NC 4.0, after a form", allows_commercial=False)
HANDS = {"SingleHand": "Single-Hand", "DoubleHand": "Double-Hand"}  # folder -> sheet
COLUMNS = ("id", "scene", "caption")
LONGEST_CAPTION = 2_000
README = "GAP-LAB-CUHK-SZ/TASTE-Rob:README.md"
FACTS = (
    no_camera_pose(f"{README}: the camera stands still, its pose is not given"),
    fact("caption_key", "hand, scene and id", Certainty.UNVERIFIED, "no real file was at hand"),
)
Key = tuple[str, str, str]  # (folder of the hand, scene as `_plain` has it, id)


class TasteRob:
    """Reads the unpacked clips with their spreadsheet of captions. It has no option."""

    name: ClassVar[str] = "taste_rob"
    version: ClassVar[int] = 1
    container: ClassVar[str] = "mp4 + xlsx"
    about: ClassVar[str] = "TASTE-Rob: captioned clips of hands, fixed camera; no actions"

    def survey(self, root: Path, options: Mapping[str, str]) -> SourceInfo:
        """Count clips, captions and scenes still packed. ConfigError: no such folders, captions.xlsx as not expected."""
        if options:
            raise ConfigError(f"taste_rob has no option {sorted(options)}")
        base = _base(root)
        details = {
            "clips": str(sum(1 for _ in _videos(base))),
            "captions": str(sum(1 for _ in _captions(base))),
            "scenes_still_packed": str(len(_packed(base))),
        }
        return SourceInfo(
            source=self.name, dataset=self.name, licence=LICENCE, facts=FACTS, details=details
        )

    def discover(self, root: Path, info: SourceInfo) -> Iterator[EpisodeRef]:
        """Every clip by hand, scene and id with its caption; scenes still packed; captions without a clip, once for each scene."""
        base = _base(root)
        for clip in _clips(base):
            path = clip.path and (base / clip.path).relative_to(root).as_posix()
            yield clip_ref(self.name, self.name, root, replace(clip, path=path), FACTS)

    def load(self, ref: EpisodeRef) -> Episode:
        """The whole clip with its caption. Raises as `load_clip`."""
        return load_clip(ref, LICENCE)


def _clips(base: Path) -> Iterator[Clip]:
    captions: dict[Key, str] = {}
    repeated: set[Key] = set()
    for key, text in _captions(base):
        repeated |= {key} if captions.setdefault(key, text) != text else set()
    seen: set[str] = set()
    for (hand, scene, number), file in sorted(_videos(base), key=_order):
        key = (hand, _plain(scene), number)
        name = f"{hand}/{scene}/{number}"
        if name in seen:
            yield Clip(episode_id=file).broken(Code.UNKNOWN_LAYOUT, f"duplicate clip {name}")
            continue
        seen.add(name)
        clip = Clip(episode_id=name, path=file, text=captions.get(key, ""), scene_id=scene)
        captions.pop(key, None)
        if key in repeated:
            clip = clip.broken(Code.BAD_ANNOTATION, "captions.xlsx has two captions for this clip")
        yield clip
    for path in _packed(base):
        message = "the scene is still packed; unzip it into a folder of its name"
        name = path.relative_to(base).as_posix()
        yield Clip(episode_id=name).broken(Code.UNKNOWN_LAYOUT, message)
    packed = {(path.parent.name, _plain(path.stem)) for path in _packed(base)}
    lost = sorted({(hand, scene) for hand, scene, _ in captions} - packed)
    for hand, scene in lost:
        count = sum(key[:2] == (hand, scene) for key in captions)
        message = f"the clips of {count} captions of scene {scene!r} are missing; download them"
        clip = Clip(episode_id=f"{hand}/{scene}/clips")
        yield clip.broken(Code.MISSING_VIDEO, message, stands_for=count)


def _captions(base: Path) -> Iterator[tuple[Key, str]]:
    """(key, caption) of every row of both sheets. A row that does not hold stops the run: there is but one file."""
    path = base / "captions.xlsx"
    for hand, sheet in HANDS.items() if path_exists(path) else ():
        rows = sheet_rows(path, sheet)
        head = {text.strip().lower(): column for column, text in next(rows, {}).items()}
        if missing := [name for name in COLUMNS if name not in head]:
            problem = f"sheet {sheet!r} has columns {sorted(head)}; {missing} is missing"
            raise ConfigError(problem, where=str(path))
        for row in rows:
            number, scene, caption = (row.get(head[name], "").strip() for name in COLUMNS)
            number = number.removesuffix(".0")  # numbers may be stored as such
            if not re.fullmatch(r"\w{1,40}", number) or len(caption) > LONGEST_CAPTION:
                raise ConfigError(f"sheet {sheet!r}: row {str(row)[:200]}", where=str(path))
            yield (hand, _plain(scene), number), caption


def _videos(base: Path) -> Iterator[tuple[Key, str]]:
    """((hand, scene, id), path relative to `base`); within a scene the zip may have had a folder of its own."""
    for hand in HANDS:
        for path in (base / hand).glob("*/**/*"):
            if path.suffix.lower() == ".mp4":
                scene = path.relative_to(base / hand).parts[0]
                yield (hand, scene, path.stem), path.relative_to(base).as_posix()


def _packed(base: Path) -> list[Path]:
    """Zips without a folder of their name beside them."""
    zips = (path for hand in HANDS for path in (base / hand).glob("*.zip"))
    return sorted(path for path in zips if not path.with_suffix("").is_dir())


def _base(root: Path) -> Path:
    for base in (root / "TASTE_Rob", root):
        if any((base / hand).is_dir() for hand in HANDS):
            return base
    raise ConfigError(f"none of {', '.join(HANDS)} below it", where=str(root))


def _plain(scene: str) -> str:
    """`Dressing Table` and `DressingTable` are one scene."""
    return re.sub(r"[\W_]", "", scene).casefold()


def _order(video: tuple[Key, str]) -> tuple[object, str]:
    return natural_key("/".join(video[0])), video[1]
