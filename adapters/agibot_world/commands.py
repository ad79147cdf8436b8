"""AgiBot World proprio_stats.h5, the commanded half: the commands, where they differ from the state.

    action/joint/position [N, 14] · action/end/{position [N, 2, 3], orientation [N, 2, 4]} · action/effector/position
    [N, 2] 0 open .. 1 closed, or [N, 12] rad: as the state of the same name
    action/{joint,end,effector}/index [M] int64: rows at which the controller really sent a command
Document: `34328/AgiBot_eef_extraction:agibot_world_itrd.md`. Rules for beta, from `Tavish9/any4lerobot:agibot2lerobot/
agibot_utils/agibot_utils.py` and its notebook on real files: arrays may equal the state bit by bit (no command at
all); one shorter than the state holds only the rows of its `index` (an empty end/index means joint/index) and is
completed, here with the NEXT state (any4lerobot takes the same row's); one longer than the state is corrupt (tasks 352 354 359 361 368 376 377 410 414 421).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from adapters.agibot_world.proprio import (
    DOC,
    JOINTS,
    RATE_HZ,
    AgibotState,
    effector_streams,
    fact,
    pose_streams,
)
from adapters.containers.hdf5 import Hdf5File
from schemas.episode import SIDES, Stream, Unit, vector_channel
from schemas.errors import Code, SourceError
from schemas.fact import Certainty, Fact
from schemas.geometry import Array
from schemas.rate import instants_ns

PERIOD_NS = int(instants_ns(2, RATE_HZ)[1])
CLOSED_RANGE = (-0.1, 1.1)  # documented 0 .. 1; real OmniPicker commands reach 1.0113


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _ActionRows:
    """One action array brought to N rows. `is_copy`: every stored row equals the state bit by bit.

    `valid` [N] is False for a last row without a command: no next state can stand in for it.
    """

    values: Array
    is_copy: bool
    num_stored: int
    valid: npt.NDArray[np.bool_]


def read_commands(file: Hdf5File, state: AgibotState) -> tuple[list[Stream], list[Fact]]:
    """`command.*` (stamped one period after issue, when due) and `raw_command` (at issue), with what was found.

    Raises:
        SourceError: FRAME_COUNT (more action rows than state rows), SHAPE_MISMATCH, CORRUPT_RECORD (`index` does not
            fit its array), NOT_FINITE, NOT_A_ROTATION.
    """
    joint = _action(file, "joint/position", state.joints_rad, state.joints_rad)
    xyz = _action(file, "end/position", state.xyz_m, state.xyz_m)
    quat = _action(file, "end/orientation", state.quat_xyzw, state.quat_xyzw)
    effector = _action(file, "effector/position", state.effector, state.effector_in_action_units)
    due_ns = state.t_ns + PERIOD_NS
    streams: list[Stream] = []
    facts = [fact("action_kind", "absolute", Certainty.DOCUMENTED, DOC, for_actions=True)]
    facts += [
        _action_source("joint", state.num_rows, joint),
        _action_source("end", state.num_rows, xyz, quat),
    ]
    facts.append(_action_source("effector", state.num_rows, effector))
    if xyz and quat and not (xyz.is_copy and quat.is_copy):
        streams += pose_streams(
            "command.",
            due_ns,
            xyz.values,
            quat.values,
            where=file.where,
            valid=xyz.valid & quat.valid,
        )
    if effector and not effector.is_copy:
        unit = _unit_fact(effector.values, file.where)
        facts.append(unit)
        if unit.certainty is not Certainty.UNKNOWN:
            streams += effector_streams("command.", due_ns, effector.values, effector.valid)
    if joint and xyz and quat and effector:
        streams.append(_raw_command(state.t_ns, joint, effector, xyz, quat))
    return streams, facts


def _action(file: Hdf5File, name: str, state: Array, base: Array | None) -> _ActionRows | None:
    """`action/<name>` with N rows, completed from the next row of `base` (the state in action units); None when absent or unused."""
    key = f"action/{name}"
    if key not in file or file.shape(key) == (0,):
        return None
    stored = file.array(key).astype(np.float64)
    where = f"{file.where}:{key}"
    if stored.ndim == 0 or len(stored) > len(state):
        problem = (
            f"action {stored.shape[:1]} rows, state {len(state)}: a known defect of the release"
        )
        raise SourceError(Code.FRAME_COUNT, problem, where=where)
    if stored.shape[1:] != state.shape[1:]:
        problem = f"{stored.shape}; expected {(len(state), *state.shape[1:])}"
        raise SourceError(Code.SHAPE_MISMATCH, problem, where=where)
    if len(stored) == len(state):
        is_copy = np.array_equal(stored, state)
        everywhere = np.ones(len(state), dtype=bool)
        return _ActionRows(values=stored, is_copy=is_copy, num_stored=len(stored), valid=everywhere)
    at = _index(file, name.split("/")[0], len(stored), len(state))
    if base is None:  # nothing in the action's units to complete it from
        return None
    # A row without a command aims at what came next, as everywhere where nothing was commanded (design §3.3): its own
    # state would be a target one period old by the time it is due.
    values = np.concatenate([base[1:], base[-1:]])
    values[at] = stored
    valid = np.ones(len(state), dtype=bool)
    valid[-1] = at.size > 0 and at[-1] == len(state) - 1
    return _ActionRows(
        values=values,
        is_copy=np.array_equal(stored, state[at]),
        num_stored=len(stored),
        valid=valid,
    )


def _index(file: Hdf5File, group: str, num_stored: int, num_rows: int) -> npt.NDArray[np.int64]:
    """The rows a short action array belongs to."""
    at = file.array(f"action/{group}/index")
    if at.size == 0 and group == "end":
        at = file.array("action/joint/index")
    is_whole = at.dtype.kind in "iu" and at.shape == (num_stored,)
    if not is_whole or np.any(at < 0) or np.any(at >= num_rows) or np.any(np.diff(at) <= 0):
        problem = f"{at.dtype}{at.shape} for {num_stored} action rows; expected increasing rows below {num_rows}"
        raise SourceError(Code.CORRUPT_RECORD, problem, where=f"{file.where}:action/{group}/index")
    return at.astype(np.int64)


def _action_source(group: str, num_rows: int, *parts: _ActionRows | None) -> Fact:
    """Whether this group of action arrays is a command, in words."""
    present = [p for p in parts if p]
    if len(present) < len(parts):
        value = "achieved: no usable action rows"
    elif all(p.is_copy for p in present):
        value = "achieved: action rows equal the state bit by bit"
    elif all(p.num_stored == num_rows for p in present):
        value = "commanded"
    else:
        value = f"commanded in {min(p.num_stored for p in present)} of {num_rows} rows, else the next state"
    return fact(f"action_source.{group}", value, Certainty.VERIFIED, "compared in this episode")


def _unit_fact(values: Array, where: str) -> Fact:
    """The unit of effector commands; UNKNOWN outside the documented range, and then they are not emitted."""
    low, high = float(values.min()), float(values.max())
    if values.shape[1] == 12:
        return fact("effector_command_unit", "rad", Certainty.DOCUMENTED, DOC)
    if CLOSED_RANGE[0] <= low and high <= CLOSED_RANGE[1]:
        value = "0 open .. 1 closed"
        return fact("effector_command_unit", value, Certainty.DOCUMENTED, DOC, for_actions=True)
    value = f"{low:g} .. {high:g}, documented 0 .. 1: left out"
    return fact("effector_command_unit", value, Certainty.UNKNOWN, where)


def _raw_command(
    t_ns: npt.NDArray[np.int64],
    joint: _ActionRows,
    effector: _ActionRows,
    xyz: _ActionRows,
    quat: _ActionRows,
) -> Stream:
    """[N, 14 + 2 or 12 + 14]: joints, effectors, then position and quaternion of the left and the right link7."""
    num_rows = len(t_ns)
    poses = np.concatenate([xyz.values, quat.values], axis=-1).reshape(num_rows, 14)
    values = np.concatenate([joint.values, effector.values, poses], axis=1)
    per_side = effector.values.shape[1] // 2
    ends = tuple(f"{s}_link7_{a}" for s in SIDES for a in ("x", "y", "z", "qx", "qy", "qz", "qw"))
    names = (*JOINTS, *(f"{s}_effector{k}" for s in SIDES for k in range(1, per_side + 1)), *ends)
    spec = vector_channel("raw_command", len(names), Unit.SOURCE, names=names, hold=True)
    return Stream(spec=spec, t_ns=t_ns, values=values)
