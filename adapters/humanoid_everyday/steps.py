"""data.json of one episode as columns: the file is streamed step by step, because a minute of it is tens of megabytes.

    [{time: UNIX s, [robot_type], image: path in the episode's folder, depth, lidar,
      states:  {arm_state[14], leg_state[15|13], hand_state[14|12], imu{quaternion wxyz, accelerometer, gyroscope, rpy},
                odometry{position, velocity, rpy, quat wxyz}, hand_pressure_state},
      actions: {sol_q[14], left_angles, right_angles [7|12], left_pose 4x4, right_pose 4x4, head_rmat 3x3, tau_ff, armtime, iktime}}, ...]
Source: README "Data Schema" and `scripts/he2lerobot.py` of `physical-superintelligence-lab/Humanoid-Everyday`; the script takes
robot_type inside `states` too, and any member of `states` and `actions` as possibly absent or null.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from adapters.containers.json_rows import Broken, JsonRow, members, parse
from schemas.errors import Code, ConfigError, SourceError
from schemas.geometry import Array

MAX_STEPS = 200_000  # two hours at 30 Hz
_Vector = Annotated[list[float], Field(max_length=64)]
_Matrix = Annotated[list[Annotated[list[float], Field(max_length=4)]], Field(max_length=4)]
_Name = Annotated[str, Field(min_length=1, max_length=300)]


class _Imu(JsonRow):
    quat_wxyz: _Vector | None = Field(default=None, alias="quaternion")
    accelerometer: _Vector | None = None
    gyroscope: _Vector | None = None


class _Odometry(JsonRow):
    position: _Vector | None = None
    velocity: _Vector | None = None
    quat_wxyz: _Vector | None = Field(default=None, alias="quat")


class _States(JsonRow):
    robot_type: _Name | None = None
    arm_state: _Vector | None = None
    leg_state: _Vector | None = None
    hand_state: _Vector | None = None
    imu: _Imu | None = None
    odometry: _Odometry | None = None


class _Actions(JsonRow):
    sol_q: _Vector | None = None
    left_angles: _Vector | None = None
    right_angles: _Vector | None = None
    left_pose: _Matrix | None = None
    right_pose: _Matrix | None = None
    head_rmat: _Matrix | None = None


class HumanoidStep(JsonRow):
    """One step; members that the corpus has no use for are passed over."""

    time: float
    image: _Name
    robot_type: _Name | None = None
    states: _States | None = None
    actions: _Actions | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepColumn:
    """One field over the steps: `values` [N, W], zero where `present` [N] is False."""

    values: Array
    present: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HumanoidSteps:
    """`columns` by dotted name, e.g. `states.arm_state`; only those that some step has."""

    time_s: Array
    images: tuple[str, ...]
    robot_type: str | None
    columns: dict[str, StepColumn]
    where: str


def read_steps(path: Path, where: str) -> HumanoidSteps:
    """Raises SourceError: CORRUPT_RECORD (broken or cut JSON), BAD_ANNOTATION (a step that is none), EMPTY_EPISODE, TOO_LONG,
    SHAPE_MISMATCH (a field that changes its width), UNKNOWN_LAYOUT (robot_type changes)."""
    times: list[float] = []
    images: list[str] = []
    robots: set[str | None] = set()
    fields: dict[str, list[list[float] | None]] = {}
    for number, step in enumerate(_parsed(path, where)):
        times.append(step.time)
        images.append(step.image)
        robots.add(step.robot_type or (step.states.robot_type if step.states else None))
        for name, value in _vectors(step):
            column = fields.setdefault(name, [])
            column += [None] * (number - len(column))
            column.append(value)
    if not times:
        raise SourceError(Code.EMPTY_EPISODE, "no steps", where=where)
    stated = {robot.lower() for robot in robots if robot is not None}
    if len(stated) > 1:
        raise SourceError(
            Code.UNKNOWN_LAYOUT, f"several robots in one file: {sorted(stated)}", where=where
        )
    return HumanoidSteps(
        time_s=np.array(times, dtype=np.float64),
        images=tuple(images),
        robot_type=next(iter(stated), None),
        columns={n: _column(rows, len(times), f"{where}:{n}") for n, rows in fields.items()},
        where=where,
    )


def _parsed(path: Path, where: str) -> Iterator[HumanoidStep]:
    try:
        for number, (_, raw) in enumerate(members(path, inside=())):
            step = parse(HumanoidStep, raw)
            if isinstance(step, Broken):
                problem = f"step {number}: {step.why}"
                raise SourceError(Code.BAD_ANNOTATION, problem, where=where)
            if number >= MAX_STEPS:
                problem = f"more than {MAX_STEPS} steps; the file may contain several episodes"
                raise SourceError(Code.TOO_LONG, problem, where=where)
            yield step
    except ConfigError as error:  # to the streaming reader a broken file is the caller's mistake
        raise SourceError(Code.CORRUPT_RECORD, error.message, where=where) from error


def _vectors(step: HumanoidStep) -> Iterator[tuple[str, list[float]]]:
    """Every array of numbers of a step, matrices row by row."""
    for group, part in (("states", step.states), ("actions", step.actions)):
        yield from _flat(group, part)


def _flat(name: str, value: Any) -> Iterator[tuple[str, list[float]]]:
    if isinstance(value, JsonRow):
        for key in type(value).model_fields:
            yield from _flat(f"{name}.{key}", getattr(value, key))
    elif isinstance(value, list) and value:
        nested = isinstance(value[0], list)
        yield name, [x for row in value for x in row] if nested else value


def _column(rows: Sequence[list[float] | None], num_steps: int, where: str) -> StepColumn:
    filled = [*rows, *([None] * (num_steps - len(rows)))]
    widths = {len(row) for row in filled if row is not None}
    if len(widths) != 1:
        problem = f"widths {sorted(widths)}; expected one"
        raise SourceError(Code.SHAPE_MISMATCH, problem, where=where)
    (width,) = widths
    blank = [0.0] * width
    return StepColumn(
        values=np.array([blank if row is None else row for row in filled], dtype=np.float64),
        present=np.array([row is not None for row in filled], dtype=bool),
    )
