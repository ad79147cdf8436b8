"""Canonical streams and instructions of one RLDS episode.

Instructions of one RLDS episode: UTF-8 text, or zero-padded Unicode code points, one per step.

Canonical streams of one RLDS episode, led by the facts of its set: what no usable fact carries is not emitted.

Clock: step k is at k / rate (RLDS stores no times). A command issued at step k is stamped with the instant it is due, one
period later; the raw action keeps its issue time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from adapters.containers.rlds_steps import STEPS, Steps
from adapters.oxe.facts import FactBook, range_of
from adapters.oxe.gripper import BINARY_OPS, opening_from_command
from adapters.oxe.motion import (
    ArmArrays,
    Array,
    DeltaCommand,
    delta_targets,
    eef_poses,
    poses,
    read_arm,
    slot_values,
)
from adapters.oxe.registry import ArmEntry, CommandEntry, OxeSet, Slot
from adapters.oxe.survey import action_names, command_keys, eef_slots, element_names, leaf_width
from schemas.episode import Instruction, Stream, Unit, gripper_channel, pose_channel, vector_channel
from schemas.errors import Code, SourceError
from schemas.geometry import inverse
from schemas.rate import instants_ns

# -- language ------------------------------------------------------------------------------------------------------


def instructions_of(
    steps: Steps, entry: OxeSet, t_ns: npt.NDArray[np.int64]
) -> tuple[Instruction, ...]:
    """The task texts, alternatives included; a text that changes on the way is a subtask over its own steps.

    Raises:
        SourceError: FRAME_COUNT, or BAD_ANNOTATION for bytes that are no text.
    """
    if entry.instruction is None:
        return ()
    out: list[Instruction] = []
    for key in entry.instruction.keys:
        if steps.has(key):
            texts = _points(steps, key) if entry.instruction.is_code_points else steps.texts(key)
            out += [i for i in _runs(texts, t_ns) if i not in out]
    return tuple(out)


def _runs(texts: list[str], t_ns: npt.NDArray[np.int64]) -> list[Instruction]:
    starts = [k for k in range(len(texts)) if k == 0 or texts[k] != texts[k - 1]]
    if len(starts) == 1:
        return [Instruction(text=texts[0])] if texts[0].strip() else []
    ends = [*(int(t_ns[k]) for k in starts[1:]), None]
    return [
        Instruction(text=texts[k], start_ns=int(t_ns[k]), end_ns=end, kind="subtask")
        for k, end in zip(starts, ends, strict=True)
        if texts[k].strip()
    ]


def _points(steps: Steps, key: str) -> list[str]:
    points = steps.numbers(key).reshape(steps.num_steps, -1)
    if (
        points.dtype.kind not in "iu"
        or points.min(initial=0) < 0
        or points.max(initial=0) > 0x10FFFF
    ):
        problem = f"{points.dtype} values up to {points.max(initial=0)} are not Unicode code points"
        raise SourceError(Code.BAD_ANNOTATION, problem, where=key)
    return ["".join(map(chr, row[row != 0])) for row in points]


# -- streams -------------------------------------------------------------------------------------------------------

Mask = npt.NDArray[np.bool_]
# The "all-zero" first action of Bridge is up to 1.3e-6 in metres and radians (25 real episodes), never exactly zero.
EMPTY = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class _Clock:
    """Instants of the steps and of what they command, int64 ns."""

    observed_ns: npt.NDArray[np.int64]
    due_ns: npt.NDArray[np.int64]


def streams_of(
    steps: Steps, entry: OxeSet, facts: FactBook, rate_hz: Fraction
) -> tuple[Stream, ...]:
    """Every stream this episode supports.

    Raises:
        SourceError: a declared leaf is missing, has another shape, is not finite, or a pose is no rotation.
    """
    t_ns = instants_ns(steps.num_steps + 1, rate_hz)
    clock = _Clock(observed_ns=t_ns[:-1], due_ns=t_ns[1:])
    streams: list[Stream] = []
    untranslated: list[Slot] = []
    for side, arm in sorted(entry.arms.items()):
        arrays = read_arm(steps, arm)
        streams += _state_streams(side, arm, arrays, facts, clock)
        streams += _command_streams(side, arm, arrays, facts, clock, _means_something(steps))
        untranslated += _left_over(side, arm, facts)
    joints = _joints(steps, entry, facts, clock)
    if entry.joints is not None and not joints:
        untranslated += entry.joints.slots
    raw = [
        _vector(steps, "source_state", dict.fromkeys(slot.key for slot in untranslated), clock),
        _vector(steps, "raw_command", command_keys(steps, entry), clock, names=action_names(entry)),
    ]
    return (*streams, *joints, *(stream for stream in raw if stream is not None))


def _means_something(steps: Steps) -> Mask:
    """[T] False on the last step where the episode flags it: by the RLDS rule its action means nothing."""
    if not steps.has("is_last"):
        return np.ones(steps.num_steps, dtype=bool)
    return np.equal(steps.numbers("is_last"), 0)


def _state_form(side: str, facts: FactBook) -> str | None:
    """The rotation form of the eef state when everything a pose rests on is known."""
    form = facts.value(f"eef_rotation_form.{side}")
    has_metres = facts.value(f"eef_position_unit.{side}") == "m"
    return form if has_metres and facts.value(f"eef_frame.{side}") else None


def _state_streams(
    side: str, arm: ArmEntry, arrays: ArmArrays, facts: FactBook, clock: _Clock
) -> list[Stream]:
    out = []
    form = _state_form(side, facts)
    if form is not None and arrays.rotation is not None:
        T = eef_poses(arrays, form, where=f"{side} eef state")
        name = f"{side}.T_base_eef"
        out.append(Stream(spec=pose_channel(name), t_ns=clock.observed_ns, values=T))
    limits = facts.value(f"gripper_state_range.{side}")
    if limits is not None and arrays.gripper is not None and arm.gripper is not None:
        opening = gripper_opening(arrays.gripper, limits)
        spec = gripper_channel(f"{side}.gripper_opening", binary=arm.gripper.is_binary)
        out.append(Stream(spec=spec, t_ns=clock.observed_ns, values=opening[:, None]))
    return out


def gripper_opening(values: Array, limits: str) -> Array:
    """[T] opening in [0, 1] of raw gripper values, `limits` as written by `range_text`."""
    open_value, closed_value = range_of(limits)
    return np.clip((values - closed_value) / (open_value - closed_value), 0.0, 1.0)


def _command_streams(
    side: str,
    arm: ArmEntry,
    arrays: ArmArrays,
    facts: FactBook,
    clock: _Clock,
    valid: Mask,
) -> list[Stream]:
    out: list[Stream] = []
    if arm.command is None:
        return out
    valid = valid & ~_empty_first(arm.command, arrays, len(valid))
    target = _target(side, arm.command, arrays, facts)
    if target is not None:
        T, is_command = target
        spec = pose_channel(f"command.{side}.T_base_eef")
        out.append(Stream(spec=spec, t_ns=clock.due_ns, values=T, valid=_mask(valid & is_command)))
    op = facts.value(f"gripper_command.{side}")
    if op is not None and arrays.command_gripper is not None:
        opening = opening_from_command(arrays.command_gripper, op)
        spec = gripper_channel(f"command.{side}.gripper_opening", binary=op in BINARY_OPS)
        out.append(
            Stream(spec=spec, t_ns=clock.due_ns, values=opening[:, None], valid=_mask(valid))
        )
    return out


def _mask(valid: Mask) -> Mask:
    return np.array(valid, dtype=bool)


def _empty_first(command: CommandEntry, arrays: ArmArrays, count: int) -> Mask:
    """[T] True where the set's known all-zero first action stands (its observation is kept, its command is not)."""
    is_empty = np.zeros(count, dtype=bool)
    if command.is_first_empty:
        parts = [p for p in (arrays.command_position, arrays.command_rotation) if p is not None]
        is_empty[0] = bool(parts) and all(np.abs(part[0]).max() < EMPTY for part in parts)
    return is_empty


def _target(
    side: str, command: CommandEntry, arrays: ArmArrays, facts: FactBook
) -> tuple[Array, Mask] | None:
    """Commanded poses [T, 4, 4] and which are valid, or None when a fact they rest on is not known."""
    kind, form = (facts.value(f"action_{what}.{side}") for what in ("kind", "rotation_form"))
    state_form, where = _state_form(side, facts), f"{side} action"
    if form is None or state_form is None or arrays.command_position is None:
        return None
    if kind == "eef_absolute" and form != "none" and arrays.command_rotation is not None:
        T = poses(arrays.command_position, arrays.command_rotation, form, where=where)
        T = T if arrays.T_state_base is None else inverse(arrays.T_state_base) @ T
        return T, np.ones(len(T), dtype=bool)
    frame, scale = (facts.value(f"action_{what}.{side}") for what in ("frame", "scale"))
    if kind != "eef_delta" or frame is None or scale is None:
        return None
    how = DeltaCommand(
        scale_m=float(scale.split()[0]),
        scale_rad=command.rotation_scale_rad,
        form=None if form == "none" else form,
        frame=frame,
    )
    T_base_eef = eef_poses(arrays, state_form, where=where)
    return delta_targets(T_base_eef, arrays, how, where=where)


def _left_over(side: str, arm: ArmEntry, facts: FactBook) -> list[Slot]:
    """State slots that no canonical stream carries."""
    slots: list[Slot | None] = []
    if arm.eef is not None and _state_form(side, facts) is None:
        slots += eef_slots(arm.eef)
    if arm.gripper is not None and facts.value(f"gripper_state_range.{side}") is None:
        slots.append(arm.gripper.slot)
    return [slot for slot in slots if slot is not None]


def _joints(steps: Steps, entry: OxeSet, facts: FactBook, clock: _Clock) -> list[Stream]:
    if entry.joints is None or facts.value("joint_unit") != "rad":
        return []
    if any(f"{STEPS}{slot.key}" not in steps.leaves for slot in entry.joints.slots):
        return []
    values = np.concatenate([slot_values(steps, slot) for slot in entry.joints.slots], axis=1)
    spec = vector_channel("joint_position_rad", values.shape[1], Unit.RADIAN)
    return [Stream(spec=spec, t_ns=clock.observed_ns, values=values)]


def _vector(
    steps: Steps,
    channel: str,
    keys: Iterable[str],
    clock: _Clock,
    *,
    names: Mapping[tuple[str, int], str] = MappingProxyType({}),
) -> Stream | None:
    """One flat stream of whole leaves, each element named by its leaf and position; None without any."""
    kept = [key for key in keys if leaf_width(steps, key)]
    if not kept:
        return None
    values = np.concatenate([slot_values(steps, Slot(key=key)) for key in kept], axis=1)
    labels = [label for key in kept for label in element_names(key, leaf_width(steps, key), names)]
    spec = vector_channel(
        channel, values.shape[1], Unit.SOURCE, names=tuple(labels), hold=channel == "raw_command"
    )
    return Stream(spec=spec, t_ns=clock.observed_ns, values=values)
