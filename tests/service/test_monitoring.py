"""The dashboard and the scrape configuration name what the server has."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from starlette.testclient import TestClient

from ingest.executors.inline import DRIVER
from ingest.executors.ray_series import HELP, NODES, OLDEST, OUTCOMES, TAGS
from ingest.pipeline.node_rates import LEAST, TIMES
from ingest.pipeline.tally import ABSENT
from jobs.service.job_runner import JobRunner
from jobs.service.job_store import STATES, JobStore
from jobs.service.metrics import stage_of
from tests.service.corpora import client_of

MONITORING = Path(__file__).parents[2] / "docker" / "monitoring"


@pytest.fixture
def series(toy: Path, tmp_path: Path) -> set[str]:
    """Of a server that takes jobs, and had one."""
    store = JobStore(tmp_path / "jobs")
    job, _ = store.submit(key="a", kind="dedup", request='{"kind":"dedup"}', now_s=1.0)
    store.claim(job.id, 2.0)
    store.finish(job.id, state="succeeded", now_s=3.0)
    client = client_of(toy, tmp_path, jobs=JobRunner(store, toy))
    job, _ = store.submit(key="b", kind="latents", request="{}", now_s=1.0)
    store.claim(job.id, 2.0)
    result = json.dumps({"result": {"decode_wait_share": 0.25, "write_wait_share": 0.0}})
    store.finish(job.id, state="succeeded", now_s=3.0, result=result)
    client.get("/api/v1/stale")
    return set(re.findall(r"^(eicorpus_\w+)", client.get("/metrics").text, re.MULTILINE))


def test_every_series_of_an_alert_is_one_of_the_server(series: set[str]) -> None:
    (file,) = yaml.safe_load((MONITORING / "prometheus.yml").read_text())["rule_files"]
    group, _ = yaml.safe_load((MONITORING / file).read_text())["groups"]
    names = [re.findall(r"eicorpus_\w+", rule["expr"]) for rule in group["rules"]]
    assert {name for each in names for name in each} <= series
    assert all(rule["annotations"]["summary"] for rule in group["rules"])
    states = {
        s
        for rule in group["rules"]
        for s in re.findall(r'eicorpus_jobs\{state=~?"([\w|]+)"', rule["expr"])
    }
    assert {each for state in states for each in state.split("|")} <= set(STATES)


def test_every_series_of_an_alert_on_ray_is_one_of_the_executor() -> None:
    _, group = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
    assert group["name"] == "eicorpus-ray"
    names = {
        name for rule in group["rules"] for name in re.findall(r"ray_(eicorpus_\w+)", rule["expr"])
    }
    assert {OUTCOMES, OLDEST, NODES} <= names <= set(HELP)
    labels = {
        label
        for rule in group["rules"]
        for label in re.findall(r"(\w+)=", rule["expr"]) + re.findall(r"by \((\w+)\)", rule["expr"])
    }
    assert labels <= set(TAGS)
    selectors = re.findall(rf"{OUTCOMES}([^)]*)\)", group["rules"][0]["expr"])
    assert len(selectors) == 8
    for selector in selectors:
        nodes, codes = (re.search(rf'{name}!~"([^"]*)"', selector) for name in ("node", "code"))
        assert nodes is not None
        assert codes is not None
        assert set(nodes[1].split("|")) == {"", DRIVER}
        assert set(codes[1].split("|")) == set(ABSENT)
    assert f">= {TIMES:g} *" in group["rules"][0]["expr"]
    assert f">= {LEAST}" in group["rules"][0]["expr"]


def test_every_series_of_the_dashboard_is_one_of_the_server(series: set[str]) -> None:
    page = json.loads((MONITORING / "grafana-dashboard.json").read_text())
    asked = {
        name
        for panel in page["panels"]
        for target in panel["targets"]
        for name in re.findall(r"(?:ray_)?eicorpus_\w+", target["expr"])
    }
    of_ray = {name.removeprefix("ray_") for name in asked if name.startswith("ray_")}
    assert len(asked - of_ray) > 6
    assert {name for name in asked if not name.startswith("ray_")} <= series
    assert {name.removesuffix("_bucket") for name in of_ray} == set(HELP)
    places = [tuple(panel["gridPos"].values())[:2] for panel in page["panels"]]
    assert len(places) == len(set(places))


def test_prometheus_asks_for_the_page_with_a_token(client: TestClient) -> None:
    job, ray = yaml.safe_load((MONITORING / "prometheus.yml").read_text())["scrape_configs"]
    assert (job["job_name"], ray["job_name"]) == ("eicorpus", "ray")
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


def test_waits_and_stale_counts_are_absent_until_they_are_known(toy: Path, tmp_path: Path) -> None:
    store = JobStore(tmp_path / "jobs")
    client = client_of(toy, tmp_path, jobs=JobRunner(store, toy))
    before = client.get("/metrics").text
    assert "eicorpus_stale{" not in before
    assert "eicorpus_encoder_wait_share" not in before
    published = re.search(r"^eicorpus_snapshot_published_timestamp_seconds (\S+)$", before, re.M)
    (*_, newest) = sorted((toy / "catalog/_snapshots").glob("*.json"))
    assert published is not None
    assert float(published[1]) == pytest.approx(newest.stat().st_mtime)
    counts = {each["kind"]: each["count"] for each in client.get("/api/v1/stale").json()["stale"]}
    job, _ = store.submit(key="a", kind="latents", request="{}", now_s=1.0)
    store.claim(job.id, 2.0)
    result = json.dumps({"result": {"decode_wait_share": 0.25}})
    store.finish(job.id, state="succeeded", now_s=3.0, result=result)
    after = client.get("/metrics").text
    assert counts
    for kind, count in counts.items():
        assert f'eicorpus_stale{{kind="{kind}"}} {float(count)}' in after
    assert 'eicorpus_encoder_wait_share{waits_for="images"} 0.25' in after
    assert 'waits_for="disk"' not in after


def test_a_job_without_a_start_does_not_hide_the_metrics(toy: Path, tmp_path: Path) -> None:
    store = JobStore(tmp_path / "jobs")
    job, _ = store.submit(key="a", kind="dedup", request="{}", now_s=1.0)
    store.finish(job.id, state="succeeded", now_s=3.0)
    answer = client_of(toy, tmp_path, jobs=JobRunner(store, toy)).get("/metrics")
    assert answer.status_code == 200
    assert 'eicorpus_jobs{state="succeeded"} 1.0' in answer.text


def test_a_route_that_an_alert_names_is_one_of_the_metrics(toy: Path, tmp_path: Path) -> None:
    pages = "".join(path.read_text() for path in MONITORING.glob("*.y*ml"))
    named = set(re.findall(r'route=\\?"([^"\\]+)', pages))
    assert named
    client = client_of(toy, tmp_path)
    for route in (*named, "/episodes"):
        assert client.get(route).status_code == 200
    routes = re.findall(r'requests_total\{.*?route="([^"]+)"', client.get("/metrics").text)
    assert sorted(routes) == sorted({*named, "/episodes"})
