"""Meta-World: a scene by its seed, what is seen and felt, one action of a tenth of a second, and all of it in the corpus' words.

The only file that imports the simulator (extra `sim`). One world may be open at a time: with OSMesa a second renderer spoils the first
one's pictures (seen with mujoco 3.3.0).

Control: Meta-World's step is 12.5 ms; an action is HELD for 8 of them, so that one action is one 10 Hz timestep and what is recorded is
what was executed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from schemas.action import ActionSpec, action_spec
from schemas.embodiment import embodiment_for
from schemas.errors import ConfigError
from schemas.geometry import (
    inverse,
    position_of,
    rot6d_cols_from_rotmat,
    rotmat_from_quat_wxyz,
    rotmat_of,
    transform,
)
from schemas.metaworld import opening_of

Array = npt.NDArray[np.float64]
Picture = npt.NDArray[np.uint8]
EMBODIMENT, CAMERA, SIDE = "metaworld_sawyer", "front", "left"
STEPS_PER_TIMESTEP = 8
TIMESTEP_S = 0.1
STEP_M = 0.01  # what an action of 1 moves the mocap body by in one step (`action_scale`)
SIZE_PX = 128
NEVER = 1_000_000_000  # Meta-World raises after 500 steps; eight of them are one timestep here
LOOK_AT_M, DISTANCE_M, AZIMUTH_DEG, ELEVATION_DEG = (0.0, 0.72, 0.13), 0.95, 200.0, -35.0
OPEN, SHUT = -1.0, 1.0  # effort of the jaws
# What a person would call the tasks that `benchmarks/routing` records.
INSTRUCTIONS = {
    "reach-v3": "move the hand to the red ball",
    "button-press-topdown-v3": "press the red button down",
    "drawer-open-v3": "pull the drawer open",
    "window-open-v3": "slide the window open",
    "pick-place-v3": "put the red puck at the blue ball",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Felt:
    """The hand at one instant: body `hand` in the world, its jaws, and the mocap body that it is pulled to."""

    position_m: Array  # [3]
    quat_wxyz: Array  # [4]
    gap_m: float
    target_m: Array  # [3]
    target_quat_wxyz: Array  # [4], of norm 1


class SimulatedScene(Protocol):
    """What a rollout asks of a world; `World` is one."""

    is_success: bool

    def reset(self, seed: int) -> None: ...
    def hold(self, action: Array) -> None: ...
    def action_towards(self, target_m: Array, *, is_open: bool) -> Array: ...
    def felt(self) -> Felt: ...
    def picture(self) -> Picture: ...


def import_metaworld() -> Any:
    """Raises ConfigError when the extra `sim` is not installed."""
    try:
        import metaworld
    except ImportError as error:
        todo = "pip install -c constraints.txt 'eicorpus[sim]', and apt-get install libosmesa6"
        raise ConfigError(f"no simulator ({error}); {todo}") from error
    return metaworld


def task_names() -> tuple[str, ...]:
    """Raises ConfigError when the extra `sim` is not installed."""
    import_metaworld()
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    return tuple(ALL_V3_ENVIRONMENTS)


class World:
    """One task of Meta-World. Use as a context manager; `reset` before anything else."""

    def __init__(self, task: str, *, size_px: int = SIZE_PX) -> None:
        import_metaworld()
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS

        self.task = task
        self._env: Any = ALL_V3_ENVIRONMENTS[task]()
        # A fresh scene for every seed, with the goal told to the expert: what the goal-observable variant does, less its frozen scene.
        self._env._set_task_called = True
        self._env._freeze_rand_vec = False
        self._env.seeded_rand_vec = True
        self._env._partially_observable = False
        self._env.__dict__.pop("sawyer_observation_space", None)  # cached for the hidden goal
        self._env.max_path_length = NEVER
        self._size_px = size_px
        self._renderer: Any = None
        self._seen: Array = np.zeros(39)
        self.is_success = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def reset(self, seed: int) -> None:
        """The scene of that seed, its hand at rest and its jaws open; the same seed gives the same scene to the last bit."""
        self._env.seed(seed)
        self._env.reset()
        self.is_success = False
        self.hold(np.array([0.0, 0.0, 0.0, OPEN]))  # the arm settles by a few millimetres
        self.is_success = False

    def hold(self, action: Array) -> None:
        """One timestep: `action` [4] (dx, dy, dz and effort, -1 .. 1) for 8 control steps."""
        held = np.clip(action, -1.0, 1.0)
        for _ in range(STEPS_PER_TIMESTEP):
            self._seen, _, _, _, info = self._env.step(held)
            self.is_success |= bool(info["success"])

    def action_towards(self, target_m: Array, *, is_open: bool) -> Array:
        """[4] the action that brings the mocap body to `target_m` in one timestep, or as far on the way as it can."""
        delta = (np.asarray(target_m) - self._env.data.mocap_pos[0]) / (STEP_M * STEPS_PER_TIMESTEP)
        return np.append(np.clip(delta, -1.0, 1.0), OPEN if is_open else SHUT)

    def felt(self) -> Felt:
        data = self._env.data
        hand, (right, left) = data.body("hand"), (data.body(f"{s}claw") for s in ("right", "left"))
        quat = np.array(data.mocap_quat[0], dtype=np.float64)
        return Felt(
            position_m=np.array(hand.xpos, dtype=np.float64),
            quat_wxyz=np.array(hand.xquat, dtype=np.float64),
            gap_m=float(np.linalg.norm(right.xpos - left.xpos)),
            target_m=np.array(data.mocap_pos[0], dtype=np.float64),
            target_quat_wxyz=quat / np.linalg.norm(quat),
        )

    def told_to_expert(self) -> Array:
        """[39] Meta-World's own observation, with the goal: only scripted experts may look at it."""
        return np.array(self._seen, dtype=np.float64)

    def picture(self) -> Picture:
        """[size, size, 3] RGB from a camera at the robot's front right, which never moves."""
        import mujoco

        if self._renderer is None:
            # Shadows, reflections and multisampling cost nine tenths of the time without a GPU.
            self._env.model.vis.quality.offsamples = 0
            self._renderer = mujoco.Renderer(self._env.model, self._size_px, self._size_px)
        camera = mujoco.MjvCamera()
        camera.type = mujoco.mjtCamera.mjCAMERA_FREE
        camera.lookat[:] = LOOK_AT_M
        camera.distance, camera.azimuth, camera.elevation = DISTANCE_M, AZIMUTH_DEG, ELEVATION_DEG
        self._renderer.update_scene(self._env.data, camera=camera)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self._renderer.scene.flags[flag] = 0
        return np.array(self._renderer.render(), dtype=np.uint8)


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


class SawyerHand:
    """A world of Meta-World as `training.rollout.loop.Steered`."""

    def __init__(self, world: SimulatedScene, instruction: str) -> None:
        self._world = world
        self.embodiment, self.instruction, self.spec = EMBODIMENT, instruction, spec()
        self.is_over = False  # a world has no end of its own: `NEVER`
        self._in_force: Array = np.zeros(self.spec.width)

    @property
    def is_success(self) -> bool:
        return self._world.is_success

    def reset(self, seed: int) -> None:
        self._world.reset(seed)
        felt = self._world.felt()
        self._in_force = as_target(hand_pose(felt.position_m, felt.quat_wxyz), 1.0)

    def shown(self) -> Mapping[str, Picture]:
        return {CAMERA: self._world.picture()}

    def state(self) -> Array:
        felt = self._world.felt()
        return as_target(hand_pose(felt.position_m, felt.quat_wxyz), float(opening_of(felt.gap_m)))

    def in_force(self) -> Array:
        return self._in_force

    def carry_out(self, target: Array) -> None:
        """What is in force is then what the simulator took, cut at its box and its fastest move, not what was wished."""
        is_open = bool(target[-1] > 0.5)
        T_target = transform(np.eye(3), target[:3])  # only its place counts
        place_m = body_position_m(T_target, self._world.felt().target_quat_wxyz)
        self._world.hold(self._world.action_towards(place_m, is_open=is_open))
        felt = self._world.felt()
        self._in_force = as_target(hand_pose(felt.target_m, felt.target_quat_wxyz), float(is_open))
