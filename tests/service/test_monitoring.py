"""The dashboard and the scrape configuration name what the server has."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from starlette.testclient import TestClient

from jobs.service.metrics import stage_of

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


@pytest.mark.parametrize(
    ("command", "stage"),
    [
        ("eicorpus ingest oxe /data/raw --out corpus", "ingest"),
        ("eicorpus measure corpus", "measure"),
        ("eicorpus /secret/path ingest", "other"),
        ("ingest", "other"),
        ("", "other"),
        ('eicorpus x"} 1\neicorpus_hours 7', "other"),
    ],
)
def test_a_stage_is_a_name_of_a_command(command: str, stage: str) -> None:
    assert stage_of(command) == stage


def test_the_rate_of_a_stage_is_that_of_its_latest_run(client: TestClient) -> None:
    text = client.get("/metrics").text
    rate = re.search(r'^eicorpus_stage_episodes_per_second{stage="ingest"} (\S+)$', text, re.M)
    assert rate is not None
    assert float(rate[1]) == pytest.approx(303 / 3600)  # 300 committed and 3 quarantined in an hour
    assert 'eicorpus_stage_finished_timestamp_seconds{stage="ingest"}' in text
