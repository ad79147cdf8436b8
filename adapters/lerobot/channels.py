"""From the rows of a LeRobot episode to canonical streams, by the declared mapping.

What a mapping does not cover stays in the source's own words: state elements in `source_state`, the whole action vector
in `raw_command`. An action that equals the state row for row was never commanded: it is dropped and a fact says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from adapters.containers.lerobot_meta import SetInfo
from adapters.containers.lerobot_table import TableRows
from adapters.lerobot.mapping import AnyChannel, GripperChannel, JointChannel, PoseChannel
from adapters.lerobot.places import (
    SetMeta,
    Where,
    action_columns,
    parts_of,
    resolve,
    state_columns,
)
from adapters.lerobot.raw_vectors import Place, declared_of, raw_vectors
from schemas.declared import Declared
from schemas.episode import Stream, Unit, gripper_channel, pose_channel, vector_channel
from schemas.errors import Code, SourceError
from schemas.fact import Certainty, Fact
from schemas.geometry import ROTMAT_FROM, transform

Array = npt.NDArray[np.float64]
Clock = npt.NDArray[np.int64]

# A stored quaternion is unit to about 1e-6; 5 % off means that the slice is something else.
QUAT_NORM_TOLERANCE = 0.05


@dataclass(slots=True)
class _Built:
    streams: dict[str, Stream] = field(default_factory=dict)
    raw: dict[str, Array] = field(
        default_factory=dict
    )  # the columns behind a stream, for the copy check
    used: set[Place] = field(default_factory=set)
    commanded: set[Place] = field(default_factory=set)  # those of `used` that are commands
    facts: list[Fact] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeRobotMotion:
    """The streams of an episode, the facts about them, and what the set declares of its numbers."""

    streams: tuple[Stream, ...]
    facts: tuple[Fact, ...]
    declared: tuple[Declared, ...]


def needed_columns(meta: SetMeta) -> tuple[str, ...]:
    """Every column that `motion_of` may read."""
    parts = [p for c in (meta.mapping.channels if meta.mapping else ()) for p in parts_of(c)]
    columns = [where.column for p in parts if (where := resolve(meta, p))]
    return tuple(dict.fromkeys([*state_columns(meta), *action_columns(meta), *columns]))


def motion_of(rows: TableRows, t_ns: Clock, due_ns: Clock, meta: SetMeta) -> LeRobotMotion:
    """What moves in an episode.

    Args:
        rows: N rows with the columns of `needed_columns`.
        t_ns: [N] when a row was taken; due_ns: [N] when what it commands is due.

    Raises:
        SourceError: MISSING_CHANNEL, SHAPE_MISMATCH, NOT_FINITE, NOT_A_ROTATION.
    """
    built = _Built()
    for channel in meta.mapping.channels if meta.mapping else ():
        _add(built, channel, rows, t_ns, due_ns, meta)
    if meta.mapping is None:
        built.facts.append(_unknown_layout(meta.info))
    else:
        built.facts += meta.mapping.facts
    copied = _copied(built, rows, meta)
    if copied:
        built.streams = {n: s for n, s in built.streams.items() if not n.startswith("command.")}
        built.facts = [f for f in built.facts if f.name != "action_kind"]
        built.facts.append(
            Fact(
                name="action_source",
                value="achieved",
                certainty=Certainty.VERIFIED,
                source="the action columns equal the state columns in every row of this episode",
            )
        )
    raw = raw_vectors(rows, meta).without(used=built.used, copied=copied)
    return LeRobotMotion(
        streams=(*built.streams.values(), *raw.streams(rows, t_ns)),
        facts=_weakest(built.facts),
        declared=declared_of(meta, raw, used=built.used, copied=copied),
    )


def _add(
    built: _Built, channel: AnyChannel, rows: TableRows, t_ns: Clock, due_ns: Clock, meta: SetMeta
) -> None:
    """Put the stream of `channel` into `built`, or the reason why not."""
    if channel.channel in built.streams:
        return
    places = [resolve(meta, part) for part in parts_of(channel)]
    present = [p for p in places if p is not None]
    if len(present) < len(places):
        if channel.optional:
            return
        missing = [p for p, place in zip(parts_of(channel), places, strict=True) if place is None]
        message = f"column {missing} for {channel.channel} is missing; info.json has {sorted(meta.info.features)}"
        raise SourceError(Code.MISSING_CHANNEL, message, where=rows.where)
    if not _applies(channel, present):
        return
    if channel.certainty is Certainty.UNKNOWN:
        built.facts.append(_fact_of(channel))
        return
    if channel.channel.startswith("command."):
        kind = _action_kind(channel, present)
        built.facts.append(kind)
        if kind.value == "delta":
            return
    raw = np.concatenate([_take(rows, p) for p in present], axis=1)
    clock = due_ns if channel.channel.startswith("command.") else t_ns
    built.streams[channel.channel] = _stream(channel, present, raw, clock, rows.where)
    built.raw[channel.channel] = raw
    elements = {(p.column, i) for p in present for i in p.indices}
    built.used |= elements
    if channel.channel.startswith("command."):
        built.commanded |= elements
    built.facts.append(_fact_of(channel))


def _applies(channel: AnyChannel, places: list[Where]) -> bool:
    if isinstance(channel, PoseChannel):
        span = places[1].span
        is_type = channel.rotation_type is None or (
            span is not None and span.rotation_type == channel.rotation_type
        )
        return is_type and channel.names_match(places[1].names)
    return channel.names_match(tuple(n for p in places for n in p.names))


def _take(rows: TableRows, where: Where) -> Array:
    values = rows.matrix(where.column)
    if max(where.indices) >= values.shape[1]:
        problem = f"{where.column} has {values.shape[1]} elements; expected at least {max(where.indices) + 1}"
        raise SourceError(Code.SHAPE_MISMATCH, problem, where=rows.where)
    return values[:, list(where.indices)]


def _stream(
    channel: AnyChannel, places: list[Where], raw: Array, t_ns: Clock, where: str
) -> Stream:
    at = f"{where}:{channel.channel}"
    if isinstance(channel, PoseChannel):
        return Stream(
            spec=pose_channel(channel.channel), t_ns=t_ns, values=_poses(channel, raw, at)
        )
    if isinstance(channel, GripperChannel):
        if raw.shape[1] != channel.jaws:
            message = f"{raw.shape[1]} elements; expected {channel.jaws}"
            raise SourceError(Code.SHAPE_MISMATCH, message, where=at)
        x = raw.sum(axis=1, keepdims=True)
        values = np.clip(channel.scale * x + channel.offset, 0.0, 1.0)
        spec = gripper_channel(channel.channel, binary=channel.binary)
        return Stream(spec=spec, t_ns=t_ns, values=values)
    return _joints(channel, places, raw, t_ns, at)


def _joints(channel: JointChannel, places: list[Where], raw: Array, t_ns: Clock, at: str) -> Stream:
    if channel.joints and len(channel.joints) != raw.shape[1]:
        message = f"{raw.shape[1]} numbers; the mapping lists {len(channel.joints)} joints"
        raise SourceError(Code.SHAPE_MISMATCH, message, where=at)
    keys = [part.modality or part.column or "" for part in channel.parts]
    # A modality key says more than "motor_7".
    labels = [
        tuple(f"{key}.{i}" for i in range(len(p.indices))) if p.span else p.labels(key)
        for key, p in zip(keys, places, strict=True)
    ]
    names = channel.joints or tuple(n for part in labels for n in part)
    spec = vector_channel(channel.channel, raw.shape[1], Unit.RADIAN, names=names)
    return Stream(spec=spec, t_ns=t_ns, values=raw * channel.radians_per_unit)


def _poses(channel: PoseChannel, raw: Array, at: str) -> Array:
    """[N, 3 + k] position and rotation to [N, 4, 4]; NaN is left for the stream to report."""
    if raw.shape[1] != 3 + channel.rotation_width:
        problem = (
            f"{raw.shape[1]} numbers; expected 3 and {channel.rotation_width} for {channel.form}"
        )
        raise SourceError(Code.SHAPE_MISMATCH, problem, where=at)
    if not np.isfinite(raw).all():
        row = int(np.flatnonzero(~np.isfinite(raw).all(axis=1))[0])
        raise SourceError(Code.NOT_FINITE, f"NaN or infinity in row {row}", where=at)
    rotation = raw[:, 3:]
    if channel.form.startswith("quat"):
        off = np.abs(np.linalg.norm(rotation, axis=1) - 1.0)
        if off.max() > QUAT_NORM_TOLERANCE:
            problem = (
                f"norm {1 + off.max():.3g} or its mirror in row {int(off.argmax())}; expected 1"
            )
            raise SourceError(Code.NOT_A_ROTATION, f"quaternion of {problem}", where=at)
    return transform(ROTMAT_FROM[channel.form](rotation), raw[:, :3] * channel.metres_per_unit)


def _copied(built: _Built, rows: TableRows, meta: SetMeta) -> set[Place]:
    """Elements of the action that are the state again, bit for bit: of the whole vector, or of every commanded channel.

    A robot that stands still proves nothing, so something must have moved.
    """
    pairs = [
        (raw, built.raw.get(name.removeprefix("command.")))
        for name, raw in built.raw.items()
        if name.startswith("command.")
    ]
    state = [rows.matrix(c) for c in state_columns(meta)]
    action = {c: rows.matrix(c) for c in action_columns(meta)}
    out = set(built.commanded) if _are_copies(pairs) else set()
    if state and action:
        whole = (np.concatenate(list(action.values()), axis=1), np.concatenate(state, axis=1))
        if _are_copies([whole]):
            out |= {(c, i) for c, values in action.items() for i in range(values.shape[1])}
    return out


def _are_copies(pairs: list[tuple[Array, Array | None]]) -> bool:
    same = all(b is not None and np.array_equal(a, b) for a, b in pairs)
    return same and any(bool(np.any(a != a[0])) for a, _ in pairs)


def _weakest(facts: Iterable[Fact]) -> tuple[Fact, ...]:
    """One fact per name, the least certain: the two arms of a robot may be known unequally well."""
    order = list(Certainty)
    out: dict[str, Fact] = {}
    for fact in facts:
        known = out.get(fact.name)
        if known is None or order.index(fact.certainty) > order.index(known.certainty):
            out[fact.name] = fact
    return tuple(out.values())


def _unknown_layout(info: SetInfo) -> Fact:
    return Fact(
        name="action_layout",
        value="unknown",
        certainty=Certainty.UNKNOWN,
        source=f"no mapping declares what the columns of robot_type {info.robot_type!r} mean",
    )


def _action_kind(channel: AnyChannel, places: list[Where]) -> Fact:
    spans = [p.span for p in places if p.span is not None]
    if any(s.absolute is False for s in spans):
        return Fact(
            name="action_kind",
            value="delta",
            certainty=Certainty.DOCUMENTED,
            source=f"modality.json says {channel.channel} is not absolute; kept as raw_command only",
            is_for_actions=False,
        )
    if spans and any(s.absolute is None for s in spans):
        source = "modality.json does not say; absolute is the default of the GR00T schema"
        return Fact(
            name="action_kind", value="absolute", certainty=Certainty.UNVERIFIED, source=source
        )
    certainty = Certainty.DOCUMENTED if spans else channel.certainty
    source = "modality.json: absolute" if spans else channel.source
    return Fact(name="action_kind", value="absolute", certainty=certainty, source=source)


def _fact_of(channel: AnyChannel) -> Fact:
    """What was assumed about a channel. An unknown command is not emitted, so it can corrupt nothing."""
    is_command = channel.channel.startswith("command.")
    side = channel.channel.removeprefix("command.").partition(".")[0]
    prefix = "command_" if is_command else ""
    is_unknown = channel.certainty is Certainty.UNKNOWN
    if isinstance(channel, PoseChannel):
        name, value = f"{prefix}eef_rotation_form.{side}", channel.form
    elif isinstance(channel, GripperChannel):
        value = f"opening = clip({channel.scale:g} x + {channel.offset:g}, 0, 1)"
        name = f"{prefix}gripper_polarity.{side}"
    else:
        name, value = f"joint_unit.{channel.channel}", f"{channel.radians_per_unit:g} rad"
    is_body = channel.channel.endswith("joint_position_rad")
    return Fact(
        name=name,
        value="unknown" if is_unknown else value,
        certainty=channel.certainty,
        source=channel.source,
        is_for_actions=not is_body and not (is_unknown and is_command),
    )
