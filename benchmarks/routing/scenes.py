"""Which tasks of Meta-World are played, in which words, and how time is cut. Nothing here needs the simulator.

Control: Meta-World's step is 12.5 ms; an action is HELD for 8 of them, so that one action is one 10 Hz timestep and what is recorded is
what was executed. Experts were written for 80 Hz and full speed (a reach takes 0.6 s); their moves are scaled by `SPEED`, and
so is noise, which makes a demonstration 2 to 6 s long, as a person's would be.
"""

from __future__ import annotations

from dataclasses import dataclass

STEPS_PER_TIMESTEP = 8
TIMESTEP_S = 0.1
STEP_M = 0.01  # what an action of 1 moves the mocap body by in one step (`action_scale`)
SPEED = 0.2  # of the experts' moves: at most 0.16 m/s along an axis
SIZE_PX = 128
LIMIT = 80  # timesteps that a noisy play or a policy may take


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task: its name in Meta-World, what a person would call it."""

    name: str
    instruction: str
    is_trained: bool = True  # else it only shows that the path of actions is whole


TASKS = (
    Task(name="reach-v3", instruction="move the hand to the red ball"),
    Task(name="button-press-topdown-v3", instruction="press the red button down"),
    Task(name="drawer-open-v3", instruction="pull the drawer open"),
    Task(name="window-open-v3", instruction="slide the window open"),
    Task(name="pick-place-v3", instruction="put the red puck at the blue ball", is_trained=False),
)


def task_named(name: str) -> Task:
    return next(task for task in TASKS if task.name == name)
