"""`python -m tests.simulation --seeds 1000 [--from 0] [--seed N] [--processes 2]`: schedules, and what did not hold."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time

from tests.simulation.world import Played, play


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--from", dest="first", type=int, default=0)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--processes", type=int, default=1)
    asked = parser.parse_args()
    if asked.seed is not None:
        print(play(asked.seed))
        return 0
    seeds = range(asked.first, asked.first + asked.seeds)
    began_s = time.process_time()
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
                print(done, flush=True)
    print(
        f"{len(seeds)} schedules: {len(broken)} broken; {commits} commits, {deaths} deaths, {lanes} lanes; "
        f"{time.process_time() - began_s:.0f} s of CPU in this process"
    )
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main())
