"""What an episode asks of a node, fitted to the nodes that exist. Arithmetic only; `ingest/executors/ray_cluster.py` talks to Ray."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
    give waits for ever. A node too small for `LEAST_MIB` gets no work.
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
        return f"no node lends a CPU ({len(nodes)} alive)"
    most_cpus = max(n.cpus for n in lenders)
    asked = f"an episode asks for {cpus} CPUs and {least_mib} MiB of one node"
    if most_cpus < cpus:
        has = f"the largest of {len(lenders)} nodes lends {most_cpus:g} CPUs"
        return f"{asked}; {has}; use --decoder-threads {max(int(most_cpus), 1)} or larger nodes"
    most_mib = max(n.memory_mib for n in lenders if n.cpus >= cpus)
    has = f"the largest of {len(lenders)} nodes lends {most_mib:.0f} MiB"
    return f"{asked}; {has}, {1 - SHARE:.0%} of it kept free; use nodes with more memory"
