"""Meta-World's scripted experts; the world itself is `training/rollout/sawyer.py`."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from training.rollout.sawyer import OPEN, SHUT, Array, import_metaworld


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
