"""The loop itself, of any environment: pictures and words in, a chunk of targets out, the first part of it carried out, and again.

Neither a simulator nor a network is known here. `training/rollout/sawyer.py` and `training/rollout/gym_environment.py` are environments,
`training.policy.policy.Policy` and `training.server.client.ServedPolicy` are policies.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from schemas.action import ActionSpec
from schemas.geometry import Array
from training.policy.observation import ActionChunk, Observation, Pixels

NUM_HISTORY = 16  # targets that a policy may look back on
LIMIT = 80  # timesteps that a policy may take, where nothing else is said


class Acting(Protocol):
    """A policy: a trained network, a served one, or a recording that is played back."""

    def act(self, observation: Observation) -> ActionChunk: ...


class Steered(Protocol):
    """An environment in the corpus' words: names, units and frames are those of `spec`, a timestep is one of the policy's.

    is_success: since `reset`. is_over: the environment goes no further, with or without success.
    """

    embodiment: str
    instruction: str
    spec: ActionSpec

    @property
    def is_success(self) -> bool: ...
    @property
    def is_over(self) -> bool: ...

    def reset(self, seed: int) -> None:
        """The scene of that seed."""
        ...

    def shown(self) -> Mapping[str, Pixels]:
        """camera -> [H, W, 3] RGB, as seen now."""
        ...

    def state(self) -> Array:
        """[A] as measured now, in the layout of `spec`."""
        ...

    def in_force(self) -> Array:
        """[A] the target that holds now; after `reset`, where the body is."""
        ...

    def carry_out(self, target: Array) -> None:
        """One timestep towards the target [A]."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Horizon:
    """`execute` timesteps of every chunk are carried out; pictures are shown from `past_steps` timesteps ago, oldest first, 0 is now."""

    execute: int = 8
    past_steps: tuple[int, ...] = (-3, 0)
    limit: int = LIMIT


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutOutcome:
    """One rollout: `success_at` timesteps until it succeeded, None when it never did; `num_asked` chunks."""

    task: str
    seed: int
    success_at: int | None
    length: int
    num_asked: int

    @property
    def is_success(self) -> bool:
        return self.success_at is not None


def scene_seed(seed: int, *key: int) -> int:
    """A scene of its own for every key."""
    return int(np.random.default_rng([seed, *key]).integers(2**31))


def closed_loop(
    policy: Acting,
    steered: Steered,
    seed: int,
    horizon: Horizon,
    *,
    task: str,
    watch: Callable[[Mapping[str, Pixels]], None] | None = None,
) -> RolloutOutcome:
    """Let `policy` act in the scene of `seed` until it succeeds, the environment is over, or `horizon.limit` timesteps are.

    Args:
        watch: gets the pictures of every timestep, and of the end.

    Raises:
        ConfigError: the policy refuses the observation, or its chunk lacks an element of `steered.spec`.
    """
    steered.reset(seed)
    # Nothing was commanded yet: what is in force is where the hand is, as where a run of actions begins in training.
    history = deque([steered.in_force()], maxlen=NUM_HISTORY)
    pictures: deque[Mapping[str, Pixels]] = deque(maxlen=1 - min(horizon.past_steps))
    due: list[Array] = []
    num_asked = length = 0
    while length < horizon.limit and not (steered.is_success or steered.is_over):
        pictures.append(steered.shown())
        if watch is not None:
            watch(pictures[-1])
        if not due:
            observation = Observation(
                text=steered.instruction,
                embodiment=steered.embodiment,
                pictures=_of_past(pictures, horizon.past_steps),
                history=np.array(history),
                state=steered.state(),
            )
            due = carried_out(policy.act(observation), steered.spec, horizon.execute)
            num_asked += 1
        steered.carry_out(due.pop(0))
        history.append(steered.in_force())
        length += 1
    if watch is not None:
        watch(steered.shown())
    return RolloutOutcome(
        task=task,
        seed=seed,
        success_at=length if steered.is_success else None,
        length=length,
        num_asked=num_asked,
    )


def shown_of(pictures: Sequence[npt.NDArray[np.uint8]], past_steps: Sequence[int]) -> Pixels:
    """[p, H, W, 3]: those that there are; what lies before the start is left out, as a trainer masks it."""
    return np.stack([pictures[i - 1] for i in past_steps if 1 - i <= len(pictures)])


def carried_out(chunk: ActionChunk, spec: ActionSpec, count: int) -> list[Array]:
    """The first `count` targets of a chunk as [A] in the layout of `spec`; a chunk says where targets lie in its own."""
    parts = [chunk.part(part.name) for part in spec.slices]
    return list(np.concatenate(parts, axis=1)[:count])


def _of_past(
    pictures: Sequence[Mapping[str, Pixels]], past_steps: Sequence[int]
) -> dict[str, Pixels]:
    return {
        camera: shown_of([each[camera] for each in pictures], past_steps) for camera in pictures[-1]
    }
