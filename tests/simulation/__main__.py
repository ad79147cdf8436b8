"""`python -m tests.simulation --seeds 1000 [--from 0] [--seed N] [--processes 2]`: schedules, and what did not hold."""

from __future__ import annotations

import argparse
import multiprocessing
import sys

from tests.simulation.plants import PLANTS, found_in
from tests.simulation.world import Played, play


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--from", dest="first", type=int, default=0)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument(
        "--plant",
        choices=sorted(PLANTS),
        help="plant this mistake, and stop at the first schedule that finds it",
    )
    asked = parser.parse_args()
    if asked.plant:
        found = found_in(asked.plant, range(asked.first, asked.first + asked.seeds), play)
        sys.stdout.write(f"{asked.plant}: found by schedule {found}\n")
        return found is None
    if asked.seed is not None:
        sys.stdout.write(f"{play(asked.seed)}\n")
        return 0
    seeds = range(asked.first, asked.first + asked.seeds)
    commits = deaths = lanes = 0
    broken: list[Played] = []
    with multiprocessing.get_context("spawn").Pool(asked.processes) as pool:
        for done in pool.imap_unordered(play, seeds, chunksize=16):
            commits, deaths, lanes = (
                commits + done.commits,
                deaths + done.deaths,
                lanes + done.lanes,
            )
            if done.problem:
                broken.append(done)
                sys.stdout.write(f"{done}\n")
                sys.stdout.flush()
    sys.stdout.write(
        f"{len(seeds)} schedules: {len(broken)} broken; {commits} commits, {deaths} deaths, {lanes} lanes\n"
    )
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main())
