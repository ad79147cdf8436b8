"""Does data of lower quality pay when each sample trains only what it can supervise? Recorded, curated, trained and rolled out in one command.

`python -m benchmarks.routing --out RUN [--cells DIR] [--quick] [--json]`, and the page docs/results/routing.md. Stop it at any time; the same command goes on.
`--cells` is a folder of cells that are done, of this or of another machine: they are not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from benchmarks.routing.cells import (
    ALL,
    CLONED,
    LABEL,
    METHODS,
    OTHERS,
    PLANNED,
    TIERS,
    Store,
    combined,
)
from benchmarks.routing.page import page
from benchmarks.routing.plan import Budget
from benchmarks.routing.settings import Places, Settings
from benchmarks.routing.steps import run
from schemas.errors import PipelineError


def main() -> None:
    defaults = Settings()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.routing", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--cells", type=Path, help="folder of cells. Default: cells/ of the run")
    parser.add_argument("--quick", action="store_true", help="few episodes, one seed: no figures")
    parser.add_argument(
        "--checks", action="store_true", help="also tiers against labels, and actions replayed"
    )
    parser.add_argument(
        "--methods", nargs="*", choices=METHODS, default=list(METHODS), help="none: checks alone"
    )
    parser.add_argument("--experts", nargs="+", type=int, default=[20], help="of each task")
    parser.add_argument("--scales", nargs="+", type=int, default=[0, 8], help="of other data")
    parser.add_argument(
        "--chunks",
        nargs="+",
        type=int,
        default=[1],
        help=f"of {PLANNED}, which plans with more than 1",
    )
    parser.add_argument(
        "--tiers",
        nargs="+",
        choices=TIERS,
        default=[LABEL],
        help=f"by which data is routed; {CLONED} asks none",
    )
    parser.add_argument(
        "--others",
        nargs="+",
        choices=list(OTHERS),
        default=[ALL],
        help="tasks that are trained beside the policy",
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3], help="of trainings")
    parser.add_argument(
        "--scenes", choices=("final", "validation"), default=defaults.scenes, help="of rollouts"
    )
    parser.add_argument("--steps", type=int, default=defaults.num_steps, help="of every training")
    parser.add_argument("--rollouts", type=int, default=defaults.num_rollouts, help="of a task")
    parser.add_argument(
        "--sampling-steps",
        type=int,
        help="of Euler when a policy acts; planning needs several. Default: the recipe's",
    )
    parser.add_argument("--recipe", default=defaults.recipe, help="that the cells' recipes extend")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--figures", type=Path, metavar="DIR", help="also draw SVG files there")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    os.environ.setdefault("MUJOCO_GL", "osmesa")  # draws without a display and without a GPU
    settings = Settings(
        budget=Budget.quick() if args.quick else Budget(),
        unit=1 if args.quick else defaults.unit,
        num_rollouts=1 if args.quick else args.rollouts,
        num_steps=20 if args.quick else args.steps,
        scenes=args.scenes,
        sampling_steps=args.sampling_steps,
        recipe=args.recipe,
    )
    places = Places(out=args.out.absolute())

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    try:
        cells, left_out = combined(
            seed=[0] if args.quick else args.seeds,
            num_experts=[2] if args.quick else args.experts,
            scale=[0, 2] if args.quick else args.scales,
            method=args.methods,
            num_chunks=args.chunks,
            tiers=args.tiers,
            others=args.others,
        )
        for error in left_out:
            say(f"left out: {error}")
        if left_out and not cells:
            raise left_out[0]
        answer = run(
            cells,
            settings,
            places,
            Store(args.cells or places.cells, settings),
            workers=args.workers,
            with_checks=args.checks,
            say=say,
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
