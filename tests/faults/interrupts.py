"""Ctrl-C and SIGTERM at many moments: `python -m tests.faults.interrupts [--moments 50] [--calls 10] [--seed 0] [COMMAND ...]`.

`--moments`: real signals to a real `ingest`, at random times of its run. `--calls`: of each command, KeyboardInterrupt at so many of its system calls.
`verify` must be clean before the rerun and after it, and the rerun must end where an undisturbed run does.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ingest.verify.corpus import verify
from tests.faults.calls import calling
from tests.faults.journal import unwatched
from tests.faults.power_check import end_of
from tests.faults.toy import write_toy
from tests.faults.writers import INGEST, WRITERS, Writer, do, ended
from tests.faults.zygote import Zygote

KINDS = {"a": "good", "b": "quarantine", "c": "slow", "d": "short", "e": "slow", "f": "good"}


def interrupted_at_calls(name: str, count: int, seed: int, scratch: Path) -> tuple[int, list[str]]:
    """How many interrupts there were, and what was wrong after them."""
    writer, home, chance = WRITERS[name], scratch / "home", random.Random(f"{name} {seed}")
    start = _prepared(writer, home)
    calls: list[int] = []
    with unwatched(), calling(calls.append):
        do(writer.argv(home))
    end = end_of(home / "corpus", name)
    chosen = sorted(chance.sample(range(len(calls)), min(count, len(calls))))
    wrong = []
    for at in chosen:
        shutil.rmtree(home)
        shutil.copytree(start, home)
        argv = writer.argv(home)
        with unwatched(), calling(lambda call, at=at: _interrupt(call == at)):
            said = ended(argv)
        found = [] if " ended with 130: " in said else [f"interrupted: {said}"]
        found += _unsound(home / "corpus", "before")
        with unwatched():
            found += [said] if (said := ended(argv)) else _differing(home / "corpus", name, end)
        wrong += [f"{name}, call {at}: {each}" for each in found]
    return len(chosen), wrong


def _interrupt(is_now: bool) -> None:
    if is_now:
        raise KeyboardInterrupt


def _prepared(writer: Writer, home: Path) -> Path:
    """A copy of a prepared `home`, which is used in its own place: corpora know where their raw data is."""
    home.mkdir(parents=True)
    with unwatched():
        writer.prepare(home)
    return Path(shutil.copytree(home, home.with_name("start")))


def _unsound(corpus: Path, when: str) -> list[str]:
    if not (corpus / "corpus.json").exists():  # interrupted before there was one
        return []
    return [f"{when}: {f.check.value} {f.path}: {f.message}" for f in verify(corpus)]


def _differing(corpus: Path, name: str, end: dict[str, Any]) -> list[str]:
    now = end_of(corpus, name)
    return _unsound(corpus, "after") + [f"{key} differs" for key in end if end[key] != now[key]]


def signalled(moments: int, seed: int, scratch: Path) -> tuple[int, list[str]]:
    """Real signals to a real `ingest`; every fifth with a process for the work."""
    chance, wrong, home = random.Random(seed), list[str](), scratch / "home"
    zygote = Zygote(scratch)
    undisturbed: dict[str, tuple[float, dict[str, Any]]] = {}
    for moment in range(moments):
        workers = str(int(moment % 5 == 4))
        argv = [word if word != "0" else workers for word in INGEST.argv(home)]
        if workers not in undisturbed:
            _anew(home)
            began = time.monotonic()
            assert zygote.run(argv) == 0, zygote.log.read_text()
            undisturbed[workers] = time.monotonic() - began, end_of(home / "corpus", "ingest")
        length_s, end = undisturbed[workers]
        _anew(home)
        child = zygote.start(argv)
        time.sleep(chance.uniform(0.0, length_s))
        os.kill(child, chance.choice((signal.SIGINT, signal.SIGTERM)))  # it is waited for later
        code = zygote.wait()
        found = [] if code in (130, 0) else [f"exit {code}: {zygote.log.read_text()[-300:]}"]
        found += _unsound(home / "corpus", "before")
        if zygote.run(argv):
            found += [f"the rerun: {zygote.log.read_text()[-300:]}"]
        else:
            found += _differing(home / "corpus", "ingest", end)
        wrong += [f"ingest --workers {workers}, moment {moment}: {each}" for each in found]
    zygote.close()
    return moments, wrong


def _anew(home: Path) -> None:
    shutil.rmtree(home, ignore_errors=True)
    write_toy(home / "raw", KINDS)


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--moments", type=int, default=50)
    asked.add_argument("--calls", type=int, default=10)
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("commands", nargs="*", default=list(WRITERS))
    given = asked.parse_args()
    total, wrong = 0, list[str]()
    with tempfile.TemporaryDirectory(prefix="interrupts.") as scratch:
        runs = [("signals to ingest", lambda: signalled(given.moments, given.seed, Path(scratch)))]
        runs += [
            (name, lambda name=name: interrupted_at_calls(name, given.calls, given.seed, Path(scratch) / name))
            for name in given.commands
        ]  # fmt: skip
        for name, run in runs:
            count, found = run()
            total, wrong = total + count, wrong + found
            sys.stdout.write(f"{name}: {count} interrupts, {len(found)} problems\n")
            sys.stdout.flush()
    sys.stdout.write("".join(f"{each}\n" for each in wrong))
    sys.stdout.write(f"{total} interrupts, {len(wrong)} problems\n")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
