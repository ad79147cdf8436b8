"""SIGKILL of the service, of its builds, or of both at random moments: `python -m tests.faults.service_kills [--rounds 50] [--seed 14]`.

A round submits a build over REST, kills once, starts the server again and waits for the job. The corpus must then be that of a build
which nothing killed, and nothing may be left of the killed one. A round takes 10 to 30 s on two cores.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from ingest.corpus.layout import open_corpus
from ingest.corpus.writer import UNFINISHED
from tests.faults.test_build_stops import KINDS, TARGETS, digest
from tests.faults.toy import write_toy
from tests.jobs.build_cases import build, invoke, newest, write_spec
from tests.service.test_serve import Server, serving
from tests.service.test_serve_jobs import asked

FIRST = {"e0": "good"}  # committed before the build that is killed
VICTIMS = (("server",), ("build",), ("server", "build"), ("server", "job", "build"))
# What the command line of a process has.
WORDS = {
    "server": ["jobs", "serve"],
    "job": ["jobs.service.job_process"],
    "build": ["jobs", "build"],
}
JOB = {"kind": "build"}
TOO_EARLY, TOO_LATE = "before the first target", "after the build"
MARK = "EICORPUS_KILLED_ROUND"  # in the environment of every process of a round
DEADLINE_S = 300.0
POLL_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One kill. `at`: the target that ran, `TOO_EARLY` or `TOO_LATE`."""

    victims: tuple[str, ...]
    after_s: float
    at: str
    problems: list[str]


class Kills:
    """A spec with one episode in its corpus and the others waiting, restored before each round at the same path."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._spec = write_spec(scratch / "work", FIRST)
        build(self._spec)
        write_toy(self._spec.parent / "raw", KINDS)
        shutil.copytree(self._spec.parent, scratch / "before")
        build(self._spec)
        self._contents = self._content()

    def duration_s(self) -> float:
        """Of a build that nothing kills, as a job of a server."""
        self._restore()
        with self._processes() as server:
            started_s = time.monotonic()
            _submit(server)
            self._wait(server)
            return time.monotonic() - started_s

    def round(
        self, victims: tuple[str, ...], moment: Callable[[Callable[[], str]], object]
    ) -> Round:
        """Kill when `moment` returns. It is passed how to ask what the build has reached."""
        self._restore()
        with self._processes() as server:
            _submit(server)
            started_s = time.monotonic()
            moment(lambda: self._reached(server))
            at, after_s = self._reached(server), time.monotonic() - started_s
            for process in _marked():
                if any(_is(process, victim) for victim in victims):
                    process.kill()
            if "server" in victims:
                server.process.wait()
                with self._serving() as again:
                    self._wait(again)
            else:
                self._wait(server)
        return Round(victims=victims, after_s=after_s, at=at, problems=list(self._problems()))

    def _restore(self) -> None:
        shutil.rmtree(self._spec.parent)
        shutil.copytree(self._scratch / "before", self._spec.parent)

    @contextmanager
    def _processes(self) -> Iterator[Server]:
        """A server with a state folder of its own, whose processes carry a new mark."""
        shutil.rmtree(self._state, ignore_errors=True)
        os.environ[MARK] = uuid.uuid4().hex
        with self._serving() as server:
            yield server

    def _serving(self) -> Any:
        return serving(self._spec, self._state)

    @property
    def _state(self) -> Path:
        return self._scratch / "state"

    def _reached(self, server: Server) -> str:
        if asked(server, "GET", "/1")["state"] not in ("queued", "running"):
            return TOO_LATE
        log = next(self._state.glob("*/jobs")) / "1.log"
        text = log.read_text() if log.is_file() else ""
        begun = [target for target in TARGETS if f"{target}: " in text]
        return begun[-1] if begun else TOO_EARLY

    def _wait(self, server: Server) -> None:
        """Until the job ends. A job whose command was killed has failed; the next build goes on."""
        job = self._ended(server, 1)
        if job["exit_code"] == -signal.SIGKILL:
            _submit(server, "next")
            job = self._ended(server, 2)
        if job["state"] != "succeeded":
            raise AssertionError(f"{job}")

    def _ended(self, server: Server, job_id: int) -> Any:
        until_s = time.monotonic() + DEADLINE_S
        while (job := asked(server, "GET", f"/{job_id}"))["state"] in ("queued", "running"):
            if time.monotonic() > until_s:
                raise TimeoutError(f"{job}")
            time.sleep(POLL_S)
        return job

    def _content(self) -> tuple[str, str]:
        return digest(self._spec), newest(self._spec)

    def _problems(self) -> Iterator[str]:
        """What is not as it is after a build that nothing killed."""
        _, alive = psutil.wait_procs(_marked(), timeout=30)
        for process in alive:
            yield f"left: process {process.pid} {process.cmdline()}"
        if (now := self._content()) != self._contents:
            yield f"content and manifest are {now}; expected {self._contents}"
        corpus = open_corpus(self._spec.parent / "corpus")
        staged = [path for path in corpus.staging.rglob("*") if path.is_file()]
        half = [path for path in corpus.root.rglob(".*.part") if path.is_file()]
        mark = corpus.root / UNFINISHED
        for path in (*staged, *half, *([mark] if mark.exists() else [])):
            yield f"left: {path}"
        checked = invoke("verify", str(corpus.root))
        if checked.exit_code:
            yield f"verify: {checked.output}"
        if built := build(self._spec)["built"]:  # takes every lock
            yield f"built again: {built}"


def _submit(server: Server, key: str = "build") -> None:
    asked(server, "POST", "", {"key": key, "job": JOB})


def _is(process: psutil.Process, name: str) -> bool:
    """Whether the process runs that module: `-m`, then its words."""
    try:
        words = process.cmdline()
    except psutil.NoSuchProcess:
        return False
    if "-m" not in words:
        return False
    first = words.index("-m") + 1
    return words[first : first + len(WORDS[name])] == WORDS[name]


def _marked() -> list[psutil.Process]:
    """Processes of this round, but this one."""
    mark, marked = os.environ[MARK], []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARK) == mark:
                marked.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return marked


def rounds(scratch: Path, count: int, seed: int) -> Iterator[Round]:
    """Every kind of victim in turn, each at a moment by chance, until `count` kills met a build; one that came after its end is yielded too."""
    chance, kills, number = np.random.default_rng(seed), Kills(scratch), 0
    duration_s = kills.duration_s()
    while number < count:
        after_s = float(chance.random()) * duration_s
        one = kills.round(VICTIMS[number % len(VICTIMS)], lambda _, s=after_s: time.sleep(s))
        if one.at == TOO_LATE:
            duration_s = min(duration_s, one.after_s)
        else:
            number += 1
        yield one


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=14)
    options = parser.parse_args()
    done: list[Round] = []
    with tempfile.TemporaryDirectory(prefix="service_kills.") as scratch:
        for one in rounds(Path(scratch), options.rounds, options.seed):
            done.append(one)
            line = f"{len(done)}: {' and '.join(one.victims)} after {one.after_s:.1f} s, {one.at}"
            sys.stdout.write("\n  ".join([line, *one.problems]) + "\n")
            sys.stdout.flush()
    whole = sum(not one.problems for one in done)
    reached = ", ".join(
        f"{at} {count}" for at, count in Counter(one.at for one in done).most_common()
    )
    sys.stdout.write(
        f"seed {options.seed}: {whole} of {len(done)} end as a whole build; killed in: {reached}\n"
    )
    return int(whole < len(done))


if __name__ == "__main__":
    sys.exit(main())
