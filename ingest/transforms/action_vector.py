"""From streams to the canonical vectors of design §3.3: state, action, what is valid, and what could not be named.

K timesteps. `action[k]` is the target for timestep k + 1: the commanded trajectory read at that instant where the source
has one, else the achieved next state. A part that is commanded and not measured is a slice too: its state half is a masked
filler. Poses are carried into `hand_xfz` by the embodiment's constant transform; a pose
whose axes are unknown stays beside the state as `source_eef_pose`, in the frame the source used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ingest.recipe import Recipe
from ingest.transforms.hand_validity import BITS
from ingest.transforms.hands import CanonicalHand
from ingest.transforms.resample import (
    Array,
    Mask,
    Samples,
    both_neighbours,
    holds_between,
    resample,
)
from ingest.transforms.time_grid import Instants
from schemas.action import ActionSpec, action_spec
from schemas.embodiment import UNKNOWN_EEF, Embodiment
from schemas.episode import SIDES, Episode, Stream
from schemas.fact import Fact
from schemas.geometry import position_of, rot6d_cols_from_rotmat, rotmat_of

# part of the state -> channel of the stream it comes from, and how to read it out of the stream's samples
_PARTS: dict[str, tuple[str, Callable[[Array], Array]]] = {
    "position_m": ("T_base_eef", position_of),
    "rot6d_cols": ("T_base_eef", lambda T: rot6d_cols_from_rotmat(rotmat_of(T))),
    "gripper_opening": ("gripper_opening", lambda v: v),
    "hand_keypoints_m": ("hand_keypoints_m", lambda v: v.reshape(len(v), -1)),
    "hand_joints_rad": ("hand_joints_rad", lambda v: v),
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NamedVector:
    """One numeric feature: `values` [K, n] float32 or bool with a name for each element."""

    values: np.ndarray[Any, np.dtype[Any]]
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Vectors:
    """The numeric half of a canonical episode."""

    spec: ActionSpec | None
    features: dict[str, NamedVector] = field(default_factory=dict)  # LeRobot feature name -> values
    observed: Mask  # [K] every observed slice is valid
    action_coverage: float  # share of timesteps whose whole action is valid
    action_source: str
    command_only: tuple[
        str, ...
    ] = ()  # slices without a measured state: `observation.valid` is False
    eef_frame: str  # hand_xfz | source | none
    facts: tuple[Fact, ...]


def pose9(T_a_b: Array) -> Array:
    """[K, 4, 4] to [K, 9]: position in metres, then rot6d_cols."""
    return np.concatenate([position_of(T_a_b), rot6d_cols_from_rotmat(rotmat_of(T_a_b))], axis=1)


_POSE9_NAMES = ("x", "y", "z", "xx", "xy", "xz", "yx", "yy", "yz")


class _SliceReader:
    """Reads an episode's streams on a grid, poses in `hand_xfz` where the embodiment allows it."""

    def __init__(self, episode: Episode, body: Embodiment, recipe: Recipe) -> None:
        self.episode, self.body, self.recipe = episode, body, recipe
        self._read: dict[str, Samples] = {}

    def sample(self, stream: Stream, at: Instants) -> Samples:
        """Each stream is read on one grid only, and once: position and rotation come from the same samples."""
        if stream.name not in self._read:
            gaps = {"gap_periods": self.recipe.gap_periods, "gap_ms": self.recipe.gap_ms}
            self._read[stream.name] = resample(stream, at, **gaps)
        return self._read[stream.name]

    def T_src_hand(self, side: str) -> Array | None:
        return self.body.arms.get(side, UNKNOWN_EEF).T_src_hand

    def part(self, name: str, at: Instants, *, command: bool = False) -> Samples | None:
        """The samples of `<side>.<part>`, or None when the episode has no such stream."""
        side, _, part = name.partition(".")
        channel, read = _PARTS[part]
        stream = self.episode.stream(f"{'command.' if command else ''}{side}.{channel}")
        if stream is None:
            return None
        samples = self.sample(stream, at)
        values = samples.values
        if channel == "T_base_eef":
            T_src_hand = self.T_src_hand(side)
            if T_src_hand is None:
                return None
            values = values @ T_src_hand
        return Samples(values=read(values), valid=samples.valid)


def canonical_vectors(
    episode: Episode,
    body: Embodiment,
    at: Instants,
    following: Instants,
    recipe: Recipe,
    hands: tuple[CanonicalHand, ...] = (),
) -> Vectors:
    """Resample, align and arrange one episode; `hands` is what `canonical_hands` says of its streams.

    Args:
        at: [K] int64 ns, the grid.
        following: [K] int64 ns, each grid instant's successor (the instant an action aims at).
    """
    reader = _SliceReader(episode, body, recipe)
    state = {
        f"{side}.{part}": samples
        for side in SIDES
        for part in _PARTS
        if (samples := reader.part(f"{side}.{part}", at)) is not None
    }
    state = {name: _as_hands_show(seen, name, hands, at) for name, seen in state.items()}
    commands = _commands(reader, following)
    masked = {name: _filler(name, commands[name]) for name in commands if name not in state}
    full = {**state, **masked}
    spec = action_spec((name, samples.values.shape[1]) for name, samples in full.items())
    extras = _extras(reader, at)
    raw = _raw_command(reader, at)
    features: dict[str, NamedVector] = {}
    sources: set[str] = set()
    coverage = 0.0
    observed = {**state, **extras}
    if spec is not None:
        actions = {}
        for part in spec.slices:
            target, source = _action(commands.get(part.name), state.get(part.name))
            actions[part.name] = _as_hands_allow(target, part.name, hands, at, following)
            sources.add(source)
        coverage = float(np.mean(np.all([s.valid for s in actions.values()], axis=0)))
        full = {part.name: full[part.name] for part in spec.slices}
        features["observation.state"] = _stack(spec, full)
        features["action"] = _stack(spec, actions)
        features["action.valid"] = _masks({**actions, **raw})
    if full or extras:
        features["observation.valid"] = _masks({**full, **extras})
    if hands:
        features["observation.hand_validity"] = _hand_bits(hands, at)
    features |= {f"observation.{name}": extra for name, extra in _named(reader, extras).items()}
    features |= {"action.raw": _named(reader, raw)["raw_command"]} if raw else {}
    if raw and spec is None:
        features["action.valid"] = _masks(raw)
    everything = np.ones(len(at), dtype=bool)
    has_hand = spec is not None and any("position_m" in s.name for s in spec.slices)
    return Vectors(
        spec=spec,
        features=features,
        observed=np.logical_and.reduce([everything, *(s.valid for s in observed.values())]),
        action_coverage=coverage,
        action_source=sources.pop() if len(sources) == 1 else "mixed" if sources else "none",
        command_only=tuple(masked),
        eef_frame="hand_xfz" if has_hand else "source" if _source_poses(reader) else "none",
        facts=tuple(
            fact
            for side in SIDES
            if episode.stream(f"{side}.T_base_eef") or f"{side}.position_m" in masked
            for fact in body.arms.get(side, UNKNOWN_EEF).facts(side)
        ),
    )


def _commands(reader: _SliceReader, following: Instants) -> dict[str, Samples]:
    """What the source commands, by slice, read at the instants that actions aim at."""
    return {
        f"{side}.{part}": samples
        for side in SIDES
        for part in _PARTS
        if (samples := reader.part(f"{side}.{part}", following, command=True)) is not None
    }


def _filler(name: str, command: Samples) -> Samples:
    """The state half of a slice that is not measured: no turn for a rotation, else 0, valid nowhere."""
    values = np.zeros_like(command.values)
    if name.endswith("rot6d_cols"):
        values[:] = rot6d_cols_from_rotmat(np.eye(3))
    return Samples(values=values, valid=np.zeros(len(values), dtype=bool))


def _action(command: Samples | None, state: Samples | None) -> tuple[Samples, str]:
    """The target of each timestep and whether it is commanded or achieved.

    It is valid only where both ends are; the state's end does not count where the source measures no state.
    """
    if command is not None:
        valid = command.valid if state is None else command.valid & state.valid
        return Samples(values=command.values, valid=valid), "commanded"
    if state is None:
        raise ValueError("an action slice has neither a command nor a state")
    last = [len(state.values) - 1]
    values = np.concatenate([state.values[1:], state.values[last]])
    valid = state.valid & np.concatenate([state.valid[1:], [False]])
    return Samples(values=values, valid=valid), "achieved"


def _hand_of(name: str, hands: tuple[CanonicalHand, ...]) -> CanonicalHand | None:
    return next((h for h in hands if name.startswith(f"{h.side}.")), None)


def _as_hands_show(
    seen: Samples, name: str, hands: tuple[CanonicalHand, ...], at: Instants
) -> Samples:
    """A hand is read between two samples only when both are believed: an occluded frame is no gap to be bridged."""
    hand = _hand_of(name, hands)
    if hand is None:
        return seen
    return Samples(
        values=seen.values, valid=seen.valid & both_neighbours(hand.t_ns, hand.believed, at)
    )


def _as_hands_allow(
    target: Samples, name: str, hands: tuple[CanonicalHand, ...], at: Instants, following: Instants
) -> Samples:
    """A hand's action needs every one of its samples up to the target's instant, and a frame that does not move.

    A hand that is in a moving camera has no action at all: its steps are the camera's too.
    """
    hand = _hand_of(name, hands)
    if hand is None:
        return target
    unbroken = holds_between(hand.t_ns, hand.believed, at, following)
    allowed = unbroken if hand.has_motion_removed else np.zeros(len(at), dtype=bool)
    return Samples(values=target.values, valid=target.valid & allowed)


def _hand_bits(hands: tuple[CanonicalHand, ...], at: Instants) -> NamedVector:
    """[K, 8 per hand] bool: each test at both samples around the timestep."""
    bits = [both_neighbours(hand.t_ns, hand.validity.bits, at) for hand in hands]
    names = tuple(f"{hand.side}.{bit}" for hand in hands for bit in BITS)
    return NamedVector(values=np.concatenate(bits, axis=1), names=names)


def _source_poses(reader: _SliceReader) -> list[str]:
    """Sides whose pose has to stay in the source's frame."""
    return [
        side
        for side in SIDES
        if reader.episode.stream(f"{side}.T_base_eef") is not None
        and reader.T_src_hand(side) is None
    ]


def _extras(reader: _SliceReader, at: Instants) -> dict[str, Samples]:
    """Observed quantities beside the state, by feature name without `observation.`."""
    out = {}
    for name in ("joint_position_rad", "source_state"):
        if (stream := reader.episode.stream(name)) is not None:
            out[name] = reader.sample(stream, at)
    poses = {f"source_eef_pose.{side}": f"{side}.T_base_eef" for side in _source_poses(reader)} | {
        f"camera_pose.{s.name.split('.', 1)[1]}": s.name
        for s in reader.episode.streams
        if s.name.startswith(("T_base_cam.", "T_world_cam."))
    }
    for name, channel in poses.items():
        stream = reader.episode.stream(channel)
        if stream is not None:
            samples = reader.sample(stream, at)
            out[name] = Samples(values=pose9(samples.values), valid=samples.valid)
    return out


def _raw_command(reader: _SliceReader, at: Instants) -> dict[str, Samples]:
    stream = reader.episode.stream("raw_command")
    return {} if stream is None else {"raw_command": reader.sample(stream, at)}


def _named(reader: _SliceReader, extras: dict[str, Samples]) -> dict[str, NamedVector]:
    out = {}
    for name, samples in extras.items():
        stream = reader.episode.stream(name)
        width = samples.values.shape[1]
        if stream is not None:
            names = stream.spec.names or tuple(f"{name}.{i}" for i in range(width))
        else:
            names = tuple(f"{name}.{axis}" for axis in _POSE9_NAMES)
        out[name] = NamedVector(values=samples.values.astype(np.float32), names=names)
    return out


def _stack(spec: ActionSpec, parts: dict[str, Samples]) -> NamedVector:
    values = np.concatenate([parts[s.name].values for s in spec.slices], axis=1)
    return NamedVector(values=values.astype(np.float32), names=spec.names)


def _masks(parts: dict[str, Samples]) -> NamedVector:
    """One bool per slice; the order of the names is the order of the slices."""
    return NamedVector(
        values=np.stack([s.valid for s in parts.values()], axis=1), names=tuple(parts)
    )
