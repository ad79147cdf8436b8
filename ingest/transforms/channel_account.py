"""Accounts for all that a source declares: each channel ends in a slice, a raw column or a counted reason, and each missing camera has a rule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from ingest.transforms.action_vector import Vectors
from schemas.action import ActionSpec
from schemas.declared import Declared
from schemas.episode import SIDES, ArrayFrames, Camera, Episode, VideoSpan, VideoWindow
from schemas.errors import Code, SourceError
from schemas.fact import Certainty, Fact, fact

DROP = "drop"


def with_present_cameras(episode: Episode, policy: str) -> tuple[Episode, tuple[str, ...]]:
    """The episode with the cameras whose files are there, and the names of the others.

    An episode without any camera left is returned as it is: reading its pictures says which file is missing.

    Raises:
        SourceError: MISSING_VIDEO, the recipe drops such an episode, or its hands are seen in a camera that is not there.
    """
    absent = [camera for camera in episode.cameras if not _is_present(camera)]
    if not absent or len(absent) == len(episode.cameras):
        return episode, ()
    names = tuple(camera.name for camera in absent)
    seen_in = {hand.view for hand in episode.hands} | {hand.frame for hand in episode.hands}
    if policy == DROP or seen_in & set(names):
        why = "missing_cameras: drop" if policy == DROP else "the episode's hands refer to it"
        problem = f"the video of camera {', '.join(names)} is missing; download it ({why})"
        raise SourceError(Code.MISSING_VIDEO, problem, where=_path_of(absent[0]) or "")
    facts = [
        fact(
            f"camera_absent.{camera.name}",
            "kept without it",
            Certainty.VERIFIED,
            _absence_source(camera),
        )
        for camera in absent
    ]
    kept = tuple(camera for camera in episode.cameras if camera not in absent)
    return replace(episode, cameras=kept, facts=(*episode.facts, *facts)), names


def _absence_source(camera: Camera) -> str:
    return f"{Path(_path_of(camera) or '').name} is not there"


def _path_of(camera: Camera) -> str | None:
    frames = camera.frames
    return frames.path if isinstance(frames, VideoSpan | VideoWindow | ArrayFrames) else None


def _is_present(camera: Camera) -> bool:
    """Pictures in memory are; a path that is not a video is detected when it is opened."""
    path = _path_of(camera)
    return path is None or Path(path).exists()


RAW_FEATURES = ("action.raw", "observation.source_state")
NOT_CARRIED, ACTION_LACKS = "not_carried", "action_lacks"
POSE = "T_base_eef"
_SLICES = {  # channel of a side -> the slices that carry it
    POSE: ("position_m", "rot6d_cols"),
    "gripper_opening": ("gripper_opening",),
    "hand_keypoints_m": ("hand_keypoints_m",),
    "hand_joints_rad": ("hand_joints_rad",),
}
_ON_AN_ARM = ("gripper_opening", "hand_joints_rad")  # parts that mean little without its motion


class Ending(StrEnum):
    """Where the numbers of one declared channel are."""

    SLICE = "slice"  # of observation.state or action
    COLUMN = "column"  # a feature of its own
    RAW = "raw"  # elements of action.raw or observation.source_state
    LOST = "lost"


def endings(
    episode: Episode, spec: ActionSpec | None, names: Mapping[str, tuple[str, ...]]
) -> dict[str, Ending]:
    """Channel -> where it is, for everything that is declared and every stream. `names`: element names by feature."""
    declared = {each.channel: each for each in episode.declared}
    own = {s.name: Declared(channel=s.name) for s in episode.streams}
    return {name: _ending(each, episode, spec, names) for name, each in {**own, **declared}.items()}


def accounted(episode: Episode, vectors: Vectors) -> Vectors:
    """`vectors` with a fact for each declared channel that is lost, and for each part that its action lacks."""
    names = {feature: named.names for feature, named in vectors.features.items()}
    by_channel = endings(episode, vectors.spec, names)
    lost = [_lost(name) for name, ending in by_channel.items() if ending is Ending.LOST]
    unknown = {f.name for f in vectors.facts if f.certainty is Certainty.UNKNOWN}
    absent = [
        _lacks(side, part)
        for side, part in _missing_parts(vectors.spec, by_channel)
        if part != POSE or f"eef_axes.{side}" not in unknown  # the same limit, with its reason
    ]
    return replace(vectors, facts=(*vectors.facts, *lost, *absent))


def _ending(
    each: Declared, episode: Episode, spec: ActionSpec | None, names: Mapping[str, Any]
) -> Ending:
    stream = episode.stream(each.channel)
    if stream is not None and _is_sliced(each.channel, spec):
        return Ending.SLICE
    if stream is not None and _features_of(each.channel) & names.keys():
        return Ending.COLUMN
    kept = {element for feature in RAW_FEATURES for element in names.get(feature, ())}
    if each.raw and kept.issuperset(each.raw):
        return Ending.RAW
    # `raw_command` is the whole command of the source, so it holds what a command stream was made of.
    if stream is not None and each.channel.startswith("command.") and "action.raw" in names:
        return Ending.RAW
    return Ending.LOST


def _is_sliced(channel: str, spec: ActionSpec | None) -> bool:
    needed = _slices_of(channel)
    have = {part.name for part in spec.slices} if spec is not None else set()
    return bool(needed) and have.issuperset(needed)


def _slices_of(channel: str) -> tuple[str, ...]:
    side, _, part = channel.removeprefix("command.").partition(".")
    return tuple(f"{side}.{name}" for name in _SLICES.get(part, ()))


def _features_of(channel: str) -> set[str]:
    """The features that carry a channel beside the vectors."""
    side, _, part = channel.partition(".")
    if part == POSE and side in SIDES:
        return {f"observation.source_eef_pose.{side}"}
    if side in ("T_base_cam", "T_world_cam"):
        return {f"observation.camera_pose.{part}"}
    return {"action.raw"} if channel == "raw_command" else {f"observation.{channel}"}


def _missing_parts(
    spec: ActionSpec | None, by_channel: Mapping[str, Ending]
) -> Iterator[tuple[str, str]]:
    """(side, channel of a side) of what the source declares, or must have, and the action does not."""
    if spec is None:
        return  # no action at all, which is a limit of its own
    have = {part.name for part in spec.slices}
    declared = {name.removeprefix("command.") for name in by_channel}
    for side in SIDES:
        rides = any(f"{side}.{part}" in have for part in _ON_AN_ARM)
        for part in _SLICES:
            expected = f"{side}.{part}"
            is_wanted = expected in declared or (part == POSE and rides)
            if is_wanted and not have.issuperset(_slices_of(expected)):
                yield side, part


def _lost(channel: str) -> Fact:
    return fact(
        f"{NOT_CARRIED}.{channel}",
        "lost",
        Certainty.UNKNOWN,
        "the source declares it; no slice and no raw column of this episode holds it",
        for_actions=True,
    )


def _lacks(side: str, part: str) -> Fact:
    certainty = Certainty.UNKNOWN if part == POSE else Certainty.UNVERIFIED
    return fact(
        f"{ACTION_LACKS}.{side}.{part}",
        "not in the action",
        certainty,
        "the source declares it, or it moves what the action has; no slice of the action carries it",
        for_actions=True,
    )
