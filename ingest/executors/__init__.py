"""Where work runs: inline, in local processes, or on Ray. The same function with the same arguments in each.

An executor knows nothing of episodes. It pulls work, yields results as they end, and reports a process that ended without an
answer. `node_proof` makes every node prove that it sees what the driver sees before it gets work."""

__all__ = [
    "inline",
    "local",
    "node_proof",
    "ray",
    "ray_actors",
]
