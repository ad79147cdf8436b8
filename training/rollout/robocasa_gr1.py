"""RoboCasa-GR1's tabletop tasks: its keys and its 44 joints, and an environment for the loop where the caller solves the arms' joints.

    from training.rollout.robocasa_gr1 import Gr1Environment     # in the environment that has robocasa
    env = gymnasium.make("gr1_unified/PnPCupToDrawerClose_GR1ArmsAndWaistFourierHands_Env")
    closed_loop(policy, Gr1Environment(env, arms, spec, "GR1ArmsAndWaist"), seed, horizon, task="PnPCupToDrawerClose")

A policy of a corpus says where hands go, the simulator wants joint angles: `arms` knows the URDF. Order of joints: `meta/modality.json` of
GR00T's demonstration set (Jerryisqx/Isaac-GR00T@1452df44:demo_data/robot_sim.PickNPlace). Keys: robocasa/robocasa-gr1-tabletop-tasks@4840e671:
robocasa/utils/gym_utils/gymnasium_groot.py (observation, action, instruction), robocasa/models/robots/__init__.py (`*KeyConverter`: which
parts a robot moves; the others are recorded as 0), gymnasium_basic.py (absolute targets, `success` in info). A hand is four fingers, the
thumb's bend and its turn, in states as in actions: states are reversed there, and robosuite@02779c5f:robosuite/models/grippers/
fourier_hands.py takes actions in that order. `reconstruct_latest_actions` records finger 0 for finger 1; all four are sent the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from schemas.action import ActionSpec
from schemas.embodiment import embodiment_for
from schemas.errors import ConfigError
from schemas.geometry import (
    Array,
    inverse,
    position_of,
    rot6d_cols_from_rotmat,
    rotmat_from_rot6d_cols,
    rotmat_of,
    transform,
)
from training.policy.observation import Pixels, checked_images

EMBODIMENT, CAMERA = "fourier_gr1", "ego_view"
WIDTHS = {
    "left_arm": 7,
    "left_hand": 6,
    "left_leg": 6,
    "neck": 3,
    "right_arm": 7,
    "right_hand": 6,
    "right_leg": 6,
    "waist": 3,
}
WIDTH = sum(WIDTHS.values())
_ARMS_AND_HANDS = ("left_arm", "left_hand", "right_arm", "right_hand")
ROBOTS: dict[str, tuple[str, ...]] = {
    "GR1ArmsOnly": _ARMS_AND_HANDS,
    "GR1ArmsAndWaist": (*_ARMS_AND_HANDS, "waist"),
    "GR1FixedLowerBody": (*_ARMS_AND_HANDS, "waist", "neck"),
}
VIDEO_KEYS = ("video.ego_view_pad_res256_freq20", "video.ego_view")
TEXT_KEYS = ("annotation.human.coarse_action", "annotation.human.action.task_description")
TEXT_MARKS = ("locked_waist: ", "unlocked_waist: ")
CONTROL_HZ = 20
# Of a hand: schemas/embodiments.yaml, fourier_gr1; the turn of the thumb stays.
HAND_OPEN, HAND_SHUT = (-1.5, -1.5, -1.5, -1.5, -3.0, 3.0), (1.5, 1.5, 1.5, 1.5, 3.0, 3.0)
SHUT_RAD = 1.47  # of the first finger, shut: the median of the largest angles in the five episodes
_WHERE = "RoboCasa-GR1"
Side = Literal["left", "right"]
SIDES: tuple[Side, ...] = ("left", "right")


def slice_of(part: str) -> slice:
    """Where a part lies in the 44 joints."""
    names = list(WIDTHS)
    start = sum(WIDTHS[name] for name in names[: names.index(part)])
    return slice(start, start + WIDTHS[part])


def joint_names(kind: Literal["state", "action"]) -> tuple[str, ...]:
    """[44] as a corpus calls them: `state.left_arm.0`, ..."""
    return tuple(f"{kind}.{part}.{i}" for part, width in WIDTHS.items() for i in range(width))


def joints_of(observation: Mapping[str, Any], robot: str) -> Array:
    """[44] radians of an observation; 0 where the robot has no such part, as recordings have it.

    Raises:
        ConfigError: a part of the robot is missing, or has another width.
    """
    return _joined(observation, "state", robot)


def actions_of(joints: npt.ArrayLike, robot: str) -> list[dict[str, npt.NDArray[np.float32]]]:
    """What `step` takes, one for each row.

    Args:
        joints: [K, 44] absolute targets in radians; hands as `HAND_OPEN` says.

    Raises:
        ConfigError: another width, or a part is moved that this robot does not have.
    """
    values = np.atleast_2d(np.asarray(joints, dtype=np.float64))
    if values.shape[1] != WIDTH:
        raise ConfigError(f"{values.shape[1]} joints; expected {WIDTH}", where=_WHERE)
    parts = _parts(robot)
    still = [part for part in WIDTHS if part not in parts and values[:, slice_of(part)].any()]
    if still:
        problem = f"{robot} cannot move {', '.join(still)}; expected 0 there"
        raise ConfigError(problem, remedy=f"use one of {', '.join(ROBOTS)}", where=_WHERE)
    return [
        {f"action.{part}": row[slice_of(part)].astype(np.float32) for part in parts}
        for row in values
    ]


def joints_of_actions(actions: Sequence[Mapping[str, Any]], robot: str) -> Array:
    """[K, 44]: the inverse of `actions_of`."""
    return np.array([_joined(action, "action", robot) for action in actions])


def image_of(observation: Mapping[str, Any]) -> Pixels:
    """[256, 256, 3] RGB of the head's camera, upright as it comes.

    Raises:
        ConfigError: there is none.
    """
    key = _first(observation, VIDEO_KEYS)
    return np.array(checked_images(np.asarray(observation[key])[None], CAMERA)[0])


def instruction_of(observation: Mapping[str, Any]) -> str:
    """The words without the mark of the waist."""
    text = str(observation[_first(observation, TEXT_KEYS)])
    for mark in TEXT_MARKS:
        text = text.removeprefix(mark)
    return text


def _first(observation: Mapping[str, Any], keys: Sequence[str]) -> str:
    for key in keys:
        if key in observation:
            return key
    known = ", ".join(sorted(observation)) or "nothing"
    raise ConfigError(f"no {' or '.join(keys)}; the observation has {known}"[:400], where=_WHERE)


def _parts(robot: str) -> tuple[str, ...]:
    if robot not in ROBOTS:
        raise ConfigError(f"no robot {robot!r:.80}; expected {', '.join(ROBOTS)}", where=_WHERE)
    return ROBOTS[robot]


def _joined(values: Mapping[str, Any], kind: str, robot: str) -> Array:
    out = np.zeros(WIDTH)
    for part in _parts(robot):
        value = values.get(f"{kind}.{part}")
        if value is None or np.shape(value) != (WIDTHS[part],):
            shape = "nothing" if value is None else str(list(np.shape(value)))
            problem = f"{kind}.{part} has {shape}; expected [{WIDTHS[part]}]"
            raise ConfigError(problem, where=_WHERE)
        out[slice_of(part)] = value
    return out


class ArmSolver(Protocol):
    """The kinematics of both arms, by a URDF: tip `<side>_hand_pitch_link` in `base_link`, seven joints in radians."""

    def tip_pose(self, side: Side, joints: Array) -> Array:
        """[4, 4] from [7]."""
        ...

    def joints(self, side: Side, T_base_tip: Array, near: Array) -> Array:
        """[7] that bring the tip to `T_base_tip`, the nearest to `near` [7]."""
        ...


class Gr1Simulator(Protocol):
    """The part of the simulator's interface that is used."""

    def reset(self, *, seed: int | None = None) -> tuple[Any, dict[str, Any]]: ...
    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]: ...


class Gr1Environment:
    """The simulator as `training.rollout.loop.Steered`.

    Args:
        spec: layout of the policy's actions: poses of the hands, and their openings where the policy has them; else hands stay open.

    Raises:
        ConfigError: the policy acts with something else, or its rate does not divide 20 Hz.
    """

    def __init__(
        self,
        env: Gr1Simulator,
        arms: ArmSolver,
        spec: ActionSpec,
        robot: str,
        *,
        rate_hz: float = 10.0,
    ) -> None:
        _parts(robot)
        known = ("position_m", "rot6d_cols", "gripper_opening")
        odd = [part.name for part in spec.slices if part.name.split(".")[1] not in known]
        if odd:
            problem = f"the policy acts with {', '.join(odd)}; this client knows {', '.join(known)}"
            raise ConfigError(problem, where=_WHERE)
        if abs(CONTROL_HZ / rate_hz - round(CONTROL_HZ / rate_hz)) > 1e-6:
            problem = f"the policy's {rate_hz:g} Hz do not divide {CONTROL_HZ} Hz"
            raise ConfigError(problem, where=_WHERE)
        self._env, self._arms, self._robot = env, arms, robot
        self._steps = round(CONTROL_HZ / rate_hz)
        self._T_tip_hand = {side: _tool(side) for side in SIDES}
        self._sides = tuple(s for s in SIDES if any(p.name.startswith(s) for p in spec.slices))
        self._observed: Mapping[str, Any] = {}
        self._joints: Array = np.zeros(WIDTH)
        self._in_force: Array = np.zeros(spec.width)
        self.spec, self.embodiment, self.instruction = spec, EMBODIMENT, ""
        self.is_success = self.is_over = False

    def reset(self, seed: int) -> None:
        observed, _ = self._env.reset(seed=seed)
        self._see(observed)
        self.instruction = instruction_of(observed)
        self.is_success = self.is_over = False
        self._in_force = self.state()

    def shown(self) -> dict[str, Pixels]:
        return {CAMERA: image_of(self._observed)}

    def state(self) -> Array:
        out = np.zeros(self.spec.width)
        for side in self._sides:
            T = self._arms.tip_pose(side, self._joints[slice_of(f"{side}_arm")])
            T = T @ self._T_tip_hand[side]
            fingers = self._joints[slice_of(f"{side}_hand")][:4]
            parts = {
                "position_m": position_of(T),
                "rot6d_cols": rot6d_cols_from_rotmat(rotmat_of(T)),
                "gripper_opening": np.clip(1 - fingers.mean() / SHUT_RAD, 0.0, 1.0),
            }
            for part, value in parts.items():
                if self._has(f"{side}.{part}"):
                    out[self.spec.slice(f"{side}.{part}")] = value
        return out

    def in_force(self) -> Array:
        return self._in_force

    def carry_out(self, target: Array) -> None:
        """The same joint targets for every step of the simulator in a timestep."""
        (action,) = actions_of(self.joint_targets(target), self._robot)
        for _ in range(self._steps):
            observed, _, is_terminated, is_truncated, info = self._env.step(dict(action))
            self._see(observed)
            self.is_success |= bool(info["success"])
            self.is_over = bool(is_terminated or is_truncated)
            if self.is_over or self.is_success:
                break
        self._in_force = np.array(target, dtype=np.float64)

    def joint_targets(self, target: Array) -> Array:
        """[44] for a target [A]: arms by `arms`, hands open or shut, the rest of the robot where it is."""
        out = np.zeros(WIDTH)
        for part in _parts(self._robot):
            out[slice_of(part)] = self._joints[slice_of(part)]
        for side in SIDES:
            opening = f"{side}.gripper_opening"
            is_open = not self._has(opening) or target[self.spec.slice(opening)][0] > 0.5
            out[slice_of(f"{side}_hand")] = HAND_OPEN if is_open else HAND_SHUT
            if self._has(f"{side}.position_m"):
                T = transform(
                    rotmat_from_rot6d_cols(target[self.spec.slice(f"{side}.rot6d_cols")]),
                    target[self.spec.slice(f"{side}.position_m")],
                )
                arm = slice_of(f"{side}_arm")
                T_tip = T @ inverse(self._T_tip_hand[side])
                out[arm] = self._arms.joints(side, T_tip, self._joints[arm])
        return out

    def _has(self, name: str) -> bool:
        return any(part.name == name for part in self.spec.slices)

    def _see(self, observed: Mapping[str, Any]) -> None:
        self._observed, self._joints = observed, joints_of(observed, self._robot)


def _tool(side: Side) -> Array:
    """[4, 4] of `hand_xfz` in the tip, by the registry."""
    T = embodiment_for(EMBODIMENT).arms[side].T_src_hand
    assert T is not None
    return np.asarray(T)
