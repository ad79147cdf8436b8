"""Stills of a trained policy at work: a row for each task, from the first image to the last. `python -m benchmarks.routing.stills RUN OUT.jpg`.

RUN is a training of the study (`runs/NAME`). The scenes are those that settings are chosen on, and the first rollout that succeeds is shown, so
the picture says how a success looks and not how often there is one.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from benchmarks.routing.scenes import TASKS, Task
from benchmarks.routing.settings import Settings
from benchmarks.routing.trained import Asked, horizon_of, policy_of, scenes
from training.policy.observation import Pixels
from training.rollout.loop import Acting, Horizon, closed_loop
from training.rollout.sawyer import CAMERA, SawyerHand, World

NUM_STILLS, MOST_TRIES = 6, 10


def rows(policy: Acting, horizon: Horizon) -> Iterator[tuple[Task, list[Pixels]]]:
    """Of each trained task, [H, W, 3] RGB images of a rollout."""
    for task in TASKS:
        if task.is_trained:
            with World(task.name) as world:
                yield task, _shown(policy, horizon, world, task)


def _shown(policy: Acting, horizon: Horizon, world: World, task: Task) -> list[Pixels]:
    """Of the first rollout that succeeds, else of the last that was tried."""
    images: list[Pixels] = []
    for scene in scenes(task, ("validation", 0), MOST_TRIES):
        images.clear()
        hand = SawyerHand(world, task.instruction)
        outcome = closed_loop(
            policy,
            hand,
            scene,
            horizon,
            task=task.name,
            watch=lambda shown: images.append(shown[CAMERA]),
        )
        if outcome.is_success:
            break
    which = np.linspace(0, len(images) - 1, NUM_STILLS).round().astype(int)
    return [images[k] for k in which]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.routing.stills", description=__doc__
    )
    parser.add_argument("run", type=Path, help="folder of a training")
    parser.add_argument("out", type=Path, help="JPEG file")
    args = parser.parse_args()
    os.environ.setdefault("MUJOCO_GL", "osmesa")  # draws without a display and without a GPU
    horizon = horizon_of(args.run, Settings().execute)
    strips = [np.hstack(images) for _, images in rows(policy_of(args.run, Asked()), horizon)]
    sheet = cv2.cvtColor(np.vstack(strips), cv2.COLOR_RGB2BGR)
    if not cv2.imwrite(str(args.out), sheet, [cv2.IMWRITE_JPEG_QUALITY, 85]):
        raise OSError(f"{args.out} was not written")


if __name__ == "__main__":
    main()
