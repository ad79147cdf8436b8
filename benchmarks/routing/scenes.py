"""Which tasks of Meta-World are played, in which words, and how fast. Nothing here needs the simulator.

Experts were written for 80 Hz and full speed (a reach takes 0.6 s); their moves are scaled by `SPEED`, and so is noise, which makes a
demonstration 2 to 6 s long, as a person's would be.
"""

from __future__ import annotations

from dataclasses import dataclass

from training.rollout.sawyer import INSTRUCTIONS

SPEED = 0.2  # of the experts' moves: at most 0.16 m/s along an axis
LIMIT = 80  # timesteps that a noisy play may take


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task: its name in Meta-World, what a person would call it."""

    name: str
    instruction: str
    is_trained: bool = True  # else it only shows that the path of actions is whole


TASKS = tuple(
    Task(name=name, instruction=text, is_trained=name != "pick-place-v3")
    for name, text in INSTRUCTIONS.items()
)

TRAINED = tuple(task.name for task in TASKS if task.is_trained)


def task_named(name: str) -> Task:
    return next(task for task in TASKS if task.name == name)
