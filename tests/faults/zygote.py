"""Runs the real `eicorpus` command in forked children of one process that has imported everything: a start costs milliseconds.

A line of JSON a command on standard input, a line with the child's process number in answer. An empty line asks for the exit code; until then the
number belongs to the child, so that whoever signals it signals nobody else.
{"argv": [...], "log": path of its output, "kill_at": [name of a method of LocalStorage, its n-th call] or null, "env": {variable: value},
"set": {"module:NAME": value}}
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any, NoReturn

from ingest.storage.local import LocalStorage
from jobs.cli import main as command
from jobs.command_table import COMMANDS

ROOT = Path(__file__).parents[2]
WRITING = ("ingest", "measure", "tier", "caption", "dedup", "latents", "manifest", "compact", "gc", "forget", "build")  # fmt: skip


class Zygote:
    """The other side, for tests: `start` a command, do to its process what the test is about, `wait` for its exit code."""

    def __init__(self, scratch: Path, commands: Sequence[str] = WRITING) -> None:
        """`commands`: those whose modules are imported before any is run."""
        self.log = scratch / "log.txt"
        words = [sys.executable, "-m", "tests.faults.zygote", *commands]
        self.process = Popen(words, cwd=ROOT, stdin=PIPE, stdout=PIPE, text=True)

    def start(
        self,
        argv: Sequence[str],
        kill_at: tuple[str, int] | None = None,
        env: Mapping[str, str] | None = None,
        constants: Mapping[str, int] | None = None,
    ) -> int:
        """The process number of the running command. `constants`: of the product, by "module:NAME", for this command."""
        assert self.process.stdin is not None
        asked = {"argv": list(argv), "log": str(self.log), "kill_at": kill_at, "env": env or {}}
        line = json.dumps({**asked, "set": constants or {}})
        print(line, file=self.process.stdin, flush=True)
        return self._answer()

    def wait(self) -> int:
        """The exit code; minus the signal that ended it."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self._answer()

    def run(
        self,
        argv: Sequence[str],
        kill_at: tuple[str, int] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> int:
        self.start(argv, kill_at, env)
        return self.wait()

    def _answer(self) -> int:
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self.process.stdout.close()


def main() -> None:
    for name in sys.argv[1:]:
        import_module(COMMANDS[name].place.partition(":")[0])
    while line := sys.stdin.readline():
        asked = json.loads(line)
        child = os.fork()
        if not child:
            _become(asked)
        _say(child)
        sys.stdin.readline()
        _, status = os.waitpid(child, 0)
        _say(os.waitstatus_to_exitcode(status))


def _say(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def _become(asked: dict[str, Any]) -> NoReturn:
    os.setsid()
    with open(asked["log"], "wb") as log, open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.update(asked["env"])
    for place, value in asked["set"].items():
        module, _, name = place.partition(":")
        setattr(import_module(module), name, value)
    sys.argv = ["eicorpus", *asked["argv"]]
    if asked["kill_at"] is not None:
        _kill_at(*asked["kill_at"])
    try:
        command()
    except SystemExit as ended:
        sys.stdout.flush()
        os._exit(ended.code if isinstance(ended.code, int) else int(ended.code is not None))
    os._exit(0)


def _kill_at(name: str, call: int) -> None:
    """SIGKILL when a method of LocalStorage is called for the `call`-th time, before it does anything."""
    real, seen = getattr(LocalStorage, name), 0

    def killing(*given: Any, **how: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*given, **how)

    setattr(LocalStorage, name, killing)


if __name__ == "__main__":
    main()
