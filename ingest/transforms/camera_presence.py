"""An episode of several cameras of which some have no file: kept with the others, or not, as the recipe says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from schemas.episode import ArrayFrames, Camera, Episode, VideoSpan, VideoWindow
from schemas.errors import Code, SourceError
from schemas.fact import Certainty, fact

KEEP, DROP = "keep", "drop"


def with_cameras_there(episode: Episode, policy: str) -> tuple[Episode, tuple[str, ...]]:
    """The episode with the cameras whose files are there, and the names of the others.

    An episode without any camera left is returned as it is: reading its pictures says which file is missing.

    Raises:
        SourceError: MISSING_VIDEO, the recipe drops such an episode, or its hands are seen in a camera that is not there.
    """
    absent = [camera for camera in episode.cameras if not _is_there(camera)]
    if not absent or len(absent) == len(episode.cameras):
        return episode, ()
    names = tuple(camera.name for camera in absent)
    seen_in = {hand.view for hand in episode.hands} | {hand.frame for hand in episode.hands}
    if policy == DROP or seen_in & set(names):
        why = "missing_cameras: drop" if policy == DROP else "its hands are seen in it"
        problem = f"no file of camera {', '.join(names)}; fetch it ({why})"
        raise SourceError(Code.MISSING_VIDEO, problem, where=_path_of(absent[0]) or "")
    facts = [
        fact(f"camera_absent.{camera.name}", "kept without it", Certainty.VERIFIED, _said(camera))
        for camera in absent
    ]
    kept = tuple(camera for camera in episode.cameras if camera not in absent)
    return replace(episode, cameras=kept, facts=(*episode.facts, *facts)), names


def _said(camera: Camera) -> str:
    return f"{Path(_path_of(camera) or '').name} is not there"


def _path_of(camera: Camera) -> str | None:
    frames = camera.frames
    return frames.path if isinstance(frames, VideoSpan | VideoWindow | ArrayFrames) else None


def _is_there(camera: Camera) -> bool:
    """Pictures in memory are; a path that holds something else than a video is told apart when it is opened."""
    path = _path_of(camera)
    return path is None or Path(path).exists()
