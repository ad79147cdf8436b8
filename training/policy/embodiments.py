"""Conversion between a corpus' absolute vectors in an embodiment's layout and the trained representation, and from predicted motions to poses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.action import ActionSpec, action_spec
from schemas.episode import SIDES
from schemas.errors import ConfigError
from schemas.geometry import (
    Array,
    geodesic_rad,
    position_of,
    rot6d_cols_from_rotmat,
    rotmat_from_rot6d_cols,
    rotmat_from_rotvec,
    rotmat_of,
    transform,
)
from schemas.trained_action import AS_STORED, Named, trained_action
from training.data.action_layout import ACTION_WIDTH, LATENT_BODY, part_slots, slots_of
from training.data.normalise import Normaliser
from training.data.recording import state_vector

_HALF_TURN = np.diag([1.0, -1.0, -1.0])  # about x, the approach of `hand_xfz`


def integrated(motions: npt.ArrayLike, T_now: npt.ArrayLike | None = None) -> Array:
    """Where K motions lead, one after the other.

    Args:
        motions: [..., K, 6] position in metres and rotation vector in radians of each, seen from the hand before it.
        T_now: [..., 4, 4] pose that the first starts from; None is the identity, so that poses are seen from the hand of now.

    Returns:
        [..., K, 4, 4] pose after each motion.
    """
    steps = np.asarray(motions, dtype=np.float64)
    dT_body = transform(rotmat_from_rotvec(steps[..., 3:]), steps[..., :3])
    out = np.empty_like(dT_body)
    T = np.eye(4) if T_now is None else np.asarray(T_now, dtype=np.float64)
    for k in range(steps.shape[-2]):
        T = T @ dT_body[..., k, :, :]
        out[..., k, :, :] = T
    return out


def unbroken(valid: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """[..., K] up to which motion a pose is known: after an unknown motion it is not, even where motions are known again."""
    return np.logical_and.accumulate(valid, axis=-1)


def position_error_m(T_a: Array, T_b: Array) -> Array:
    """[...] mean over the three axes of the absolute difference of positions [..., 4, 4], metres."""
    return np.asarray(np.abs(position_of(T_a) - position_of(T_b)).mean(axis=-1))


def rotation_error_rad(T_a: Array, T_b: Array, *, is_symmetric: npt.ArrayLike = False) -> Array:
    """[...] angle between poses [..., 4, 4], radians in [0, pi].

    Args:
        is_symmetric: [...] bool, or one for all: a parallel gripper that is turned by half a turn about its approach (x of
            `hand_xfz`) grasps the same. The smaller of the two angles counts then, which is at most pi / 2 about x.
    """
    R_a, R_b = rotmat_of(T_a), rotmat_of(T_b)
    plain = geodesic_rad(R_a, R_b)
    turned = geodesic_rad(R_a @ _HALF_TURN, R_b)
    return np.where(np.asarray(is_symmetric, dtype=bool), np.minimum(plain, turned), plain)


Mask = npt.NDArray[np.bool_]
_WHERE = "observation"
_MAX_VALUE = 1e6  # of a metre, a radian: what is larger is no reading


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyEmbodiment:
    """An embodiment that acts. `number`: of its adapter; `spec`: the layout of its absolute vectors; `not_measured`: slices of it that are
    masked in a state, because training never saw them measured (`episodes.command_only`)."""

    name: str
    number: int
    spec: ActionSpec
    not_measured: frozenset[str] = frozenset()

    def history(self, commands: npt.NDArray[Any] | None, length: int) -> tuple[Array, Mask]:
        """[length, 172] motions and targets that lead to now, and which of them are known.

        Args:
            commands: [h, A] absolute targets, the last in force now; h - 1 rows come of them.

        Raises:
            ConfigError: another width, or not finite.
        """
        values, valid = np.zeros((length, ACTION_WIDTH)), np.zeros((length, ACTION_WIDTH), bool)
        targets = self.checked(commands, "history")
        if targets is None or length == 0 or len(targets) < 2:
            return values, valid
        targets = targets[-length - 1 :]
        target = trained_action(
            action=Named(values=targets[1:], names=self.spec.names),
            action_valid=self._all_valid(len(targets) - 1),
            state=Named(values=targets[:-1], names=self.spec.names),
            state_valid=self._all_valid(len(targets) - 1),
        )
        at = slots_of(target.names, where=f"embodiment {self.name}")
        values[-len(target.values) :, at], valid[-len(target.values) :, at] = (
            target.values,
            target.valid,
        )
        return values, valid

    def state(self, values: npt.NDArray[Any] | None) -> npt.NDArray[np.float32]:
        """[52] of `training/data/recording.py`; slices that are `not_measured` are 0, as in training.

        Raises:
            ConfigError: none is given, and the network was trained with one.
        """
        measured = self.checked(values, "state", unread=self.not_measured)
        if measured is None:
            problem = "no state in the observation; the network was trained with one"
            raise ConfigError(
                f"{problem}; expected {self.spec.width} measured values",
                remedy=f"send them as `state`, in the order of {', '.join(self.spec.names)}",
                where=_WHERE,
            )
        now = Named(values=measured[-1:], names=self.spec.names)
        return np.asarray(state_vector(now, self._all_valid(1))[0])

    def absolute(self, values: Array, history: npt.NDArray[Any] | None) -> Array:
        """[K, A] targets of a chunk [K, 172] in metres, radians and fractions; poses go on from the last of the history."""
        now = self.checked(history, "history")
        out = np.zeros((len(values), self.spec.width))
        names = {part.name for part in self.spec.slices}
        for side in SIDES:
            if f"{side}.position_m" in names:
                motions = values[:, _motion_slots(side)]
                T = integrated(motions, None if now is None else self._pose(now[-1], side))
                out[:, self.spec.slice(f"{side}.position_m")] = position_of(T)
                turn = rot6d_cols_from_rotmat(rotmat_of(T))
                out[:, self.spec.slice(f"{side}.rot6d_cols")] = turn
            for part in AS_STORED:
                if f"{side}.{part}" in names:
                    at = self.spec.slice(f"{side}.{part}")
                    slots = part_slots(f"{side}.{part}")[: at.stop - at.start]
                    out[:, at] = values[:, slots]
        return out

    def checked(
        self,
        rows: npt.NDArray[Any] | None,
        what: str,
        *,
        unread: frozenset[str] = frozenset(),
    ) -> Array | None:
        """[h, A] float64.

        Args:
            unread: slices that may hold anything; they are 0 in what is returned.

        Raises:
            ConfigError: another width, not finite, or a rotation that is none.
        """
        if rows is None or not np.size(rows):
            return None
        values = np.atleast_2d(np.asarray(rows))
        if values.dtype.kind not in "fiu" or values.ndim != 2 or values.shape[1] != self.spec.width:
            problem = f"{what} {values.dtype} {list(values.shape)}"
            expected = f"[h, {self.spec.width}] of {', '.join(s.name for s in self.spec.slices)}"
            raise ConfigError(f"{problem}; expected numbers {expected}", where=_WHERE)
        values = values.astype(np.float64)
        for name in unread:
            values[:, self.spec.slice(name)] = 0
        if not (np.abs(values) < _MAX_VALUE).all():  # NaN is not less either
            raise ConfigError(f"{what} contains NaN, infinity or values out of range", where=_WHERE)
        for part in self.spec.slices:
            if part.name.endswith(".rot6d_cols") and part.name not in unread:
                self._check_turns(values[:, self.spec.slice(part.name)], f"{what} {part.name}")
        return values

    def _check_turns(self, turns: Array, what: str) -> None:
        x, y = turns[:, :3], turns[:, 3:]
        if (np.linalg.norm(np.cross(x, y), axis=1) < 0.1).any():
            problem = f"{what} is not a rotation; two orthogonal columns of length 1"
            raise ConfigError(f"{problem} are expected", where=_WHERE)

    def _pose(self, vector: Array, side: str) -> Array:
        rotmat = rotmat_from_rot6d_cols(vector[self.spec.slice(f"{side}.rot6d_cols")])
        return transform(rotmat, vector[self.spec.slice(f"{side}.position_m")])

    def _all_valid(self, count: int) -> Named:
        names = tuple(part.name for part in self.spec.slices)
        return Named(values=np.ones((count, len(names))), names=names)


def _motion_slots(side: str) -> npt.NDArray[np.int64]:
    return np.concatenate(
        [part_slots(f"{side}.delta_position_m"), part_slots(f"{side}.delta_rotvec_rad")]
    )


def embodiments_of(
    normaliser: Normaliser, measured_state: Mapping[str, Sequence[str]]
) -> dict[str, PolicyEmbodiment]:
    """The bodies that a policy can act for: those of whose actions the manifest had statistics.

    Args:
        measured_state: see `CheckpointState`.
    """
    out = {}
    for number, name in enumerate(normaliser.embodiments):
        if name == LATENT_BODY:
            continue
        spec = _spec_of(normaliser.is_known[number].cpu().numpy())
        if spec is not None:
            slices = {part.name for part in spec.slices}
            not_measured = slices.difference(measured_state.get(name, slices))
            out[name] = PolicyEmbodiment(
                name=name, number=number, spec=spec, not_measured=frozenset(not_measured)
            )
    return out


def _spec_of(is_known: Mask) -> ActionSpec | None:
    parts: list[tuple[str, int]] = []
    for side in SIDES:
        if is_known[_motion_slots(side)].any():
            parts += [(f"{side}.position_m", 3), (f"{side}.rot6d_cols", 6)]
        for part in AS_STORED:
            known = np.flatnonzero(is_known[part_slots(f"{side}.{part}")])
            if len(known):
                parts.append((f"{side}.{part}", int(known[-1]) + 1))
    return action_spec(parts)
