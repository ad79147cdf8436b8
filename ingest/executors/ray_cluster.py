"""A Ray cluster as the driver sees it: connect, list its nodes, notice when its head is lost."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

from ingest.executors.node_requests import Node, nodes_of
from schemas.errors import ClusterLost, ConfigError
from schemas.system_error import system_error_text

CONNECT_S = 10.0  # to reach a cluster
REFRESH_S = 1.0  # between two looks
# Without an answer of the head. Ray itself ends this process after 60 s, without a word of ours; a head that is
# restarted (KubeRay with fault tolerance) is back before.
HEAD_S = 40.0


class Cluster:
    """The cluster that this process is connected to.

    A thread of its own asks the head for nodes: such a question does not return when the head is gone.
    """

    def __init__(self) -> None:
        import ray

        self.nodes: list[Node] = nodes_of(ray.nodes())
        self.address: str = ray.get_runtime_context().gcs_address
        self.is_lost = False
        self._silent_since: float | None = None
        self._looked_s = 0.0
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def watch(self) -> None:
        """Keep `nodes` fresh until `close`."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._refresh, daemon=True, name="ray-nodes")
            self._thread.start()

    def close(self) -> None:
        self._ended.set()
        if self._thread is not None and not self.is_lost:
            self._thread.join()

    def check(self) -> None:
        """
        Raises:
            ClusterLost: the head has not accepted a connection for `HEAD_S`.
        """
        now_s = time.monotonic()
        if now_s - self._looked_s < REFRESH_S:
            return
        self._looked_s = now_s
        host, _, port = self.address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=2.0).close()
            self._silent_since = None
        except OSError as error:
            if self._silent_since is None:
                self._silent_since = now_s
            if now_s - self._silent_since >= HEAD_S:
                self.lose(f"has not answered for {HEAD_S:g} s ({system_error_text(error)})")

    def lose(self, reason: str) -> None:
        """
        Raises:
            ClusterLost: always.
        """
        self.is_lost = True
        raise ClusterLost(f"the head of the Ray cluster {reason}", where=self.address)

    def _refresh(self) -> None:
        import ray

        while not self._ended.wait(REFRESH_S):
            if self._silent_since is None and ray.is_initialized():  # a question would start a Ray
                try:
                    nodes = nodes_of(ray.nodes())
                    self.nodes = self.nodes if nodes == self.nodes else nodes
                except ray.exceptions.RayError:
                    continue


def connect(address: str | None, num_cpus: int | None) -> bool:
    """Reach a cluster, or start one on this machine. Returns whether it is this process that must shut it down.

    Raises:
        ConfigError: nothing answers at the address.
    """
    import ray

    if ray.is_initialized():
        return False
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    host, _, port = (address or "").rpartition(":")
    try:
        if host and port.isdigit() and "//" not in host:
            # Ray itself would try for minutes.
            socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
        if address is not None:
            ray.init(address=address, **quiet)
        else:
            ray.init(address="local", num_cpus=num_cpus, include_dashboard=False, **quiet)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"no Ray cluster answers: {system_error_text(error)}", where=f"--address {address}"
        ) from error
    return True
