"""`python -m tests.fuzz [--family F] [--seconds N] [--seed S]`: exit 1 when anything does not hold."""

from __future__ import annotations

import argparse
import sys

from tests.fuzz.raw_sets import FAMILIES
from tests.fuzz.watch import fuzz

ALL = (*FAMILIES, "corpus", "checkpoint")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--family", choices=ALL, action="append", help="Default: all, in turn.")
    parser.add_argument("--seconds", type=float, default=60.0, help="Of each family.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="Number of the first mutation.")
    parser.add_argument("--most", type=int, default=0, help="Mutations of each family.")
    given = parser.parse_args()
    has_violation = False
    for family in given.family or ALL:
        tally = fuzz(
            family, seconds=given.seconds, seed=given.seed, first=given.first, most=given.most
        )
        has_violation |= bool(tally.violations)
        sys.stdout.write(f"{tally}\n")
        sys.stdout.flush()
    return int(has_violation)


if __name__ == "__main__":
    sys.exit(main())
