"""A Ray cluster of real raylets on this machine, each with a view of its own of some folders. It needs no rights.

A process of a node, and the driver, works in the folder of its view. A link to `HERE / name` therefore leads each of them to something else.

Own port, own folder, own token: other clusters of the machine are neither seen nor touched.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
MEMORY = 4_000_000_000  # bytes of a node: less than the default limit of an episode, as of a small cloud machine
START_S = 120.0
TRIES = 5  # at a node
HERE = Path(
    "/proc/self/cwd"
)  # the kernel answers each process with its own; the workers of a raylet work where it does


class Raylets:
    """One head without CPUs, and as many nodes of one CPU as a test adds. Use as a context manager.

    Args:
        view: the folder that the driver works in.
        gpus: that each node declares; there need be none.
    """

    def __init__(self, view: Path, gpus: int = 0) -> None:
        self.view, self.gpus = view, gpus
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self.folder = Path(tempfile.mkdtemp(prefix="eicr"))  # short: sockets lie below it
        self.env = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "RAY_AUTH_MODE": "token",
            # What else runs on this machine fills its memory, too: no reason to end a worker here.
            "RAY_memory_monitor_refresh_ms": "0",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
        }
        self.started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Raylets:
        port = self.address.rpartition(":")[2]
        words = ["--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=false"]
        try:
            log = self._begin([*words, f"--temp-dir={self.folder}"])
            assert self._has_started(log), f"the head ended: {log.read_text()}"
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            for process in self.started:
                kill_tree(process)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def add(self, *views: Path) -> None:
        """A node that works in each of these folders; returns when all have joined."""
        begun = [self._begin_node(view) for view in views]
        for view, log in zip(views, begun, strict=True):
            logs = chain([log], (self._begin_node(view) for _ in range(TRIES - 1)))
            assert any(map(self._has_started, logs)), f"a node ended: {log.read_text()}"

    def _begin_node(self, view: Path) -> Path:
        """Returns when the node has its socket: Ray numbers sockets by those that exist, and of two nodes that take the same number one
        waits 30 s and ends."""
        sockets = self._sockets()
        words = [f"--address={self.address}", "--num-cpus=1", f"--memory={MEMORY}"]
        words += [f"--num-gpus={self.gpus}"]
        log = self._begin(words, view)
        self._wait(log, lambda: self._sockets() > sockets)
        return log

    def _sockets(self) -> int:
        return sum(1 for _ in self.folder.glob("session_*/sockets/raylet*"))

    def _begin(self, words: Sequence[str], view: Path = ROOT) -> Path:
        ray = [sys.executable, "-m", "ray.scripts.scripts", "start", *words]
        ray += ["--block", "--disable-usage-stats", "--object-store-memory=100000000"]
        ray += ["--include-log-monitor=false"]  # no test reads what a worker prints
        path = self.folder / f"{len(self.started)}.log"
        with path.open("wb") as log:
            self.started.append(
                subprocess.Popen(
                    ray,
                    cwd=view,
                    env=self.env,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )
        return path

    def _has_started(self, log: Path) -> bool:
        """Waits for it. `ray start` gives up after 30 s, which a busy machine may need."""
        return self._wait(log, lambda: "Ray runtime started" in log.read_text())

    def _wait(self, log: Path, is_so: Callable[[], bool]) -> bool:
        """False when the process of this log ends before."""
        process = self.started[int(log.stem)]
        until = time.monotonic() + START_S
        while not is_so():
            if process.poll() is not None:
                # What it has started may live on and join late: a node too many.
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                return False
            assert time.monotonic() < until, f"a node has not started: {log.read_text()}"
            time.sleep(0.05)
        return True

    def command(self, *words: str, module: str = "jobs") -> list[str]:
        """The real command, as a driver of this cluster."""
        return [sys.executable, "-m", module, *words, "--ray", "--address", self.address]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words),
            cwd=self.view,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )


def kill_tree(process: subprocess.Popen[bytes]) -> None:
    """A process and everything below it, at once, as the end of its machine would."""
    try:
        tree = [*psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    process.kill()
    for child in tree:
        if child.is_running():
            child.kill()
    process.wait()
    psutil.wait_procs(tree, timeout=30)
