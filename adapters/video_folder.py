"""Any folder of videos of people, or of WebDataset shards of them: no labels but an optional caption.

Layout: ROOT/**/<name>.{mp4,mov,mkv,webm,avi,...} with an optional `<name>.txt` (the caption) or `<name>.json` (its key
`caption`) beside it; ROOT/**/*.tar with the same files as members. That a caption lies there is the habit of
iejMac/video2dataset (third party). Videos in a shard are read in place. Each video is cut into equal windows of
at most 60 s; all of them carry its caption. Files and folders whose name starts with a dot are not looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from adapters.base import SourceInfo
from adapters.containers import video_clip
from adapters.containers.listing import natural_key
from adapters.containers.sidecar import Sidecar, json_object, read_sidecar
from adapters.containers.tar_shard import Sample, samples
from adapters.containers.video_clip import Clip, clip_ref, load_clip, no_camera_pose, windowed
from schemas.episode import Episode, EpisodeRef, Instruction, Licence
from schemas.errors import Code, ConfigError, SourceError
from schemas.fact import Certainty
from schemas.regular_file import bytes_hint, path_exists

VIDEOS = ("mp4", "m4v", "mov", "mkv", "webm", "avi", "mpg", "mpeg")
CAPTIONS = ("txt", "json")  # the first that is there
FACTS = (no_camera_pose("nothing beside a plain video tells", Certainty.INFERRED),)
MAX_S = video_clip.LONGEST_WINDOW_S
DEFAULTS = {"window_s": str(MAX_S), "caption_key": "caption", "licence": "unknown"}


class VideoFolder:
    """Reads any folder of videos; options `name`, `window_s`, `caption_key`, `licence`."""

    name: ClassVar[str] = "video_folder"
    version: ClassVar[int] = 1
    container: ClassVar[str] = "video files, or tar shards of them"
    about: ClassVar[str] = "any folder of human video; captions where there are some, no actions"

    def survey(self, root: Path, options: Mapping[str, str]) -> SourceInfo:
        """Count the files. ConfigError: nothing to read there, or an option that does not hold."""
        if unknown := sorted(set(options) - {"name", *DEFAULTS}):
            raise ConfigError(f"unknown options {unknown}; expected name, {', '.join(DEFAULTS)}")
        details = DEFAULTS | {"name": root.resolve().name} | dict(options)
        _window_s(details)
        files = list(_files(root))
        if not files:
            raise ConfigError("no video and no .tar file below it", where=str(root))
        num_shards = sum(_suffix(path) == "tar" for path in files)
        counts = {"videos": str(len(files) - num_shards), "shards": str(num_shards)}
        return SourceInfo(
            source=self.name,
            dataset=details["name"],
            licence=Licence(name=details["licence"]),
            facts=FACTS,
            details=details | counts,
        )

    def discover(self, root: Path, info: SourceInfo) -> Iterator[EpisodeRef]:
        """Windows of each video in order of paths; of each video only the header is read."""
        longest_s = _window_s(info.details)
        for path in _files(root):
            for clip, caption in _videos(root, path):
                named = replace(clip, episode_id=f"{info.dataset}/{clip.episode_id}")
                more = {key: info.details[key] for key in ("licence", "caption_key")}
                details = {"caption": caption, **more}
                for part in windowed(root, named, longest_s=longest_s):
                    yield clip_ref(self.name, info.dataset, root, part, FACTS, details)

    def load(self, ref: EpisodeRef) -> Episode:
        """One window, with the caption of its video. Raises as `load_clip`, `read_sidecar`, `json_object`."""
        episode = load_clip(ref, Licence(name=ref.at("licence")))
        caption: Sidecar | None = ref.at("caption")
        if caption is None:
            return episode
        text, raw = read_sidecar(Path(ref.root), caption)
        if caption.name.lower().endswith(".json"):
            text = _from_json(text, ref.at("caption_key"), caption.name)
        instructions = (Instruction(text=text.strip()),) if text.strip() else ()
        return replace(episode, instructions=instructions, raw_files=(*episode.raw_files, raw))


def _videos(root: Path, path: Path) -> Iterator[tuple[Clip, Sidecar | None]]:
    """Each video of a file, whole, with its caption."""
    name = path.relative_to(root).as_posix()
    shown = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if shown != name:
        clip = Clip(episode_id=shown)
        yield clip.broken(Code.UNSAFE_PATH, "its file name is not UTF-8; rename the file"), None
    elif _suffix(path) != "tar":
        beside = (path.with_suffix(f".{kind}") for kind in CAPTIONS)
        captions = [Sidecar(path=p.relative_to(root).as_posix()) for p in beside if path_exists(p)]
        clip = Clip(episode_id=name, path=name, num_bytes=bytes_hint(path))
        yield clip, next(iter(captions), None)
    else:
        for sample in samples(path):
            yield from _members(name, sample)


def _members(shard: str, sample: Sample) -> Iterator[tuple[Clip, Sidecar | None]]:
    if sample.problem:
        name = f"{shard}/{sample.key}" if sample.key else shard
        yield Clip(episode_id=name, path=shard, problem=sample.problem), None
    texts = [sample.files[kind] for kind in CAPTIONS if kind in sample.files]
    captions = [Sidecar(path=shard, member=t.name, byte_range=t.byte_range) for t in texts]
    for kind, member in sample.files.items():
        if kind.rpartition(".")[2] in VIDEOS:
            clip = Clip(
                episode_id=f"{shard}/{member.name}",
                path=shard,
                member=member.name,
                byte_range=member.byte_range,
                num_bytes=member.end - member.start,
            )
            if member.start == member.end:
                clip = clip.broken(Code.TRUNCATED, "the member is empty")
            yield clip, next(iter(captions), None)


def _files(root: Path) -> list[Path]:
    """Videos and shards under `root` in order of their paths."""
    paths = (p for p in root.rglob("*") if _suffix(p) in (*VIDEOS, "tar") and path_exists(p))
    seen = (p for p in paths if not any(x[0] == "." for x in p.relative_to(root).parts))
    return sorted(seen, key=lambda p: natural_key(p.relative_to(root).as_posix()))


def _suffix(path: Path) -> str:
    return path.suffix.lower().removeprefix(".")


def _window_s(options: Mapping[str, str]) -> float:
    try:
        value = float(options["window_s"])
    except ValueError:
        value = 0.0
    if not 1.0 <= value <= MAX_S:
        raise ConfigError(f"option window_s={options['window_s']!r}: expected 1 to {MAX_S:.0f}")
    return value


def _from_json(text: str, key: str, where: str) -> str:
    value = json_object(text, where).get(key)
    if not isinstance(value, str):
        problem = f"no text under key {key!r}; pass the key with --option caption_key=KEY"
        raise SourceError(Code.BAD_ANNOTATION, problem, where=where)
    return value
