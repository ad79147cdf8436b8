"""Real raylets that declare a GPU each: an actor is made on a node that comes, and the work of one whose node goes is done by another."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.raylets import ROOT, Raylets, kill_tree

pytestmark = [pytest.mark.slow, pytest.mark.ray]
PATIENCE_S = 240.0
NUM_WORKS = 60


class Lines:
    """What the driver has said so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process, self.seen = process, list[tuple[int, object]]()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("["):
                work, outcome = json.loads(line)
                self.seen.append((work, outcome))

    def close(self) -> None:
        """After the process has ended."""
        assert self.process.stdout is not None
        self._thread.join()
        self.process.stdout.close()
        self.process.wait()

    def nodes(self, first: int = 0) -> set[str]:
        """On which works were done, from the line of this number on."""
        return {str(outcome[0]) for _, outcome in self.seen[first:] if isinstance(outcome, list)}

    def wait(self, is_so: Callable[[], bool]) -> None:
        until = time.monotonic() + PATIENCE_S
        while not is_so():
            assert time.monotonic() < until, self.seen
            assert self.process.poll() is None, (self.process.returncode, self.seen)
            time.sleep(0.1)


def test_nodes_with_gpus_come_and_go(tmp_path: Path) -> None:
    with Raylets(ROOT, gpus=1) as cluster:
        cluster.add(ROOT)
        first_node = cluster.started[-1]
        words = cluster.command(str(NUM_WORKS), module="tests.faults.drive_actors")
        log = (tmp_path / "driver.log").open("w")
        process = subprocess.Popen(
            words, cwd=ROOT, env=cluster.env, stdout=subprocess.PIPE, stderr=log, text=True
        )
        lines = Lines(process)
        try:
            lines.wait(lambda: len(lines.seen) >= 2)
            cluster.add(ROOT)
            lines.wait(lambda: len(lines.nodes()) == 2)
            kill_tree(first_node)
            num_before = len(lines.seen)
            assert process.wait(PATIENCE_S) == 0, (tmp_path / "driver.log").read_text()[-2000:]
        finally:
            kill_tree(process)
            lines.close()
            log.close()
    assert num_before < NUM_WORKS  # something was left to do
    assert sorted(work for work, _ in lines.seen) == list(range(NUM_WORKS))
    assert all(isinstance(outcome, list) for _, outcome in lines.seen), lines.seen
    assert {work: outcome[1] for work, outcome in lines.seen if isinstance(outcome, list)} == {
        work: [work] for work in range(NUM_WORKS)
    }
    assert len(lines.nodes(num_before + 2)) == 1
