"""Letting a policy act in Meta-World, by the loop of `eicorpus rollout` (`training/rollout/loop.py`).

What goes through here is what a trained network is served with (`training/policy/observation.py`), so a recording that is played back
through the same door shows that nothing of the way from corpus to simulator is wrong (`replay.py`).
"""

from __future__ import annotations

from benchmarks.routing.scenes import Task
from training.rollout.loop import Acting, Horizon, RolloutOutcome, closed_loop
from training.rollout.sawyer import SawyerHand, SimulatedScene


def rollout(
    policy: Acting, world: SimulatedScene, task: Task, seed: int, horizon: Horizon
) -> RolloutOutcome:
    """Let `policy` act in the scene of `seed` until it succeeds or `horizon.limit` timesteps are over."""
    hand = SawyerHand(world, task.instruction)
    return closed_loop(policy, hand, seed, horizon, task=task.name)
