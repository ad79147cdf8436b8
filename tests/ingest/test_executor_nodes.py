"""What an episode asks of a node: never more than a node can give, and the numbers when none can."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ingest.executors.ray_cluster import LEAST_MIB, MIB, Node, nodes_of, offer_of


def node(cpus: float, memory_mib: float, name: str = "n") -> Node:
    return Node(id=name, name=name, cpus=cpus, memory_mib=memory_mib)


def row(**changes: Any) -> dict[str, Any]:
    """A node as `ray.nodes()` gives it."""
    return {
        "NodeID": "0123456789abcdef",
        "Alive": True,
        "NodeManagerHostname": "host",
        "NodeManagerAddress": "10.0.0.7",
        "Resources": {"CPU": 2.0, "memory": 4.0e9, "GPU": 1.0},
    } | changes


def test_the_default_limit_fits_a_node_of_four_billion_bytes() -> None:
    """S1: a head without CPUs but with memory once made the share of a CPU larger than any node."""
    nodes = [node(0, 16_000), node(1, 4.0e9 / MIB), node(1, 4.0e9 / MIB)]
    offer = offer_of(nodes, cpus=1, limit_mib=4096)
    assert offer.slots == 2
    assert offer.memory_mib <= 4.0e9 / MIB


def test_more_cpus_than_any_node_has_are_refused_with_the_numbers() -> None:
    offer = offer_of([node(2, 8000), node(4, 8000)], cpus=8, limit_mib=4096)
    assert offer.slots == 0
    assert "needs 8 CPUs" in offer.lack
    assert "the largest of 2 nodes offers 4 CPUs; use --decoder-threads 4" in offer.lack


def test_less_memory_than_a_worker_needs_is_refused_with_the_numbers() -> None:
    offer = offer_of([node(2, 300)], cpus=1, limit_mib=4096)
    assert offer.slots == 0
    assert f"{LEAST_MIB} MiB" in offer.lack
    assert "offers 300 MiB" in offer.lack


def test_a_cluster_of_a_head_alone_lends_nothing_yet() -> None:
    assert (
        offer_of([node(0, 8000)], cpus=1, limit_mib=4096).lack == "no node offers a CPU (1 alive)"
    )


def test_memory_decides_where_cpus_are_many() -> None:
    offer = offer_of([node(64, 8192)], cpus=1, limit_mib=4096)
    assert offer.memory_mib == LEAST_MIB
    assert offer.slots == 8192 // LEAST_MIB


def test_nodes_that_have_left_are_not_counted() -> None:
    [found] = nodes_of([row(), row(Alive=False)])
    assert (found.cpus, found.gpus, found.id) == (2.0, 1.0, "0123456789abcdef")
    assert found.name == "host (10.0.0.7, 01234567)"


@given(
    st.lists(st.tuples(st.integers(0, 128), st.integers(1, 10**6)), max_size=8),
    st.integers(1, 16),
    st.integers(256, 64_000),
)
def test_whatever_is_asked_fits_a_node_that_exists(
    sizes: list[tuple[int, int]], cpus: int, limit_mib: int
) -> None:
    nodes = [node(*size) for size in sizes]
    offer = offer_of(nodes, cpus=cpus, limit_mib=limit_mib)
    fitting = [n for n in nodes if n.cpus >= cpus and n.memory_mib >= offer.memory_mib]
    assert (offer.slots > 0) == (offer.lack == "")
    if offer.slots:
        assert fitting
        assert offer.memory_mib <= limit_mib
        assert offer.largest_mib >= offer.memory_mib
        assert offer.slots <= sum(n.cpus // cpus for n in nodes)
