"""Runs mutations in a child process and watches it: a crash or a hang is a violation, and the next child goes on after it."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

ROOT = Path(__file__).parents[2]
START_S = 600.0  # to generate the sets on a busy machine
HANG_S = 120.0  # of one mutation


@dataclass
class Tally:
    """What a family went through; a violation names what makes it happen again."""

    family: str
    mutations: int = 0
    violations: list[str] = field(default_factory=list)
    checks: Counter[str] = field(default_factory=Counter)  # who looked, and how often
    cpu_s: Counter[str] = field(default_factory=Counter)  # of each check
    sources: Counter[str] = field(default_factory=Counter)  # whose files were damaged
    endings: Counter[str] = field(default_factory=Counter)  # of those files

    def add(self, seed: int, line: dict[str, Any]) -> None:
        """One mutation, as the child tells it."""
        self.mutations += 1
        self.checks[line["check"]] += 1
        self.cpu_s[line["check"]] += line["cpu_s"]
        self.sources[line["source"]] += 1
        self.endings[PurePath(line["file"]).suffix] += 1
        where = f"seed {seed}, mutation {line['ends']}, {line['source']}/{line['file']}"
        self.violations += [f"{where} ({line['check']}): {each}" for each in line["problems"]]

    def __str__(self) -> str:
        """The counts, then the violations."""
        lines = [f"{self.family}: {self.mutations} mutations, {len(self.violations)} violations"]
        each_ms = {name: 1000 * self.cpu_s[name] / num for name, num in self.checks.items()}
        checks = [f"{name} {n} ({each_ms[name]:.0f} ms)" for name, n in self.checks.most_common()]
        lines.append(f"  checks: {', '.join(checks)}")
        for title, counts in (("sources", self.sources), ("endings", self.endings)):
            lines.append(f"  {title}: {', '.join(f'{k} {n}' for k, n in counts.most_common())}")
        return "\n".join([*lines, *(f"  {each}" for each in self.violations[:20])])


def fuzz(family: str, *, seconds: float, seed: int, first: int = 0, most: int = 0) -> Tally:
    """Mutate for so many seconds (not counting the start of a child), or until `most` are done."""
    tally, index, left_s = Tally(family), first, seconds
    while left_s > 0 and not (most and tally.mutations >= most):
        index, used_s = _one_child(tally, seed, index, left_s, most)
        left_s -= used_s
        if not used_s:
            break
    return tally


def _one_child(tally: Tally, seed: int, index: int, left_s: float, most: int) -> tuple[int, float]:
    command = [sys.executable, "-m", "tests.fuzz.child", tally.family, str(seed), str(index)]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        lines: queue.Queue[str] = queue.Queue()
        assert child.stdout
        assert child.stderr
        last_words: list[str] = []
        readers = [
            threading.Thread(target=_pass_on, args=(child.stdout, lines), daemon=True),
            threading.Thread(target=last_words.extend, args=(child.stderr,), daemon=True),
        ]
        for reader in readers:
            reader.start()
        begun = 0.0
        try:
            if not lines.get(timeout=START_S):
                tally.violations.append(f"{tally.family}: no start: {''.join(last_words)[-800:]}")
                return index, 0.0
            begun = time.monotonic()
            while time.monotonic() - begun < left_s and not (most and tally.mutations >= most):
                text = lines.get(timeout=HANG_S)
                if not text:
                    found = f"seed {seed}, mutation {index}: the process died ({child.wait()})"
                    tally.violations.append(found)
                    return index + 1, time.monotonic() - begun
                line = json.loads(text)
                if "ends" in line:
                    tally.add(seed, line)
                    index = line["ends"] + 1
        except queue.Empty:
            tally.violations.append(f"seed {seed}, mutation {index}: hangs")
            index += 1
        finally:
            child.terminate()
            try:
                child.wait(timeout=10)
            except subprocess.TimeoutExpired:
                child.kill()
        return index, time.monotonic() - begun


def _pass_on(stream: object, lines: queue.Queue[str]) -> None:
    for line in stream:  # type: ignore[attr-defined]
        lines.put(line)
    lines.put("")
