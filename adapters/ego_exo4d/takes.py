"""takes.json of Ego-Exo4D as typed rows, and the files of a take.

Source: EGO4D/Ego-Exo4D-docs:docs/data/{metadata,takes,downscaled_takes}.md (documented).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from adapters.containers.json_rows import Broken, JsonRow, Text, Uid, parse
from adapters.containers.json_stream import members
from adapters.containers.safe_path import is_there_inside
from schemas.errors import Code, SourceError

RGB = "rgb"  # the stream of an Aria camera that is the colour picture; a GoPro has one stream, "0"
SMALL = "downscaled/448"
_CAMERA = re.compile(r"[a-z0-9][a-z0-9_]{0,40}")


class FrameAligned(JsonRow):
    relative_path: Text


class RigCamera(JsonRow):
    cam_id: Uid
    is_ego: bool = False


class Capture(JsonRow):
    cameras: list[RigCamera] = Field(default_factory=list)


class Take(JsonRow):
    """One take. Its `task_start_sec` and `task_end_sec` may be null and are not used."""

    take_uid: Uid
    take_name: Uid
    root_dir: Text = ""
    is_dropped: bool = False
    participant_uid: int | str | None = None
    capture: Capture = Capture()
    frame_aligned_videos: dict[str, dict[str, FrameAligned]] = Field(default_factory=dict)

    @property
    def ego(self) -> str | None:
        """The wearer's camera; it is not always called aria01."""
        return next((c.cam_id for c in self.capture.cameras if c.is_ego), None)

    def video(self, camera: str) -> str | None:
        """The path of its colour video within the take, as takes.json has it."""
        streams = self.frame_aligned_videos.get(camera, {})
        stream = streams.get(RGB) or (next(iter(streams.values())) if len(streams) == 1 else None)
        return stream.relative_path if stream else None

    def exo(self, asked: tuple[str, ...]) -> list[str]:
        """Those of the standing cameras that were asked for ("all": every one), in order of name."""
        known = {c.cam_id for c in self.capture.cameras if not c.is_ego and self.video(c.cam_id)}
        return sorted(c for c in known if _CAMERA.fullmatch(c) and (c in asked or "all" in asked))


def takes_in(path: Path) -> Iterator[tuple[str, Take | Broken]]:
    """(position, take) of each entry of takes.json."""
    for where, raw in members(path, inside=()):
        yield where[0], parse(Take, raw)


def ego_file(root: Path, take: Take) -> str:
    """The colour video of the wearer's camera relative to `root`: full size, else 448 px wide, which is fetched more often.

    Raises:
        SourceError: UNKNOWN_LAYOUT when takes.json names none, MISSING_VIDEO, UNSAFE_PATH.
    """
    where = take.take_name[:100]
    listed = take.video(take.ego) if take.ego else None
    if listed is None:
        problem = f"takes.json lists no {RGB} video of an egocentric camera"
        raise SourceError(Code.UNKNOWN_LAYOUT, problem, where=where)
    for name in (video_file(take, listed), video_file(take, small(listed))):
        if is_there_inside(root, name):
            return name
    raise SourceError(Code.MISSING_VIDEO, f"no {listed} or {SMALL}; download it", where=where)


def video_file(take: Take, listed: str) -> str:
    return f"{take.root_dir or f'takes/{take.take_name}'}/{listed}"


def small(listed: str) -> str:
    """frame_aligned_videos/x.mp4 -> frame_aligned_videos/downscaled/448/x.mp4."""
    folder, _, name = listed.rpartition("/")
    return f"{folder}/{SMALL}/{name}"
