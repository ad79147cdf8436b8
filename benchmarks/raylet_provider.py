"""The provider of nodes of a Ray autoscaler whose nodes are raylets of this machine."""

from __future__ import annotations

from typing import Any

from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider


class RayletProvider(FakeMultiNodeProvider):
    """That of Ray, for node types that declare memory, as those of clouds and of KubeRay do."""

    def create_node_with_resources_and_labels(
        self, node_config: Any, tags: Any, count: int, resources: dict[str, float], labels: Any
    ) -> None:
        offered = {name: value for name, value in resources.items() if name != "memory"}
        super().create_node_with_resources_and_labels(node_config, tags, count, offered, labels)
