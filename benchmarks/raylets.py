"""A Ray cluster of real raylets on this machine, each with a view of its own of some folders. It needs no rights.

A process of a node, and the driver, works in the folder of its view. A link to `HERE / name` therefore leads each of them to something else.

Own port, own folder, own token: other clusters of the machine are neither seen nor touched.
"""

from __future__ import annotations

import json
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

ROOT = Path(__file__).parents[1]
MEMORY = 4_000_000_000  # bytes of a node: less than the default limit of an episode, as of a small cloud machine
OBJECT_STORE = 100_000_000
SETUP_LISTS = [  # which Ray requires in a configuration
    *("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands"),
    *("head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files"),
]
# As KubeRay sets them: a pod is ready when it has started.
PROVIDER_FLAGS = ("disable_node_updaters", "disable_launch_config_check", "foreground_node_launch")
START_S = 120.0
TRIES = 5  # at a node
HERE = Path(
    "/proc/self/cwd"
)  # the kernel answers each process with its own; the workers of a raylet work where it does


class Raylets:
    """One head without CPUs, and as many nodes as a caller adds. Use as a context manager.

    Args:
        view: the folder that the driver works in.
        most_nodes: that an autoscaler may add, of one CPU each; 0: there is none.
        gpus: that each node declares; there need be none.
    """

    def __init__(self, view: Path, *, most_nodes: int = 0, gpus: int = 0) -> None:
        self.view, self._most_nodes, self.gpus = view, most_nodes, gpus
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
        try:
            self.start_head()
        except BaseException:
            self.__exit__()
            raise
        return self

    def start_head(self) -> None:
        """Again, when it was killed: at the same address, without what it knew."""
        port = self.address.rpartition(":")[2]
        words = ["--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=false"]
        if self._most_nodes:
            words.append(f"--autoscaling-config={self._autoscaling()}")
        log = self._begin([*words, f"--temp-dir={self.folder}"])
        assert self._has_started(log), f"the head ended: {log.read_text()}"

    def _autoscaling(self) -> Path:
        """The configuration of Ray's autoscaler with its provider of nodes on this machine, which works where the head does."""
        self.env |= {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
        most = self._most_nodes
        worker = {"CPU": 1, "memory": MEMORY, "object_store_memory": OBJECT_STORE}
        config = {
            "cluster_name": "eicorpus-test",
            "max_workers": most,
            "idle_timeout_minutes": 1,
            "upscaling_speed": 1,
            "provider": {
                "type": "external",
                "module": "benchmarks.raylet_provider.RayletProvider",
                "gcs_address": self.address,
                "launch_multiple": True,
                **dict.fromkeys(PROVIDER_FLAGS, True),
            },
            "available_node_types": {
                "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
                "worker": {
                    "resources": worker,
                    "node_config": {},
                    "min_workers": 0,
                    "max_workers": most,
                },
            },
            "head_node_type": "ray.head.default",
            **{name: {} for name in ("auth", "docker", "file_mounts")},
            **{name: [] for name in SETUP_LISTS},
            "rsync_exclude": [],
            "rsync_filter": [],
        }
        path = self.folder / "autoscaling.json"
        path.write_text(json.dumps(config))
        return path

    def __exit__(self, *_: object) -> None:
        try:
            for process in self.started:
                kill_tree(process)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def add(self, *views: Path, cpus: int = 1) -> None:
        """A node that works in each of these folders; returns when all have joined."""
        begun = [self._begin_node(view, cpus) for view in views]
        for view, log in zip(views, begun, strict=True):
            logs = chain([log], (self._begin_node(view, cpus) for _ in range(TRIES - 1)))
            assert any(map(self._has_started, logs)), f"a node ended: {log.read_text()}"

    def _begin_node(self, view: Path, cpus: int) -> Path:
        """Returns when the node has its socket: Ray numbers sockets by those that exist, and of two nodes that take the same number one
        waits 30 s and ends."""
        sockets = self._sockets()
        words = [f"--address={self.address}", f"--num-cpus={cpus}", f"--memory={MEMORY}"]
        words += [f"--num-gpus={self.gpus}"]
        log = self._begin(words, view)
        self._wait(log, lambda: self._sockets() > sockets)
        return log

    def _sockets(self) -> int:
        return sum(1 for _ in self.folder.glob("session_*/sockets/raylet*"))

    def _begin(self, words: Sequence[str], view: Path = ROOT) -> Path:
        ray = [sys.executable, "-m", "ray.scripts.scripts", "start", *words]
        ray += ["--block", "--disable-usage-stats", f"--object-store-memory={OBJECT_STORE}"]
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
