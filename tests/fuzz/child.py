"""The process that mutates: one line before and one after each mutation, so that its parent knows where it died or hangs."""

from __future__ import annotations

import json
import random
import resource
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

from tests.fuzz.corpora import try_corpus, written_corpus
from tests.fuzz.raw_sets import raw_sets, try_raw

MAX_RSS_MB = 3000
Trial = Callable[[random.Random], tuple[str, list[str]]]


def trial_of(family: str, folder: Path) -> Trial:
    if family == "corpus":
        corpus = written_corpus(folder)
        return lambda rng: try_corpus(corpus, rng)
    sets = raw_sets(family, folder)
    return lambda rng: try_raw(sets, rng)


def say(**line: object) -> None:
    print(json.dumps(line), file=sys.__stdout__, flush=True)


def attempt(trial: Trial, family: str, seed: int, index: int) -> None:
    say(begins=index)
    try:
        what, told = trial(random.Random(f"{family} {seed} {index}"))
    except Exception as error:  # noqa: BLE001  what a command would end with exit 3 for
        place = error.__traceback__
        while place and place.tb_next:
            place = place.tb_next
        where = f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}" if place else ""
        what, told = "", [f"{type(error).__name__}: {error}"[:300] + f" at {where}"]
    rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    if rss_mb > MAX_RSS_MB:
        told.append(f"{rss_mb} MB of memory")
    say(ends=index, what=what, told=told)


def main() -> None:
    """`python -m tests.fuzz.child FAMILY SEED FIRST`; goes on until it is ended."""
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # leaves no folder behind
    family, seed, first = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        trial = trial_of(family, Path(folder))
        say(ready=True)
        index = first
        while True:
            attempt(trial, family, seed, index)
            index += 1


if __name__ == "__main__":
    main()
