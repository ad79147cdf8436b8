"""The whole pass: `python -m tests.hostile [--all] [--kind KIND] [--sample N --seed S] [--share I/N]`. Prints each problem, then the figures."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.hostile.corpora import World
from tests.hostile.sweep import (
    GIB,
    KINDS,
    Case,
    cases,
    hostile_world,
    problems,
    sampled,
    status_bytes,
)


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="every scenario with every command")
    parser.add_argument("--kind", choices=KINDS, action="append")
    parser.add_argument("--only", default="", help="scenarios with this in their name")
    parser.add_argument("--sample", type=int, help="runs of each kind, of all scenarios x commands")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--share", default="1/1", help="I/N: every N-th run from the I-th, for several processes"
    )
    given = parser.parse_args()

    def chosen(made: World, kind: str) -> list[Case]:
        if given.sample:
            return sampled(made, kind, given.sample, given.seed)
        return cases(made, kind, every=given.all)

    share, shares = map(int, given.share.split("/"))
    total = 0
    with tempfile.TemporaryDirectory() as folder, hostile_world(Path(folder)) as (made, uid):
        for kind in given.kind or KINDS:
            runs = [each for each in chosen(made, kind) if given.only in each.scenario.name]
            started, wrong, peak_bytes = time.process_time(), 0, 0
            runs = runs[share - 1 :: shares]
            for each in runs:
                at = time.process_time()
                for problem in problems(made, each.scenario, each.command, uid):
                    wrong += 1
                    say(f"{problem} ({time.process_time() - at:.1f} s)")
                peak_bytes = max(peak_bytes, status_bytes("VmHWM"))  # of this run
            scenarios = len({each.scenario.name for each in runs})
            commands = len({each.command for each in runs})
            spent = time.process_time() - started
            say(
                f"{kind}: {scenarios} scenarios, {commands} commands, {len(runs)} runs,"
                f" {wrong} problems, {spent:.0f} s of CPU, peak {peak_bytes / GIB:.1f} GiB resident"
            )
            total += wrong
    return min(total, 1)


if __name__ == "__main__":
    raise SystemExit(main())
