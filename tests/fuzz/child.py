"""The process that mutates: one line before and one after each mutation, so that its parent knows where it died or hangs."""

from __future__ import annotations

import json
import random
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from tests.fuzz.checkpoints import try_checkpoint, written_run
from tests.fuzz.corpora import try_corpus, written_corpus
from tests.fuzz.mutations import Outcome
from tests.fuzz.raw_sets import raw_sets, try_raw
from tests.hostile.sweep import GIB, PEAK_BYTES, bounded_memory

Trial = Callable[[random.Random], Outcome]


def trial_of(family: str, folder: Path) -> Trial:
    if family == "corpus":
        corpus = written_corpus(folder)
        return lambda rng: try_corpus(corpus, rng)
    if family == "checkpoint":
        run = written_run(folder)
        return lambda rng: try_checkpoint(run, rng)
    sets = raw_sets(family, folder)
    return lambda rng: try_raw(sets, rng)


def say(**line: object) -> None:
    print(json.dumps(line), file=sys.__stdout__, flush=True)


def attempt(trial: Trial, family: str, seed: int, index: int) -> None:
    say(begins=index)
    started_s = time.process_time()
    with bounded_memory() as memory:
        try:
            outcome = trial(random.Random(f"{family} {seed} {index}"))
        except Exception as error:  # noqa: BLE001  what a command would end with exit 3 for
            outcome = Outcome("", "", "uncaught", [f"{_text(error)} at {_place(error)}"])
    if memory.peak_bytes > PEAK_BYTES:
        outcome.problems.append(f"{memory.peak_bytes / GIB:.1f} GiB of memory")
    say(ends=index, cpu_s=time.process_time() - started_s, **vars(outcome))


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:300]


def _place(error: Exception) -> str:
    """Where it was raised."""
    place = error.__traceback__
    while place and place.tb_next:
        place = place.tb_next
    return f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}" if place else ""


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
