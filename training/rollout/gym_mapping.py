"""The mapping file of `eicorpus rollout --env gym:ID`: what an environment's observations and actions are called in a corpus.

    embodiment: franka
    instruction: push the red cube to the goal
    control_hz: 20                                     # steps of the environment a second
    base: {position_m: [0, 0, 0], quat_wxyz: [1, 0, 0, 0]}   # pose of the environment's frame in the robot's base frame
    cameras: {front: {key: pixels.front}}
    hands:
      left:
        tool: {position_m: [0, 0, 0.1], quat_wxyz: [1, 0, 0, 0]}  # of `hand_xfz` in the tool; default: schemas/embodiments.yaml
        state:
          position_m: {key: eef_pos, unit: m}
          rotation: {key: eef_quat, form: quat_xyzw}
          gripper_opening: {key: gripper_qpos, at: [0, 1], shut: 0, open: 0.04}
        action:
          position_m: {at: [0, 3], form: delta, unit_m: 0.05}     # what 1 means, in metres
          rotation: {at: [3, 6], form: delta_rotvec, unit_rad: 0.5}
          gripper_opening: {at: [6, 7], shut: 1, open: -1}
    success: {info: is_success}

A dot in a key goes one dictionary down. A delta is the way from the measured pose to the target, cut at the box of the action space.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from schemas.action import ActionSpec
from schemas.embodiment import embodiment_for
from schemas.errors import ConfigError
from schemas.geometry import Array, rotmat_from_quat_wxyz, transform
from schemas.invalid import invalid
from schemas.yaml_text import read_yaml

Side = Literal["left", "right"]
Range = tuple[int, int]  # [start, end) of a vector
WIDEST = 10_000  # elements of a vector
METRES = {"m": 1.0, "cm": 0.01, "mm": 0.001}
RADIANS = {"rad": 1.0, "deg": np.pi / 180}


class _MappingPart(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MappedPose(_MappingPart):
    """A constant pose."""

    position_m: tuple[float, float, float]
    quat_wxyz: tuple[float, float, float, float]

    @model_validator(mode="after")
    def _is_rotation(self) -> MappedPose:
        norm = float(np.linalg.norm(self.quat_wxyz))
        if abs(norm - 1) > 1e-3:
            raise ValueError(f"quat_wxyz has norm {norm:.3g}; expected 1")
        return self

    @property
    def matrix(self) -> Array:
        """[4, 4]"""
        return transform(rotmat_from_quat_wxyz(self.quat_wxyz), self.position_m)


class MappedCamera(_MappingPart):
    """RGB pictures [H, W, 3] uint8 in the observation; `key: render` takes `env.render()`."""

    key: str
    is_upside_down: bool = False


def _ascending(at: Range | None) -> Range | None:
    if at is not None and not 0 <= at[0] < at[1] <= WIDEST:
        problem = f"expected [start, end) with start < end, and end at most {WIDEST}"
        raise ValueError(f"{list(at)} is no range; {problem}")
    return at


Place = Annotated[Range, AfterValidator(_ascending)]


class ReadVector(_MappingPart):
    """Where a vector lies: a key of the observation, and which part of it."""

    key: str
    at: Place | None = None


class ReadPosition(ReadVector):
    unit: Literal["m", "cm", "mm"]


class ReadRotation(ReadVector):
    form: Literal["quat_wxyz", "quat_xyzw", "rotvec_rad", "rotmat"]


class ReadOpening(ReadVector):
    """A number that is `shut` at 0 and `open` at 1; of several numbers their mean."""

    shut: float
    open: float

    @model_validator(mode="after")
    def _moves(self) -> ReadOpening:
        if self.shut == self.open:
            raise ValueError("shut and open are the same number")
        return self


class ReadJoints(ReadVector):
    unit: Literal["rad", "deg"]


class HandState(_MappingPart):
    """Readings of one hand in the observation."""

    position_m: ReadPosition | None = None
    rotation: ReadRotation | None = None
    gripper_opening: ReadOpening | None = None
    hand_joints_rad: ReadJoints | None = None


class WrittenPosition(_MappingPart):
    at: Place
    form: Literal["absolute", "delta"]
    unit_m: float = Field(gt=0)


class WrittenRotation(_MappingPart):
    """`fixed` is for hands that the environment does not turn: nothing is written."""

    at: Place | None = None
    form: Literal["delta_rotvec", "rotvec", "quat_wxyz", "quat_xyzw", "fixed"]
    unit_rad: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _has_place(self) -> WrittenRotation:
        if (self.at is None) != (self.form == "fixed"):
            raise ValueError("`at` is needed by every form but `fixed`")
        return self


class WrittenOpening(_MappingPart):
    at: Place
    shut: float
    open: float


class WrittenJoints(_MappingPart):
    at: Place
    unit: Literal["rad", "deg"]


class HandAction(_MappingPart):
    """Elements of one hand in the environment's action."""

    position_m: WrittenPosition | None = None
    rotation: WrittenRotation | None = None
    gripper_opening: WrittenOpening | None = None
    hand_joints_rad: WrittenJoints | None = None


class MappedHand(_MappingPart):
    tool: MappedPose | None = None
    state: HandState
    action: HandAction


class SuccessRule(_MappingPart):
    """`info`: a key of the info of a step that is true once the task is done."""

    info: str


class GymMapping(_MappingPart):
    """The file; see the module."""

    embodiment: str
    instruction: str
    control_hz: float = Field(gt=0)
    base: MappedPose
    cameras: dict[str, MappedCamera] = Field(min_length=1)
    hands: dict[Side, MappedHand] = Field(min_length=1)
    success: SuccessRule
    constant: dict[
        Annotated[int, Field(ge=0, lt=WIDEST)], float
    ] = {}  # elements of the action that nothing of the corpus moves

    def T_tool_hand(self, side: Side) -> Array:
        """[4, 4] of `hand_xfz` in the environment's tool frame.

        Raises:
            ConfigError: neither the mapping nor the registry knows it.
        """
        tool = self.hands[side].tool
        if tool is not None:
            return tool.matrix
        arm = embodiment_for(self.embodiment).arms.get(side)
        T = None if arm is None else arm.T_src_hand
        if T is None:
            problem = f"schemas/embodiments.yaml has no tool frame of {self.embodiment}, {side}"
            raise ConfigError(
                problem, remedy="state the pose of hand_xfz in it", where=f"hands.{side}.tool"
            )
        return np.asarray(T)


def read_mapping(path: Path) -> GymMapping:
    """
    Raises:
        ConfigError: the file cannot be read, or a key is missing, unknown or of a wrong value.
    """
    try:
        return GymMapping.model_validate(read_yaml(path))
    except ValidationError as error:
        raise ConfigError(invalid(error, GymMapping), where=f"--mapping {path}") from error


def check_mapping(
    mapping: GymMapping, spec: ActionSpec, *, rate_hz: float, num_elements: int | None
) -> None:
    """Every element that the policy acts with is read and written, and every element of the action is written once.

    Args:
        spec: the policy's layout for this embodiment. rate_hz: its timesteps a second.
        num_elements: width of the environment's action, None where the environment does not say.

    Raises:
        ConfigError: names what is missing.
    """
    where = "--mapping"
    missing = sorted(_missing(mapping, spec))
    if missing:
        problem = f"the policy acts with elements that the mapping lacks: {', '.join(missing)}"
        raise ConfigError(problem, remedy="add them to the mapping", where=where)
    steps = mapping.control_hz / rate_hz
    if abs(steps - round(steps)) > 1e-6 or round(steps) < 1:
        problem = f"control_hz {mapping.control_hz:g} is no multiple of the policy's {rate_hz:g} Hz"
        raise ConfigError(problem, remedy="use an environment with a multiple", where=where)
    places = sorted(_written(mapping))
    twice = sorted({i for i in places if places.count(i) > 1})
    if twice:
        raise ConfigError(f"elements {twice} of the action are written twice", where=where)
    if num_elements is not None and places != list(range(num_elements)):
        left = sorted(set(range(num_elements)) ^ set(places))
        problem = f"the action has {num_elements} elements; {left} are not in the mapping or not in the action"
        raise ConfigError(problem, remedy="name them, or put them under `constant`", where=where)
    for side in mapping.hands:
        mapping.T_tool_hand(side)


def _missing(mapping: GymMapping, spec: ActionSpec) -> Iterator[str]:
    for part in spec.slices:
        side, _, name = part.name.partition(".")
        field = "rotation" if name == "rot6d_cols" else name
        hand = next((each for of, each in mapping.hands.items() if of == side), None)
        for which in ("state", "action"):
            if hand is None or getattr(getattr(hand, which), field, None) is None:
                yield f"hands.{side}.{which}.{field}"


def _written(mapping: GymMapping) -> Iterator[int]:
    yield from mapping.constant
    for hand in mapping.hands.values():
        for name in type(hand.action).model_fields:
            place: WrittenPosition | WrittenRotation | None = getattr(hand.action, name)
            if place is not None and place.at is not None:
                yield from range(*place.at)


def value_at(nested: Mapping[str, object], key: str) -> object:
    """What lies under `a.b.c`, or under the whole key where a dictionary has it.

    Raises:
        ConfigError: nothing does; names the keys that there are.
    """
    if key in nested:
        return nested[key]
    first, dot, rest = key.partition(".")
    inner = nested.get(first)
    if dot and isinstance(inner, Mapping):
        return value_at(inner, rest)
    known = ", ".join(map(str, nested)) or "nothing"
    raise ConfigError(f"no key {key!r}; the environment gives {known}"[:400], where="--mapping")
