"""What is requested of the autoscaler of a Ray cluster: room for the episodes that are still to do, at once rather than with the window.

A request lasts until the next one, so it shrinks with the work and is withdrawn at the end.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from schemas.json_text import parse_json

MOST = 4096  # episodes at a time that are requested: the autoscaler packs them one by one
AGAIN_S = 5.0  # between two requests
SHRUNK = 0.8  # of the last request, below which it is worth another


class ScaleRequest:
    """The request of one run."""

    def __init__(self) -> None:
        self.count = 0  # of bundles that are requested
        self._bundle: dict[str, float] = {}
        self._asked_s: float | None = None
        self._is_autoscaled = False

    def update(self, num_left: int, bundle: Mapping[str, float]) -> None:
        """Request `bundle` for each of `num_left` episodes, at most `MOST`, where an autoscaler runs. Most calls request nothing."""
        count, now_s = min(num_left, MOST), time.monotonic()
        is_first = self._asked_s is None
        if not is_first and now_s - self._asked_s < AGAIN_S:  # type: ignore[operator]
            return
        if not is_first and self._bundle == bundle and SHRUNK * self.count <= count <= self.count:
            return
        self._asked_s = now_s
        if not count and not self.count:
            return
        self._is_autoscaled = (
            self._is_autoscaled or has_autoscaler()
        )  # one that starts reports late
        if self._is_autoscaled:
            self.count, self._bundle = count, dict(bundle)
            _request([dict(bundle)] * count)

    def withdraw(self) -> None:
        """Let the autoscaler remove idle nodes."""
        if self.count:
            self.count = 0
            _request([])


def _request(bundles: list[dict[str, Any]]) -> None:
    """A cluster that does not answer gets no request: the run itself finds out whether it is lost."""
    import ray
    from ray.autoscaler.sdk import request_resources

    try:
        request_resources(bundles=bundles)
    except (ray.exceptions.RayError, RuntimeError, OSError, ValueError):
        return


def has_autoscaler() -> bool:
    """Whether something adds nodes to this cluster. Ray reports on every cluster; nodes that it only watches have types `node_<id>`."""
    import ray
    from ray.autoscaler.v2.utils import is_autoscaler_v2

    try:
        types = _types_v2() if is_autoscaler_v2() else _types_v1()
    except (ray.exceptions.RayError, RuntimeError, OSError, ValueError):
        return False
    return any(name and not name.startswith("node_") for name in types)


def _types_v1() -> set[str]:
    from ray.experimental.internal_kv import _internal_kv_get

    status = parse_json(_internal_kv_get("__autoscaling_status") or b"{}")
    report = status.get("autoscaler_report") or {}
    mapping = report.get("node_type_mapping") or {}
    return {*mapping.values(), *(report.get("active_nodes") or ())}


def _types_v2() -> set[str]:
    import ray
    from ray.autoscaler.v2.sdk import get_cluster_status

    status = get_cluster_status(ray.get_runtime_context().gcs_address)
    nodes = [*status.active_nodes, *status.idle_nodes]
    return {node.ray_node_type_name for node in nodes}
