"""A Ray cluster as the driver sees it: connecting, its nodes, loss of its head, and the resources that an episode requests from a node."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from schemas.errors import ClusterLost, ConfigError, system_error_text

MIB = 1024 * 1024
LEAST_MIB = 512  # of memory for an episode: a worker process and a short recording
SHARE = 0.9  # of a node's memory; the rest is for what its raylet and its agent add later


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node that is alive, and what it lends."""

    id: str
    name: str
    cpus: float
    memory_mib: float
    gpus: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a list of nodes can do for episodes that want `cpus` each."""

    cpus: int
    memory_mib: int  # to ask for an episode
    slots: int  # episodes at a time
    largest_mib: int  # memory of the largest node that can work on an episode
    lack: str = ""  # why there are no slots


def nodes_of(rows: Iterable[Mapping[str, Any]]) -> list[Node]:
    """The rows of `ray.nodes()` that are alive, by name."""
    nodes = [
        Node(
            id=row["NodeID"],
            name=f"{row['NodeManagerHostname']} ({row['NodeManagerAddress']}, {row['NodeID'][:8]})",
            cpus=row["Resources"].get("CPU", 0.0),
            memory_mib=row["Resources"].get("memory", float("inf")) / MIB,
            gpus=row["Resources"].get("GPU", 0.0),
        )
        for row in rows
        if row["Alive"]
    ]
    return sorted(nodes, key=lambda node: (node.name, node.id))


def offer_of(nodes: Sequence[Node], *, cpus: int, limit_mib: int) -> Offer:
    """Fit an episode to the nodes.

    It asks for its limit, or for its CPUs' share of the smallest node where that is less: a reservation that no node can
    give waits endlessly. A node too small for `LEAST_MIB` gets no work.
    """
    least_mib = min(limit_mib, LEAST_MIB)
    able = [n for n in nodes if n.cpus >= cpus and n.memory_mib * SHARE >= least_mib]
    if not able:
        lack = _lack(nodes, cpus, least_mib)
        return Offer(cpus=cpus, memory_mib=least_mib, slots=0, largest_mib=0, lack=lack)
    shares_mib = [n.memory_mib * SHARE / (n.cpus // cpus) for n in able]
    memory_mib = int(min(limit_mib, max(least_mib, min(shares_mib))))
    slots = sum(int(min(n.cpus // cpus, n.memory_mib // memory_mib)) for n in able)
    largest_mib = int(min(max(n.memory_mib for n in able), 2**40))
    return Offer(cpus=cpus, memory_mib=memory_mib, slots=slots, largest_mib=largest_mib)


def _lack(nodes: Sequence[Node], cpus: int, least_mib: int) -> str:
    lenders = [n for n in nodes if n.cpus > 0]
    if not lenders:
        return f"no node offers a CPU ({len(nodes)} alive)"
    most_cpus = max(n.cpus for n in lenders)
    asked = f"an episode needs {cpus} CPUs and {least_mib} MiB of one node"
    if most_cpus < cpus:
        has = f"the largest of {len(lenders)} nodes offers {most_cpus:g} CPUs"
        return f"{asked}; {has}; use --decoder-threads {max(int(most_cpus), 1)} or larger nodes"
    most_mib = max(n.memory_mib for n in lenders if n.cpus >= cpus)
    has = f"the largest of {len(lenders)} nodes offers {most_mib:.0f} MiB"
    return f"{asked}; {has}, {1 - SHARE:.0%} of it kept free; use nodes with more memory"


CONNECT_S = 10.0  # to reach a cluster
REFRESH_S = 1.0  # between two looks
ANSWER_S = 2.0  # that the driver waits for a look of the thread
# Without an answer of the head. Ray itself ends this process after 60 s, without a word of ours; a head that is
# restarted (KubeRay with fault tolerance) is back before.
HEAD_S = 40.0
DRAINED = (3, 4)  # NodeDeathInfo.Reason of Ray: drained for preemption, drained because it was idle


class Cluster:
    """The cluster that this process is connected to.

    A thread of its own asks the head for nodes: such a question does not return when the head is gone.
    """

    def __init__(self) -> None:
        import ray

        self.nodes: list[Node] = nodes_of(ray.nodes())
        self.names = {node.id: node.name for node in self.nodes}  # also of nodes that are gone
        self.drained: set[str] = (
            set()
        )  # nodes that were announced to go, whether they have gone or not
        self.address: str = ray.get_runtime_context().gcs_address
        self.is_lost = False
        self._silent_since: float | None = None
        self._looked_s = 0.0
        self._ended, self._wake = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._turn = threading.Condition()
        self._num_begun = self._num_ended = 0  # looks of the thread
        self._is_late = (
            False  # whether the driver has waited in vain for the look that is under way
        )

    def watch(self) -> None:
        """Keep `nodes` fresh until `close`."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._refresh, daemon=True, name="ray-nodes")
            self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._wake.set()
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
                self.lose(f"has not responded for {HEAD_S:g} s ({system_error_text(error)})")

    @property
    def is_silent(self) -> bool:
        """Whether the head has not answered when it was last tried."""
        return self._silent_since is not None

    def lose(self, reason: str) -> None:
        """
        Raises:
            ClusterLost: always.
        """
        self.is_lost = True
        raise ClusterLost(f"the head of the Ray cluster {reason}", where=self.address)

    def _refresh(self) -> None:
        import ray

        while True:
            self._wake.wait(REFRESH_S)
            self._wake.clear()
            if self._ended.is_set():
                return
            with self._turn:
                self._num_begun += 1
            if self._silent_since is None and ray.is_initialized():  # a question would start a Ray
                with suppress(ray_error()):
                    self._look()
            with self._turn:
                self._num_ended, self._is_late = self._num_begun, False
                self._turn.notify_all()

    def _await_look(self) -> None:
        """Let the thread look now, and wait `ANSWER_S` for it at most; not again where it has not answered yet."""
        with self._turn:
            if self._thread is None or self._is_late:
                return
            next_look = self._num_begun + 1
            self._wake.set()
            self._is_late = not self._turn.wait_for(lambda: self._num_ended >= next_look, ANSWER_S)

    def _look(self) -> None:
        import ray

        rows = ray.nodes()
        nodes = nodes_of(rows)
        self.nodes = self.nodes if nodes == self.nodes else nodes
        self.names |= {node.id: node.name for node in nodes}
        self.drained |= _draining()
        self.drained |= {row["NodeID"] for row in rows if row.get("DeathReason") in DRAINED}

    def is_drained(self, node_id: str) -> bool:
        """Whether a node that is gone was announced to go: preempted, or removed by an autoscaler. Looks once more for it.

        A node may be gone before its head reports why.
        """
        if node_id not in self.drained and self._silent_since is None:
            self._await_look()
        return node_id in self.drained


def ray_error() -> type[Exception]:
    """The base class of what Ray raises."""
    import ray

    error: type[Exception] = ray.exceptions.RayError
    return error


def _draining() -> set[str]:
    """Nodes that are announced to go; none on a Ray that does not report them."""
    from ray._private.state import state

    report = getattr(state, "get_draining_nodes", None)
    return set(report()) if report is not None else set()


def _keep_standard_output() -> None:
    """Without this, Ray prints on standard output, where the JSON of a command goes, that a node or a worker has died."""
    from ray._private import worker

    if hasattr(worker, "_worker_logs_enabled"):  # as the debugger of Ray does
        worker._worker_logs_enabled = False


def connect(address: str | None, num_cpus: int | None) -> bool:
    """Reach a cluster, or start one on this machine. Returns whether it is this process that must shut it down.

    Raises:
        ConfigError: nothing answers at the address.
    """
    import ray

    if ray.is_initialized():
        return False
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    _keep_standard_output()
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
            f"no Ray cluster responds: {system_error_text(error)}",
            remedy="start the cluster, or correct --address",
            where=f"--address {address}",
        ) from error
    return True
