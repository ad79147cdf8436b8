"""The declared mapping: which columns of a LeRobot set are which canonical channel, and how sure we are.

LeRobot fixes file names, not meaning: `observation.state` may be joints, a pose or both, in any unit. So the meaning
is data (`mappings.yaml`, or a user's own file), each entry with its certainty and its source. An entry of
certainty `unknown` is never emitted; it says so in a fact.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from adapters.containers.lerobot_meta import Modality, SetInfo
from schemas.document import DocumentError
from schemas.episode import SIDES
from schemas.errors import ConfigError, SourceError
from schemas.fact import Certainty, Fact
from schemas.geometry import ROTMAT_FROM
from schemas.invalid import invalid
from schemas.regular_file import read_regular
from schemas.yaml_text import YamlLimits, parse_yaml

MAX_MAPPING_BYTES = 4 << 20
LIMITS = YamlLimits(max_bytes=MAX_MAPPING_BYTES)
ROTATION_WIDTHS = {"rotmat": 9, "quat_xyzw": 4, "quat_wxyz": 4, "rotvec": 3, "rot6d_cols": 6}


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ChannelPart(_Strict):
    """Some elements of one column: a modality.json key ("state.left_arm"), or a column with a slice or element names."""

    modality: str | None = None
    column: str | None = None
    start: int | None = Field(default=None, ge=0)
    end: int | None = Field(default=None, ge=1)
    elements: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _one_way(self) -> ChannelPart:
        if (self.modality is None) == (self.column is None):
            raise ValueError("expected exactly one of modality and column")
        sliced = self.start is not None or self.end is not None
        if sliced and (self.modality is not None or self.elements):
            raise ValueError("start and end need a column and exclude elements")
        if self.modality and self.modality.partition(".")[0] not in ("state", "action"):
            raise ValueError(f"modality key {self.modality!r} must start with state. or action.")
        return self


class _Channel(_Strict):
    """What every kind shares. `names` gates the entry: one pattern per element of `at`, all must match."""

    channel: str
    certainty: Certainty
    source: str
    optional: bool = False  # True: the columns may be absent; False: their absence is an error
    names: tuple[str, ...] = ()

    @field_validator("names")
    @classmethod
    def _patterns(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in names:
            re.compile(pattern)
        return names

    def names_match(self, names: tuple[str, ...]) -> bool:
        """Whether the element names of the column say what this entry needs them to say."""
        return not self.names or (
            len(names) == len(self.names)
            and all(
                re.fullmatch(p, n, re.IGNORECASE) for p, n in zip(self.names, names, strict=True)
            )
        )


class PoseChannel(_Channel):
    """`[command.]<side>.T_base_eef` from a position and a rotation. `rotation_type` gates on modality.json's word."""

    kind: Literal["pose"]
    channel: str = Field(pattern=r"^(command\.)?(left|right)\.T_base_eef$")
    position: ChannelPart
    rotation: ChannelPart
    form: str
    rotation_type: str | None = None
    metres_per_unit: float = Field(default=1.0, gt=0)

    @field_validator("form")
    @classmethod
    def _known(cls, form: str) -> str:
        if form not in ROTMAT_FROM:
            raise ValueError(f"rotation form {form!r} is not one of {sorted(ROTMAT_FROM)}")
        return form

    @property
    def rotation_width(self) -> int:
        return ROTATION_WIDTHS.get(self.form, 3)  # the others are Euler angles


class GripperChannel(_Channel):
    """`[command.]<side>.gripper_opening` = clip(scale * x + offset, 0, 1): 1 open, 0 closed.

    x is the sum of `jaws` elements: one, or the travel of each finger.
    """

    kind: Literal["gripper"]
    channel: str = Field(pattern=r"^(command\.)?(left|right)\.gripper_opening$")
    at: ChannelPart
    scale: float = 1.0
    offset: float = 0.0
    binary: bool = False
    jaws: int = Field(default=1, ge=1, le=4)


class JointChannel(_Channel):
    """Joint angles, parts one after the other; only where radians (or degrees) are known.

    `joints` names them in order where the set does not: kinematics find an arm by the names of its joints.
    """

    kind: Literal["joints"]
    channel: str = Field(
        pattern=r"^(command\.)?(joint_position_rad|(left|right)\.hand_joints_rad)$"
    )
    parts: tuple[ChannelPart, ...] = Field(min_length=1)
    joints: tuple[str, ...] = ()
    radians_per_unit: float = Field(default=1.0, gt=0)


AnyChannel = Annotated[PoseChannel | GripperChannel | JointChannel, Field(discriminator="kind")]


class Label(_Strict):
    """An integer column of any width whose entries point into a text table of the set: what is done at that row.

    `table` is a JSON Lines file below the root with `key` and `text` in each row. A negative entry points nowhere.
    """

    column: str
    table: str
    key: str
    text: str


class Intrinsics(_Strict):
    """[fx, fy, cx, cy] of a camera in pixels of its declared picture: stated here, or in a column of the rows."""

    camera: str  # feature key
    px: tuple[float, float, float, float] | None = None
    column: str | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Intrinsics:
        if (self.px is None) == (self.column is None):
            raise ValueError("expected exactly one of px and column")
        return self


class MappingMatch(_Strict):
    """When a mapping applies: everything stated must hold; nothing stated matches every set.

    `robot_types`: any of them, case ignored. `columns`: each is there, with that width unless null.
    `modality`: each key is in modality.json. `elements`: the column has these element names.
    """

    robot_types: tuple[str, ...] = ()
    columns: dict[str, int | None] = {}
    modality: tuple[str, ...] = ()
    elements: dict[str, tuple[str, ...]] = {}

    def holds(self, info: SetInfo, modality: Modality) -> bool:
        """Whether the set described by `info` and `modality` is meant."""
        robot_types = {r.lower() for r in self.robot_types}
        if robot_types and (info.robot_type or "").lower() not in robot_types:
            return False
        known = {f"state.{k}" for k in modality.state} | {f"action.{k}" for k in modality.action}
        return (
            all(_has_width(info, name, width) for name, width in self.columns.items())
            and set(self.modality) <= known
            and all(
                c in info.features and set(names) <= set(info.features[c].names)
                for c, names in self.elements.items()
            )
        )


def _has_width(info: SetInfo, name: str, width: int | None) -> bool:
    feature = info.features.get(name)
    return feature is not None and (width is None or _width(feature.shape) == width)


def _width(shape: tuple[int, ...]) -> int:
    total = 1
    for n in shape:
        total *= n
    return total


class Mapping(_Strict):
    """One kind of set. `embodiment` null takes info.json's robot_type, and {robot_type} in it stands for that.

    `state` and `action` name the columns of the source's own vectors where LeRobot's names do not. Texts:
    `instructions` names integer columns into the task table, best first; without it modality.json's annotations, then
    task_index. `text_from: episodes` takes the episode table's word instead. `task_text` is the key of the text in the
    task table, `no_text` are texts that say nothing, `skills` reads info.json's annotation_path.

    Of several entries for one channel the first that applies and is not unknown is used. An entry whose channel
    holds {side} stands for two, with left and with right put in everywhere.
    """

    name: str
    source: str
    match: MappingMatch = MappingMatch()
    embodiment: str | None = None
    channels: tuple[AnyChannel, ...] = ()
    state: tuple[str, ...] = ()
    action: tuple[str, ...] = ()
    instructions: tuple[str, ...] = ()
    text_from: Literal["rows", "episodes"] = "rows"
    task_text: str = "task"
    no_text: tuple[str, ...] = ()
    labels: tuple[Label, ...] = ()
    skills: bool = False
    intrinsics: tuple[Intrinsics, ...] = ()
    facts: tuple[Fact, ...] = ()

    @field_validator("channels", mode="before")
    @classmethod
    def _both_sides(cls, channels: Any) -> Any:
        if not isinstance(channels, list):
            return channels
        return [entry for channel in channels for entry in _per_side(channel)]


def _per_side(channel: Any) -> list[Any]:
    if not isinstance(channel, dict) or "{side}" not in str(channel.get("channel")):
        return [channel]
    return [_replaced(channel, "{side}", side) for side in SIDES]


def _replaced(value: Any, old: str, new: str) -> Any:
    if isinstance(value, dict):
        return {key: _replaced(item, old, new) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, old, new) for item in value]
    return value.replace(old, new) if isinstance(value, str) else value


class _File(_Strict):
    version: Literal[1]
    mappings: tuple[Mapping, ...] = Field(min_length=1)


def mappings_from(text: str, where: str) -> tuple[Mapping, ...]:
    """Parse mapping YAML.

    Raises:
        ConfigError: it is not YAML or breaks a rule.
    """
    try:
        return _File.model_validate(parse_yaml(text, limits=LIMITS)).mappings
    except DocumentError as error:
        raise ConfigError(str(error), where=where) from error
    except ValidationError as error:
        raise ConfigError(f"mapping: {invalid(error, _File)}", where=where) from error
    except re.error as error:
        raise ConfigError(
            f"mapping: not a valid regular expression: {error}", where=where
        ) from error


@cache
def shipped_mappings() -> tuple[Mapping, ...]:
    """The mappings that come with the package, in order of precedence."""
    name = "mappings.yaml"
    return mappings_from(files("adapters.lerobot").joinpath(name).read_text(encoding="utf-8"), name)


def mapping_for(
    info: SetInfo, modality: Modality, user_file: str = "", only: tuple[str, ...] = ()
) -> Mapping | None:
    """The first mapping that holds, a user's file before the shipped ones; None if no mapping declares this dataset.

    `only` are the names of the shipped mappings that may be used; all of them without it.

    Raises:
        ConfigError: the user's file cannot be read, or none of its mappings holds for this set.
    """
    if user_file:
        mapping = _first(read_mappings(Path(user_file)), info, modality)
        if mapping is None:
            columns = sorted(info.features)
            raise ConfigError(
                f"no mapping matches robot_type {info.robot_type!r} with columns {columns}",
                where=user_file,
            )
        return mapping
    allowed = tuple(m for m in shipped_mappings() if not only or m.name in only)
    return _first(allowed, info, modality)


def read_mappings(path: Path) -> tuple[Mapping, ...]:
    """A user's mapping file.

    Raises:
        ConfigError: not readable, too large, or breaks a rule.
    """
    try:
        data = read_regular(path, max_bytes=MAX_MAPPING_BYTES)
        return mappings_from(data.decode("utf-8"), str(path))
    except (SourceError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", where=str(path)) from error


def _first(mappings: tuple[Mapping, ...], info: SetInfo, modality: Modality) -> Mapping | None:
    return next((m for m in mappings if m.match.holds(info, modality)), None)
