"""Runs mutations in a child process and watches it: a crash or a hang is a violation, and the next child goes on after it."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
START_S = 600.0  # to generate the sets on a busy machine
HANG_S = 120.0  # of one mutation


@dataclass
class Tally:
    """What a family went through; a violation names what makes it happen again."""

    family: str
    mutations: int = 0
    violations: list[str] = field(default_factory=list)


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
                    tally.mutations += 1
                    index = line["ends"] + 1
                    where = f"seed {seed}, mutation {line['ends']}, {line['what']}"
                    tally.violations += [f"{where}: {told}" for told in line["told"]]
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
