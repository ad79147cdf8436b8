"""Meta-World as the rest of the benchmark needs it: a scene by its seed, what is seen and felt, and one action of a tenth of a second.

The only file that imports the simulator (extra `sim`). One world may be open at a time: with OSMesa a second renderer spoils the first
one's pictures (seen with mujoco 3.3.0).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from benchmarks.routing.scenes import SIZE_PX, STEP_M, STEPS_PER_TIMESTEP
from schemas.errors import ConfigError

Array = npt.NDArray[np.float64]
Picture = npt.NDArray[np.uint8]
NEVER = 1_000_000_000  # Meta-World raises after 500 steps; eight of them are one timestep here
LOOK_AT_M, DISTANCE_M, AZIMUTH_DEG, ELEVATION_DEG = (0.0, 0.72, 0.13), 0.95, 200.0, -35.0
OPEN, SHUT = -1.0, 1.0  # effort of the jaws


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Felt:
    """The hand at one instant: body `hand` in the world, its jaws, and the mocap body that it is pulled to."""

    position_m: Array  # [3]
    quat_wxyz: Array  # [4]
    gap_m: float
    target_m: Array  # [3]
    target_quat_wxyz: Array  # [4], of norm 1


def import_metaworld() -> Any:
    """Raises ConfigError when the extra `sim` is not installed."""
    try:
        import metaworld
    except ImportError as error:
        todo = "pip install -c constraints.txt 'eicorpus[sim]', and apt-get install libosmesa6"
        raise ConfigError(f"no simulator ({error}); {todo}") from error
    return metaworld


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


class Expert:
    """Meta-World's scripted expert of a task, slowed down to `speed`."""

    def __init__(self, task: str, *, speed: float) -> None:
        import_metaworld()
        from metaworld.policies import ENV_POLICY_MAP

        make: Any = ENV_POLICY_MAP[task]
        self._policy = make()
        self._speed = speed

    def act(self, observation: Array, nudge: Array | None = None) -> Array:
        """[4] the action for the target; `nudge` [3] is added to the move before it is slowed down.

        The effort is made -1 or +1: the jaws are position actuators far beyond their range, so only its sign says where they go.
        """
        with warnings.catch_warnings():
            # "Constant(s) may be too high": moves are clipped, and the experts rely on it.
            warnings.simplefilter("ignore")
            action = np.clip(
                np.asarray(self._policy.get_action(observation), dtype=np.float64), -1, 1
            )
        move = action[:3] if nudge is None else np.clip(action[:3] + nudge, -1, 1)
        return np.append(move * self._speed, SHUT if action[3] > 0 else OPEN)
