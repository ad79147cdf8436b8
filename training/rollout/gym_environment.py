"""Any environment of the gymnasium interface, by a mapping file, as `training.rollout.loop.Steered`.

Only `reset(seed=...)`, `step(action)` and, where a camera asks for it, `render()` are called; `action_space` is used where it is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, cast

import numpy as np

from schemas.action import ActionSpec
from schemas.errors import ConfigError
from schemas.geometry import (
    Array,
    inverse,
    position_of,
    quat_xyzw_from_rotmat,
    rot6d_cols_from_rotmat,
    rotmat_from_quat_wxyz,
    rotmat_from_quat_xyzw,
    rotmat_from_rot6d_cols,
    rotmat_from_rotvec,
    rotmat_of,
    rotvec_from_rotmat,
    transform,
)
from training.policy.observation import Pixels, checked_images
from training.rollout.gym_mapping import (
    METRES,
    RADIANS,
    GymMapping,
    ReadOpening,
    ReadRotation,
    ReadVector,
    Side,
    WrittenRotation,
    check_mapping,
    value_at,
)

_WHERE = "--mapping"


class GymInterface(Protocol):
    """The part of `gymnasium.Env` that is used."""

    def reset(self, *, seed: int | None = None) -> tuple[Any, dict[str, Any]]: ...
    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]: ...
    def render(self) -> Any: ...
    def close(self) -> None: ...


def make_gym(env_id: str) -> GymInterface:
    """`gymnasium.make`; `module:Name-v0` imports the module first.

    Raises:
        ConfigError: gymnasium is not installed, or does not know the environment.
    """
    try:
        import gymnasium
    except ImportError as error:
        problem = f"no gymnasium ({error})"
        raise ConfigError(
            problem, remedy="pip install -c constraints.txt 'eicorpus[sim]'", where="--env"
        ) from error
    try:
        return cast(GymInterface, gymnasium.make(env_id, render_mode="rgb_array"))
    except (gymnasium.error.Error, ImportError) as error:
        raise ConfigError(f"gymnasium: {error}"[:400], where=f"--env gym:{env_id}") from error


class GymEnvironment:
    """An environment with its mapping.

    Args:
        spec: the layout in which the policy acts for the mapping's embodiment. rate_hz: timesteps of the policy a second.

    Raises:
        ConfigError: the mapping lacks something of `spec` or of the action; see `check_mapping`.
    """

    def __init__(
        self, env: GymInterface, mapping: GymMapping, spec: ActionSpec, *, rate_hz: float
    ) -> None:
        space = getattr(env, "action_space", None)
        shape = getattr(space, "shape", None)
        if space is not None and (shape is None or len(shape) != 1):
            problem = f"the action space is {space}; expected a vector"
            raise ConfigError(problem[:400], where="--env")
        check_mapping(mapping, spec, rate_hz=rate_hz, num_elements=shape[0] if shape else None)
        self._env, self._mapping = env, mapping
        self._low, self._high = getattr(space, "low", -np.inf), getattr(space, "high", np.inf)
        self._width = shape[0] if shape else 1 + max(_places(mapping))
        self._steps = round(mapping.control_hz / rate_hz)
        self._T_env_base = inverse(mapping.base.matrix)
        self._T_tool_hand = {side: mapping.T_tool_hand(side) for side in mapping.hands}
        self._observed: Mapping[str, Any] = {}
        self._in_force: Array = np.zeros(spec.width)
        self.spec, self.embodiment, self.instruction = spec, mapping.embodiment, mapping.instruction
        self.is_success = self.is_over = False

    def reset(self, seed: int) -> None:
        observed, _ = self._env.reset(seed=seed)
        self._observed = _checked(observed)
        self.is_success = self.is_over = False
        self._in_force = self.state()

    def shown(self) -> dict[str, Pixels]:
        out = {}
        for camera, mapped in self._mapping.cameras.items():
            is_drawn = mapped.key == "render"
            seen = self._env.render() if is_drawn else value_at(self._observed, mapped.key)
            images = checked_images(np.asarray(seen)[None], camera)[0]
            out[camera] = np.ascontiguousarray(images[::-1] if mapped.is_upside_down else images)
        return out

    def state(self) -> Array:
        out = np.zeros(self.spec.width)
        for part in self.spec.slices:
            side, name = part.name.split(".")
            value = self._read(cast(Side, side), name)
            at = self.spec.slice(part.name)
            if value.shape != (at.stop - at.start,):
                problem = (
                    f"{part.name} reads {list(value.shape)}; expected {at.stop - at.start} numbers"
                )
                raise ConfigError(problem, where=_WHERE)
            out[at] = value
        return out

    def in_force(self) -> Array:
        return self._in_force

    def carry_out(self, target: Array) -> None:
        """The same target for every step of the environment in a timestep; deltas are taken anew from what is measured then."""
        for _ in range(self._steps):
            action = np.clip(self.action_of(target), self._low, self._high).astype(np.float32)
            observed, _, is_terminated, is_truncated, info = self._env.step(action)
            self._observed = _checked(observed)
            self.is_success |= bool(value_at(info, self._mapping.success.info))
            self.is_over = bool(is_terminated or is_truncated)
            if self.is_over or self.is_success:
                break
        self._in_force = np.array(target, dtype=np.float64)

    def action_of(self, target: Array) -> Array:
        """[n] the environment's action towards the target [A], from the pose that is measured now."""
        action = np.zeros(self._width)
        for index, number in self._mapping.constant.items():
            action[index] = number
        names = {part.name for part in self.spec.slices}
        for side, hand in self._mapping.hands.items():
            written = hand.action
            if f"{side}.position_m" in names:
                T_base_hand = transform(
                    rotmat_from_rot6d_cols(target[self.spec.slice(f"{side}.rot6d_cols")]),
                    target[self.spec.slice(f"{side}.position_m")],
                )
                T_goal = self._T_env_base @ T_base_hand @ inverse(self._T_tool_hand[side])
                self._write_pose(action, side, T_goal)
            if written.gripper_opening is not None and f"{side}.gripper_opening" in names:
                opening = float(target[self.spec.slice(f"{side}.gripper_opening")][0])
                place = written.gripper_opening
                action[slice(*place.at)] = place.shut + opening * (place.open - place.shut)
            if written.hand_joints_rad is not None and f"{side}.hand_joints_rad" in names:
                joints = target[self.spec.slice(f"{side}.hand_joints_rad")]
                action[slice(*written.hand_joints_rad.at)] = (
                    joints / RADIANS[written.hand_joints_rad.unit]
                )
        return action

    def _write_pose(self, action: Array, side: Side, T_goal: Array) -> None:
        """T_goal: [4, 4] of the tool in the environment's frame."""
        written, T_now = self._mapping.hands[side].action, self._tool(side)
        if written.position_m is not None:
            goal_m = position_of(T_goal)
            if written.position_m.form == "delta":
                goal_m = goal_m - position_of(T_now)
            action[slice(*written.position_m.at)] = goal_m / written.position_m.unit_m
        if written.rotation is not None and written.rotation.at is not None:
            turn = _turn(written.rotation, rotmat_of(T_goal), rotmat_of(T_now))
            action[slice(*written.rotation.at)] = turn

    def _tool(self, side: Side) -> Array:
        """[4, 4] of the tool in the environment's frame, as measured."""
        state = self._mapping.hands[side].state
        assert state.position_m is not None  # check_mapping
        assert state.rotation is not None
        position_m = self._vector(state.position_m) * METRES[state.position_m.unit]
        return transform(self._rotation(state.rotation), position_m)

    def _read(self, side: Side, name: str) -> Array:
        state = self._mapping.hands[side].state
        if name in ("position_m", "rot6d_cols"):
            T = self._mapping.base.matrix @ self._tool(side) @ self._T_tool_hand[side]
            is_place = name == "position_m"
            return position_of(T) if is_place else rot6d_cols_from_rotmat(rotmat_of(T))
        if name == "gripper_opening" and state.gripper_opening is not None:
            return np.array([self._opening(state.gripper_opening)])
        assert state.hand_joints_rad is not None  # check_mapping
        return self._vector(state.hand_joints_rad) * RADIANS[state.hand_joints_rad.unit]

    def _opening(self, read: ReadOpening) -> float:
        mean = float(self._vector(read).mean())
        return float(np.clip((mean - read.shut) / (read.open - read.shut), 0.0, 1.0))

    def _rotation(self, read: ReadRotation) -> Array:
        values = self._vector(read)
        match read.form:
            case "quat_wxyz":
                return rotmat_from_quat_wxyz(values)
            case "quat_xyzw":
                return rotmat_from_quat_xyzw(values)
            case "rotvec_rad":
                return rotmat_from_rotvec(values)
        return values.reshape(3, 3)

    def _vector(self, read: ReadVector) -> Array:
        """[n] float64.

        Raises:
            ConfigError: no such key, or no finite numbers.
        """
        values = np.atleast_1d(np.asarray(value_at(self._observed, read.key)))
        if values.dtype.kind not in "fiu" or not np.isfinite(values).all():
            raise ConfigError(f"{read.key!r} holds no finite numbers", where=_WHERE)
        values = values.astype(np.float64).ravel()
        return values if read.at is None else values[slice(*read.at)]


def _turn(written: WrittenRotation, R_goal: Array, R_now: Array) -> Array:
    """The rotation as the environment has it: a delta is in the environment's frame, R_goal R_now^T."""
    match written.form:
        case "delta_rotvec":
            return rotvec_from_rotmat(R_goal @ R_now.T) / written.unit_rad
        case "rotvec":
            return rotvec_from_rotmat(R_goal) / written.unit_rad
        case "quat_wxyz":
            return np.roll(quat_xyzw_from_rotmat(R_goal), 1)
    return quat_xyzw_from_rotmat(R_goal)


def _places(mapping: GymMapping) -> list[int]:
    ends = list(mapping.constant)
    for hand in mapping.hands.values():
        for name in type(hand.action).model_fields:
            place = getattr(hand.action, name)
            if place is not None and place.at is not None:
                ends.append(place.at[1] - 1)
    return ends


def _checked(observed: Any) -> Mapping[str, Any]:
    """A plain array is the observation `observation`."""
    return observed if isinstance(observed, Mapping) else {"observation": observed}
