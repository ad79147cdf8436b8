"""Meta-World's scripted experts; the world itself is `training/rollout/sawyer.py`."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from training.rollout.sawyer import OPEN, SHUT, Array, import_metaworld

GOAL = slice(36, 39)  # places in Meta-World's observation
# A reach succeeds where the point between the fingertips is within 5 cm of the ball, but Meta-World's expert brings the hand's body there, from which
# the fingertips hang 4.5 cm: 2.2 cm to the side of what it does fails. Ours brings the fingertips to the ball.
FINGERTIPS_BELOW_M = {"reach-v3": 0.045}


class Expert:
    """Meta-World's scripted expert of a task, slowed down to `speed`."""

    def __init__(self, task: str, *, speed: float) -> None:
        import_metaworld()
        from metaworld.policies import ENV_POLICY_MAP

        make: Any = ENV_POLICY_MAP[task]
        self._policy = make()
        self._speed = speed
        self._below_m = FINGERTIPS_BELOW_M.get(task, 0.0)

    def act(self, observation: Array, nudge: Array | None = None) -> Array:
        """[4] the action for the target; `nudge` [3] is added to the move before it is slowed down.

        The effort is made -1 or +1: the jaws are position actuators far beyond their range, so only its sign says where they go.
        """
        seen = observation.copy()
        seen[GOAL] += np.array([0.0, 0.0, self._below_m])
        with warnings.catch_warnings():
            # "Constant(s) may be too high": moves are clipped, and the experts rely on it.
            warnings.simplefilter("ignore")
            action = np.clip(np.asarray(self._policy.get_action(seen), dtype=np.float64), -1, 1)
        move = action[:3] if nudge is None else np.clip(action[:3] + nudge, -1, 1)
        return np.append(move * self._speed, SHUT if action[3] > 0 else OPEN)
