"""Does routing by tier pay? Recorded, curated, trained three ways and rolled out in one command: docs/results/routing.md.

`python -m benchmarks.routing --out RUN [--quick] [--until STEP] [--json]`. Stop it at any time; the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from benchmarks.routing.page import page
from benchmarks.routing.plan import Budget
from benchmarks.routing.settings import ARMS, NAMES, Places, Settings
from benchmarks.routing.steps import STEPS, run
from schemas.errors import PipelineError


def main() -> None:
    defaults = Settings()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.routing", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--quick", action="store_true", help="few episodes, one seed: no figures")
    parser.add_argument("--until", choices=STEPS, default=STEPS[-1], help="the last step to do")
    parser.add_argument("--seed", type=int, default=0, help="of scenes, noise and rollouts")
    parser.add_argument(
        "--seeds", type=int, default=defaults.num_seeds, help="trainings of each arm"
    )
    parser.add_argument(
        "--steps", type=int, default=defaults.num_steps, help="optimiser steps of each training"
    )
    parser.add_argument(
        "--rollouts", type=int, default=defaults.num_rollouts, help="of each task, arm and seed"
    )
    parser.add_argument(
        "--arms",
        nargs="+",
        default=list(ARMS),
        help=f"also {', '.join(name for name in NAMES if name not in ARMS)}",
    )
    parser.add_argument("--recipe", default=defaults.recipe, help="that the arms' recipes extend")
    parser.add_argument("--encoder", default=defaults.encoder)
    parser.add_argument("--weights", help="folder of its weights, where no package carries them")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--figures", type=Path, metavar="DIR", help="also draw SVG files there")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    os.environ.setdefault("MUJOCO_GL", "osmesa")  # draws without a display and without a GPU
    settings = Settings(
        seed=args.seed,
        budget=Budget.quick() if args.quick else Budget(),
        arms=tuple(args.arms),
        num_seeds=1 if args.quick else args.seeds,
        num_rollouts=2 if args.quick else args.rollouts,
        num_steps=20 if args.quick else args.steps,
        encoder=args.encoder,
        weights=args.weights,
        recipe=args.recipe,
    )
    try:
        answer = run(
            settings,
            Places(out=args.out.absolute()),
            workers=args.workers,
            until=args.until,
            say=lambda line: print(line, file=sys.stderr, flush=True),
        )
    except PipelineError as error:
        print(f"error {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    if args.figures is not None:
        from benchmarks.routing.figures import draw

        draw(answer, args.figures)
    print(json.dumps(answer) if args.json else page(answer))


if __name__ == "__main__":
    main()
