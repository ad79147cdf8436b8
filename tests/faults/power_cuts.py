"""Every moment at which the power may go: `python -m tests.faults.power_cuts [--chances 2] [COMMAND ...]`. Minutes a command."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.faults.power import FATES, Disk, Fate, by_chance
from tests.faults.power_check import cuts, recorded, telling
from tests.faults.writers import WRITERS


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--chances", type=int, default=2, help="Fates by chance of each moment.")
    asked.add_argument("--one", action="store_true", help="Also each in which one thing is lost.")
    asked.add_argument("--telling", action="store_true", help="Only before each fsync and after.")
    asked.add_argument("commands", nargs="*", default=list(WRITERS))
    given = asked.parse_args()

    def fates(disk: Disk, cut: int) -> Iterator[Fate]:
        yield from FATES
        if given.one:
            yield from disk.fates_of_one()
        yield from (by_chance(given.chances * cut + i) for i in range(given.chances))

    total_cuts = total = problems = 0
    with tempfile.TemporaryDirectory(prefix="power_cuts.") as scratch:
        for name in given.commands:
            run = recorded(name, Path(scratch) / name / "home")
            chosen = telling(run) if given.telling else set(range(len(run.journal.events)))
            states, wrong = cuts(run, fates, at=chosen.__contains__)
            total_cuts, total = total_cuts + len(chosen) + 1, total + states
            problems += len(wrong)
            said = f"{len(chosen) + 1} moments, {states} different states, {len(wrong)} differences"
            sys.stdout.write(f"{name}: {said}\n" + "".join(f"  {each}\n" for each in wrong[:5]))
            sys.stdout.flush()
    sys.stdout.write(
        f"{total_cuts} moments of {len(given.commands)} commands, {total} states, {problems} differences\n"
    )
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
