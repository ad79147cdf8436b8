"""The numbers of one ALOHA file: arm joints, grippers and commands as canonical streams, and what is known of them.

Rows hold 14 numbers: left arm, then right arm, each six joints in radians and a gripper (names:
`tonyzhaozh/act:visualize_episodes.py`). Grippers are normalised, 0 closed and 1 open, followers by finger position, leaders by
motor angle (`tonyzhaozh/act:constants.py`). AgileX's Cobot Magic writes the same layout with other arms and an unstated
gripper scale (`agilexrobotics/cobot_magic:collect_data`), so a mobile or compressed file settles neither by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from adapters.containers.hdf5 import Hdf5File
from schemas.episode import SIDES, Stream, Unit, gripper_channel, vector_channel
from schemas.fact import Certainty, Fact, fact
from schemas.geometry import Array
from schemas.rate import instants_ns, rate_from

RATE_HZ = Fraction(50)  # DT = 0.02 in constants.py
BODY = "aloha_vx300s"
_ARM = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate", "gripper")
NAMES = tuple(f"{side}_{name}" for side in SIDES for name in _ARM)
ARMS = [k for k in range(14) if k % 7 != 6]
GRIPPERS = (6, 13)
GRIPPER_RANGE = (-0.5, 1.5)  # leaders overshoot 0 .. 1 a little; degrees or millimetres go further
CODE = "tonyzhaozh/act:constants.py, record_sim_episodes.py, visualize_episodes.py"
CALLER = "the caller's option"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JointRows:
    """One file's numbers: `qpos` and `action` [T, 14], `base` [T, 2] of a mobile base or None."""

    qpos: Array
    action: Array
    base: Array | None
    rate_hz: Fraction
    body: str
    facts: tuple[Fact, ...]

    @property
    def t_ns(self) -> npt.NDArray[np.int64]:
        return instants_ns(len(self.qpos), self.rate_hz)


def read_rows(file: Hdf5File, options: Mapping[str, Any]) -> JointRows:
    """Raises SourceError: MISSING_CHANNEL, SHAPE_MISMATCH (not two arms of 6 + 1, or unequal lengths), EMPTY_EPISODE."""
    qpos = file.rows("observations/qpos", 14)
    action = file.rows("action", 14, num_rows=len(qpos))
    has_base = "base_action" in file
    base = file.rows("base_action", 2, num_rows=len(qpos)) if has_base else None
    is_open = "embodiment" not in options and (
        base is not None or file.has_attribute("", "compress")
    )
    return JointRows(
        qpos=qpos,
        action=action,
        base=base,
        rate_hz=rate_from(options.get("rate_hz", RATE_HZ)),
        body=options.get("embodiment", BODY),
        facts=(
            *_general_facts(file, options, is_open=is_open),
            _gripper_fact(np.concatenate([qpos, action])[:, GRIPPERS], options, is_open=is_open),
        ),
    )


def streams_of(rows: JointRows) -> Iterator[Stream]:
    """Joints, both grippers with their commands where the scale is known, and the action as it is stored.

    Raises:
        SourceError: NOT_FINITE.
    """
    t_ns = rows.t_ns
    due_ns = t_ns + int(instants_ns(2, rows.rate_hz)[1])
    names = tuple(NAMES[k] for k in ARMS)
    joints = vector_channel("joint_position_rad", 12, Unit.RADIAN, names=names)
    yield Stream(spec=joints, t_ns=t_ns, values=rows.qpos[:, ARMS])
    if any(f.name == "gripper_scale" and f.certainty is Certainty.UNKNOWN for f in rows.facts):
        held = vector_channel(
            "source_state", 2, Unit.SOURCE, names=("left_gripper", "right_gripper")
        )
        yield Stream(spec=held, t_ns=t_ns, values=rows.qpos[:, GRIPPERS])
    else:
        for prefix, at_ns, values in (("", t_ns, rows.qpos), ("command.", due_ns, rows.action)):
            for side, column in zip(SIDES, GRIPPERS, strict=True):
                spec = gripper_channel(f"{prefix}{side}.gripper_opening", binary=False)
                opening = np.clip(values[:, column : column + 1], 0.0, 1.0)
                yield Stream(spec=spec, t_ns=at_ns, values=opening)
    raw, raw_names = rows.action, NAMES
    if rows.base is not None:
        raw = np.concatenate([raw, rows.base], axis=1)
        raw_names = (*NAMES, "base_linear", "base_angular")
    spec = vector_channel("raw_command", len(raw_names), Unit.SOURCE, names=raw_names, hold=True)
    yield Stream(spec=spec, t_ns=t_ns, values=raw)


def _general_facts(file: Hdf5File, options: Mapping[str, Any], *, is_open: bool) -> list[Fact]:
    how = Certainty.INFERRED if is_open else Certainty.CODE
    rate = options.get("rate_hz")
    body = options.get("embodiment", BODY)
    facts = [
        fact("rate", f"{rate} Hz", Certainty.DOCUMENTED, CALLER, for_actions=True)
        if rate
        else fact("rate", "50 Hz", how, f"{CODE}: DT = 0.02; no clock is stored", for_actions=True),
        fact("action_kind", "absolute joint targets of the leaders", Certainty.CODE, CODE),
        fact("colour", "RGB arrays; JPEG rows with red and blue swapped", Certainty.CODE, CODE),
        fact("embodiment", body, how, CALLER if "embodiment" in options else CODE),
    ]
    if file.has_attribute("", "sim"):
        value = str(bool(file.attribute("", "sim")))
        facts.append(fact("is_simulation", value, Certainty.CODE, "attribute sim"))
    return facts


def _gripper_fact(readings: Array, options: Mapping[str, Any], *, is_open: bool) -> Fact:
    """How sure the scale of the grippers is; UNKNOWN keeps them out of the canonical channels."""
    low, high = float(np.nanmin(readings)), float(np.nanmax(readings))
    if options.get("embodiment", BODY) != BODY:
        value = f"{low:g} .. {high:g} on another robot than ALOHA's: kept as source_state"
        return fact("gripper_scale", value, Certainty.UNKNOWN, CALLER, for_actions=True)
    if not (GRIPPER_RANGE[0] <= low and high <= GRIPPER_RANGE[1]):
        value = f"{low:g} .. {high:g}, expected 0 closed .. 1 open: kept as source_state"
        return fact("gripper_scale", value, Certainty.UNKNOWN, CODE, for_actions=True)
    how = Certainty.INFERRED if is_open else Certainty.CODE
    return fact("gripper_scale", "0 closed .. 1 open", how, CODE, for_actions=True)
