"""The dashboard and the scrape configuration name what the server has."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml
from starlette.testclient import TestClient

MONITORING = Path(__file__).parents[2] / "docker" / "monitoring"


def test_every_series_of_the_dashboard_is_one_of_the_server(client: TestClient) -> None:
    client.get("/healthz")
    text = client.get("/metrics").text
    series = set(re.findall(r"^(eicorpus_\w+)", text, re.MULTILINE))
    page = json.loads((MONITORING / "grafana-dashboard.json").read_text())
    asked = {
        name
        for panel in page["panels"]
        for target in panel["targets"]
        for name in re.findall(r"eicorpus_\w+", target["expr"])
    }
    assert len(asked) > 6
    assert asked <= series


def test_prometheus_asks_for_the_page_with_a_token(client: TestClient) -> None:
    (job,) = yaml.safe_load((MONITORING / "prometheus.yml").read_text())["scrape_configs"]
    assert client.get(job["metrics_path"]).status_code == 200
    assert job["authorization"]["credentials_file"]
