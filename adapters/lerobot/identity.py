"""What a LeRobot set is: its names, the mapping it is read by, and what a user should know before the run."""

from __future__ import annotations

import re
from pathlib import Path

from adapters.containers.lerobot_meta import Modality, SetInfo, read_info, read_modality
from adapters.lerobot.mapping import Mapping, mapping_for
from schemas.errors import ConfigError, SourceError


def slug(text: str) -> str:
    """`text` in small letters, digits and _, for names of folders and bodies."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_") or "unnamed"


def body_of(info: SetInfo, mapping: Mapping | None) -> str:
    """The embodiment: as the mapping says, else the robot_type of info.json."""
    robot = slug(info.robot_type or "unknown_robot")
    declared = mapping.embodiment if mapping else None
    return declared.replace("{robot_type}", robot) if declared else robot


def required_mapping(root: Path, source: str, only: tuple[str, ...]) -> Mapping:
    """The mapping of `only` that fits the set at `root`.

    Raises:
        ConfigError: the metadata cannot be read, or the set is another one than `source`.
    """
    try:
        info, modality = read_info(root), read_modality(root)
    except SourceError as error:
        raise ConfigError(f"{root} cannot be identified as {source}: {error}") from error
    mapping = mapping_for(info, modality, only=only)
    if mapping is None:
        raise ConfigError(
            f"{root} is not a {source} dataset: robot_type {info.robot_type!r} with columns "
            f"{sorted(info.features)} matches none of {list(only)}; use source `lerobot` for other datasets"
        )
    return mapping


def notes_of(root: Path, mapping_file: str, only: tuple[str, ...]) -> tuple[str, ...]:
    """Plain sentences for the plan; ConfigError when a user's mapping does not fit this set."""
    try:
        info, modality = read_info(root), read_modality(root)
    except SourceError as error:
        return (f"metadata cannot be used: {error}",)
    mapping = mapping_for(info, modality, mapping_file, only)
    known = f"mapping {mapping.name!r}" if mapping else "no mapping: what actions mean is unknown"
    return f"{info.codebase_version}, {info.robot_type}, {info.fps} Hz", known


def meta_for(root: Path, robot_type: str | None) -> tuple[SetInfo, Modality]:
    """The metadata of an episode: of its set, with the robot of this episode where the table names one."""
    info = read_info(root)
    if robot_type:
        info = info.model_copy(update={"robot_type": robot_type})
    return info, read_modality(root)
