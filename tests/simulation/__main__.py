"""`python -m tests.simulation --seeds 1000 [--from 0] [--seed N] [--processes 2] [--log FILE]`: schedules, and what did not hold."""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.simulation.plants import PLANTS, found_in
from tests.simulation.world import Played, play

CHUNK = 100  # schedules to a line of a log


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--from", dest="first", type=int, default=0)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument(
        "--log", type=Path, help="a line each 100 schedules; what it has is not played again"
    )
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
    end = asked.first + asked.seeds
    first = max(asked.first, _logged(asked.log))
    total: Counter[str] = Counter()
    with _player(asked.processes) as player:
        for at in range(first, end, CHUNK):
            began_s = time.process_time()
            counts = _counts(player(range(at, min(at + CHUNK, end))))
            total += counts
            if asked.log:
                line = {"first": at, **counts, "cpu_s": round(time.process_time() - began_s, 1)}
                with asked.log.open("a") as log:
                    log.write(json.dumps(line) + "\n")
    sys.stdout.write(
        f"{total['schedules']} schedules: {total['broken']} broken; {total['commits']} commits, "
        f"{total['deaths']} deaths, {total['lanes']} lanes\n"
    )
    return bool(total["broken"])


def _logged(log: Path | None) -> int:
    """The seed that follows the last one of a log."""
    if log is None or not log.exists():
        return 0
    last = json.loads(log.read_text().splitlines()[-1])
    return int(last["first"]) + int(last["schedules"])


@contextmanager
def _player(processes: int) -> Iterator[Callable[[range], Iterable[Played]]]:
    if processes == 1:
        gc.freeze()  # what was imported is looked through no more
        gc.set_threshold(50_000)
        yield lambda seeds: map(play, seeds)
        return
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield lambda seeds: pool.imap_unordered(play, seeds, chunksize=16)


def _counts(played: Iterable[Played]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for done in played:
        counts.update(
            schedules=1,
            broken=bool(done.problem),
            commits=done.commits,
            deaths=done.deaths,
            lanes=done.lanes,
        )
        if done.problem:
            sys.stdout.write(f"{done}\n")
            sys.stdout.flush()
    return counts


if __name__ == "__main__":
    sys.exit(main())
