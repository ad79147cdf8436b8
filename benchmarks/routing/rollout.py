"""Letting a policy act in the simulator: pictures and words in, a chunk of targets out, the first part of it carried out, and again.

What goes through here is what a trained network is served with (`training/policy/observation.py`), so a recording that is played back
through the same door shows that nothing of the way from corpus to simulator is wrong (`replay.py`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from adapters.metaworld_hdf5.motion import opening_of
from benchmarks.routing.scenes import LIMIT, Task
from schemas.action import ActionSpec, action_spec
from schemas.embodiment import embodiment_for
from schemas.geometry import (
    Array,
    inverse,
    position_of,
    rot6d_cols_from_rotmat,
    rotmat_from_quat_wxyz,
    rotmat_of,
    transform,
)
from training.policy.observation import ActionChunk, Observation

EMBODIMENT, CAMERA, SIDE = "metaworld_sawyer", "front", "left"
NUM_HISTORY = 16  # targets that a policy may look back on


class Acting(Protocol):
    """A policy: `training.policy.policy.Policy` is one, and a recording played back is another."""

    def act(self, observation: Observation) -> ActionChunk: ...


class Body(Protocol):
    """What a hand feels; `benchmarks.routing.world.Felt` is one."""

    position_m: Array
    quat_wxyz: Array
    gap_m: float
    target_m: Array
    target_quat_wxyz: Array


class Scene(Protocol):
    """What a rollout asks of a world; `benchmarks.routing.world.World` is one."""

    is_success: bool

    def reset(self, seed: int) -> None: ...
    def hold(self, action: Array) -> None: ...
    def action_towards(self, target_m: Array, *, is_open: bool) -> Array: ...
    def felt(self) -> Any: ...
    def picture(self) -> npt.NDArray[np.uint8]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Horizon:
    """`execute` timesteps of every chunk are carried out; pictures are shown from `past_steps` timesteps ago, oldest first, 0 is now."""

    execute: int = 8
    past_steps: tuple[int, ...] = (-3, 0)
    limit: int = LIMIT


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One rollout: `success_at` timesteps until it succeeded, None when it never did."""

    task: str
    seed: int
    success_at: int | None
    length: int
    num_asked: int

    @property
    def is_success(self) -> bool:
        return self.success_at is not None


def spec() -> ActionSpec:
    """The layout of Meta-World's actions in a corpus: position, rotation and opening of one hand."""
    parts = [(f"{SIDE}.position_m", 3), (f"{SIDE}.rot6d_cols", 6), (f"{SIDE}.gripper_opening", 1)]
    action = action_spec(parts)
    assert action is not None
    return action


def T_body_hand() -> Array:
    """[4, 4] pose of `hand_xfz` in the simulator's body `hand`, by the registry."""
    T = embodiment_for(EMBODIMENT).arms[SIDE].T_src_hand
    assert T is not None
    return T


def hand_pose(position_m: Array, quat_wxyz: Array) -> Array:
    """[4, 4] of `hand_xfz` in the world, from the simulator's body."""
    return np.asarray(transform(rotmat_from_quat_wxyz(quat_wxyz), position_m) @ T_body_hand())


def body_position_m(T_base_hand: Array, quat_wxyz: Array) -> Array:
    """[3] where the simulator's body must be for the grasp centre of `T_base_hand`, turned as it is: it cannot turn."""
    T = transform(rotmat_from_quat_wxyz(quat_wxyz), np.zeros(3)) @ inverse(T_body_hand())
    return np.asarray(position_of(T_base_hand) + position_of(T))


def as_target(T_base_hand: Array, opening: float) -> Array:
    """[10] in the layout of `spec`."""
    turn = rot6d_cols_from_rotmat(rotmat_of(T_base_hand))
    return np.concatenate([position_of(T_base_hand), turn, [opening]])


def rollout(policy: Acting, world: Scene, task: Task, seed: int, horizon: Horizon) -> Outcome:
    """Let `policy` act in the scene of `seed` until it succeeds or `horizon.limit` timesteps are over."""
    world.reset(seed)
    felt: Body = world.felt()
    # Nothing was commanded yet: what is in force is where the hand is, as where a run of actions begins in training.
    history = deque(
        [as_target(hand_pose(felt.position_m, felt.quat_wxyz), 1.0)], maxlen=NUM_HISTORY
    )
    pictures: deque[npt.NDArray[np.uint8]] = deque(maxlen=1 - min(horizon.past_steps))
    due: list[Array] = []
    num_asked = 0
    for k in range(horizon.limit):
        pictures.append(world.picture())
        if not due:
            observation = Observation(
                text=task.instruction,
                embodiment=EMBODIMENT,
                pictures={CAMERA: shown(pictures, horizon.past_steps)},
                history=np.array(history),
                state=as_target(
                    hand_pose(felt.position_m, felt.quat_wxyz), float(opening_of(felt.gap_m))
                ),
            )
            due = carried_out(policy.act(observation), horizon.execute)
            num_asked += 1
        target = due.pop(0)
        world.hold(_action(world, target))
        felt = world.felt()
        # What is in force is what the simulator took, cut at its box and its fastest move, not what was wished.
        T_target = hand_pose(felt.target_m, felt.target_quat_wxyz)
        history.append(as_target(T_target, float(target[-1] > 0.5)))
        if world.is_success:
            return Outcome(
                task=task.name, seed=seed, success_at=k + 1, length=k + 1, num_asked=num_asked
            )
    return Outcome(
        task=task.name, seed=seed, success_at=None, length=horizon.limit, num_asked=num_asked
    )


def shown(
    pictures: Sequence[npt.NDArray[np.uint8]], past_steps: Sequence[int]
) -> npt.NDArray[np.uint8]:
    """[p, H, W, 3]: those that there are; what lies before the start is left out, as a trainer masks it."""
    return np.stack([pictures[i - 1] for i in past_steps if 1 - i <= len(pictures)])


def carried_out(chunk: ActionChunk, count: int) -> list[Array]:
    """The first `count` targets of a chunk as [10] in the layout of `spec`; a chunk says where targets lie in its own."""
    position_m, turn = chunk.part(f"{SIDE}.position_m"), chunk.part(f"{SIDE}.rot6d_cols")
    opening = chunk.part(f"{SIDE}.gripper_opening")
    return list(np.concatenate([position_m, turn, opening], axis=1)[:count])


def _action(world: Scene, target: Array) -> Array:
    felt: Body = world.felt()
    T_target = transform(np.eye(3), target[:3])  # only its place counts
    place_m = body_position_m(T_target, felt.target_quat_wxyz)
    return world.action_towards(place_m, is_open=bool(target[-1] > 0.5))
