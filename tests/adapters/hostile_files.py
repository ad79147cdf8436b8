"""A healthy data set with one file made hostile, and what an adapter may do with it: refuse with a code, and go on."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

import av

from adapters.base import Adapter
from ingest.video.camera_video import frame_clock
from jobs.demo.raw import Written
from schemas.episode import EncodedImages, Episode
from schemas.errors import Code, ConfigError, SourceError

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
VIDEOS = (".mp4", ".mov", ".webm", ".mkv", ".avi")
TEXTS = (".json", ".jsonl", ".yaml", ".yml", ".csv", ".txt", ".tsv")
LATIN_1 = b"Gr\xfc\xdfe"
DIGITS = b"7" * 5_000
# Against a hang, not against slowness: the slowest case takes a second on a quiet machine.
LIMIT_S = 120


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("../annex/objects/SHA256E-s12345")


def looping(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def empty(path: Path) -> None:
    overwrite(path, b"")


def lfs_pointer(path: Path) -> None:
    overwrite(path, POINTER)


def latin_1_title(path: Path) -> None:
    """Remuxed with a title whose bytes are no UTF-8."""
    part = path.with_name(f"part-{path.name}")
    with av.open(str(path)) as source, av.open(str(part), "w") as out:
        out.metadata["title"] = "TITLE"
        streams = {s.index: out.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
    data = part.read_bytes()
    assert data.count(b"TITLE") >= 1
    part.unlink()
    overwrite(path, data.replace(b"TITLE", LATIN_1))


def many_digits(path: Path) -> None:
    """One number of the text, by chance but always the same one, becomes one of 5,000 digits."""
    data = path.read_bytes()
    numbers = list(re.finditer(rb"(?<![\w.\"'+-])-?\d+(\.\d+)?(?![\w.\"'])", data))
    if not numbers:
        overwrite(path, DIGITS)
        return
    one = random.Random(path.name).choice(numbers)
    overwrite(path, data[: one.start()] + DIGITS + data[one.end() :])


def overwrite(path: Path, data: bytes) -> None:
    """A new file in its place: the copy shares its bytes with the healthy set."""
    path.unlink()
    path.write_bytes(data)


NOT_A_FILE = {f.__name__: f for f in (dangling, looping, fifo, folder, empty, lfs_pointer)}
CHANGES = {**NOT_A_FILE, "latin_1_title": latin_1_title, "many_digits": many_digits}


def changes_for(path: Path) -> list[str]:
    suffix = path.suffix.lower()
    extra = ["latin_1_title"] * is_video(path) + ["many_digits"] * (suffix in TEXTS)
    return [*NOT_A_FILE, *extra]


def is_video(path: Path) -> bool:
    """Some generators write a few bytes in the place of a video that no adapter reads."""
    try:
        with av.open(str(path)) as container:
            return path.suffix.lower() in VIDEOS and bool(container.streams.video)
    except av.FFmpegError:
        return False


def kind_of(name: str) -> str:
    """Two files are of one kind when their paths differ in numbers, hex ids and sides only."""
    return re.sub(r"[0-9a-f]{8,}|\d+|left|right", "#", name)


def file_kinds(root: Path) -> dict[str, str]:
    """One relative path of each kind of file."""
    kinds: dict[str, str] = {}
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        name = path.relative_to(root).as_posix()
        kinds.setdefault(kind_of(name), name)
    return kinds


def healthy_copy(written: Written, place: Path) -> Written:
    """A copy of the set that shares its files by hard links, at a path that no cache has seen."""
    shutil.copytree(written.root, place, copy_function=os.link, symlinks=True)
    options = {
        key: value.replace(str(written.root), str(place)) for key, value in written.options.items()
    }
    return replace(written, root=place, options=options)


@dataclass(frozen=True)
class Seen:
    """What came of a set: refused as a whole, or how each episode ended ("" is loaded), and what the loaded ones say."""

    refused: str
    ends: Mapping[str, str]
    episodes: Mapping[str, Episode]


def seen_of(adapter: Adapter, written: Written) -> Seen:
    """Survey, discover, load, and open every video; anything but a `ConfigError` or `SourceError` passes through."""
    try:
        info = adapter.survey(written.root, written.options)
        refs = list(adapter.discover(written.root, info))
    except (ConfigError, SourceError) as error:
        return Seen(refused=str(error), ends={}, episodes={})
    ends: dict[str, str] = {}
    episodes: dict[str, Episode] = {}
    for ref in refs:
        assert ref.bytes_hint >= 0
        try:
            if ref.problem is not None:
                raise SourceError(Code(ref.problem[0]), ref.problem[1])
            episode = adapter.load(ref)
            look_at_pictures(episode)
            episodes[ref.episode_id] = episode
            ends.setdefault(ref.episode_id, "")
        except SourceError as error:
            ends[ref.episode_id] = str(error)
    return Seen(refused="", ends=ends, episodes=episodes)


def faults(well: Seen, seen: Seen, name: str, change: str) -> list[str]:
    """What went wrong besides an error that stops the run: somebody else suffered, or somebody vanished without a word."""
    if seen.refused:
        return []
    out: list[str] = []
    readers = {i for i, e in well.episodes.items() if name in {f.path for f in e.raw_files}}
    lost = well.ends.keys() - seen.ends.keys()
    if change in CHANGES and lost and not any(seen.ends.values()):
        out.append(f"{sorted(lost)[:3]} are gone, and nothing is counted for them")
    if len(readers) == 1:
        others = {i: seen.ends.get(i, "gone") for i in well.ends.keys() - readers}
        out += [f"{i} suffers: {end}" for i, end in others.items() if end]
    if change in NOT_A_FILE:
        kept = readers & seen.episodes.keys()
        unsaid = [i for i in kept if is_as_before(well.episodes[i], seen.episodes[i], change)]
        out += [f"{i} is loaded as if nothing were wrong" for i in unsaid]
    return out


def is_as_before(well: Episode, now: Episode, change: str) -> bool:
    """Whether no fact says that something was left out. A text of nothing may simply say nothing."""
    says_less = change == "empty" and well.instructions != now.instructions
    return well.facts == now.facts and not says_less


def look_at_pictures(episode: Episode) -> None:
    """Every camera's clock, which opens its video, and a first picture where pictures are files of their own."""
    for camera in episode.cameras:
        frame_clock(camera)
        if isinstance(camera.frames, EncodedImages):
            bytes(camera.frames.images[0])


class HangError(Exception):
    """A call did not come back."""


@contextmanager
def time_limit(seconds: int = LIMIT_S) -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise HangError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
