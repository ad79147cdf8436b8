"""The series of a run on Ray, which the metrics page of every node of the cluster has: outcomes by code, source and node, and how full the cluster is.

Ray puts `ray_` before each name.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

OUTCOMES = "eicorpus_outcomes_total"
SECONDS = "eicorpus_episode_seconds"
WAITING = "eicorpus_waiting_for_turn"
IN_FLIGHT = "eicorpus_in_flight"
OLDEST = "eicorpus_oldest_age_s"
NODES = "eicorpus_excluded_nodes"
HELP = {
    OUTCOMES: "Episodes that have ended, by state, code, source and node.",
    SECONDS: "Seconds of an episode in its worker, by source.",
    WAITING: "Outcomes that wait for an earlier episode of the plan.",
    IN_FLIGHT: "Episodes that are handed out.",
    OLDEST: "Seconds since the oldest of them was handed out.",
    NODES: "Nodes that get no work.",
}
BOUNDS_S = [0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600]
TAGS = ("state", "code", "source", "node")
EVERY_S = 5.0  # between two reports of the gauges; Ray itself exports every ten seconds


class RaySeries:
    """Made when a cluster is connected."""

    def __init__(self) -> None:
        from ray.util.metrics import Counter, Gauge, Histogram

        self._outcomes = Counter(OUTCOMES, HELP[OUTCOMES], tag_keys=TAGS)
        self._seconds = Histogram(SECONDS, HELP[SECONDS], boundaries=BOUNDS_S, tag_keys=("source",))
        gauges = (WAITING, IN_FLIGHT, OLDEST, NODES)
        self._gauges: dict[str, Any] = {name: Gauge(name, HELP[name]) for name in gauges}
        self._reported_s = float("-inf")

    def outcome(self, tags: Mapping[str, str], seconds: float) -> None:
        """Count one episode. Without a time it was in no worker."""
        self._outcomes.inc(1, {name: tags[name] for name in TAGS})
        if seconds:
            self._seconds.observe(seconds, {"source": tags["source"]})

    def is_due(self) -> bool:
        """Whether it is time for `report`."""
        return time.monotonic() - self._reported_s >= EVERY_S

    def report(self, values: Mapping[str, float]) -> None:
        """Set gauges."""
        self._reported_s = time.monotonic()
        for name, value in values.items():
            self._gauges[name].set(value)
