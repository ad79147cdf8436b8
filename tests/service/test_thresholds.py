"""What-if against `eicorpus tier` itself: the same counts under the same changed policy."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from ingest.corpus import snapshot
from ingest.curation.tiers.count import judged_counts
from ingest.curation.tiers.policy import load_policy
from ingest.curation.tiers.tier import judge
from jobs.service import api_thresholds
from jobs.service.keeper import ServingState
from jobs.service.limits import place
from jobs.service.thresholds import changed, comparisons
from tests.service.corpora import client_of, keeper_of

POLICY, _ = load_policy("ei30k")


def test_every_threshold_is_changed_by_its_name_alone() -> None:
    names = comparisons(POLICY)
    assert len(names) > 10
    for name, (_, word, condition) in names.items():
        value = condition.thresholds[word] + 0.001
        other = changed(POLICY, {name: value})
        differ = {
            each: now.thresholds[w]
            for each, (_, w, now) in comparisons(other).items()
            if now.thresholds[w] != names[each][2].thresholds[w]
        }
        assert differ == {name: value}


def test_a_what_if_counts_what_tier_would(toy: Path, toy_client: TestClient) -> None:
    name = "rules.1.when.above"
    answer = toy_client.get("/api/v1/what-if", params={"threshold": f"{name}:0.25"})
    policy = changed(POLICY, {name: 0.25})
    expected = judged_counts(judge(toy, snapshot.load(toy), policy))
    counts = {
        (row["source"], row["tier"]): (row["segments"], row["hours"])
        for row in answer.json()["counts"]
        if row["segments"]
    }
    assert counts == {key: (n.segments, n.hours) for key, n in expected.items()}


def test_a_what_if_waits_in_no_thread_and_not_endlessly(
    toy_client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_thresholds, "WAIT_S", 0.0)
    with place(api_thresholds.JUDGING, ""):
        answer = toy_client.get("/api/v1/what-if")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert toy_client.get("/api/v1/what-if").status_code == 200


def test_what_is_kept_for_a_what_if_goes_with_its_snapshot(toy: Path, tmp_path: Path) -> None:
    client = client_of(toy, tmp_path)
    keeper = keeper_of(client)
    assert client.get("/api/v1/what-if").status_code == 200
    assert list(api_thresholds._kept) == [keeper.at()]
    keeper.state = ServingState()
    gc.collect()
    assert list(api_thresholds._kept) == []


@pytest.mark.parametrize("change", ["nonsense:1", "rules.1.when.above:x", "rules.1.when.above:nan"])
def test_a_wrong_change_is_refused(toy_client: TestClient, change: str) -> None:
    answer = toy_client.get("/api/v1/what-if", params={"threshold": change})
    assert (answer.status_code, answer.json()["error"]["where"]) == (400, "threshold")
