"""The overview against the rows that the catalog was written from."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from ingest.corpus import reviews, snapshot
from ingest.corpus.layout import open_corpus
from tests.generators.corpus import WrittenCatalog
from tests.ingest.test_reviews import review
from tests.service.corpora import NUM_EPISODES, client_of


def test_the_funnel_counts_episodes_of_each_step(client: TestClient, hard: WrittenCatalog) -> None:
    answer = client.get("/api/v1/overview").json()
    steps = {each["step"]: each for each in answer["funnel"]}
    uids = {
        step: {row["uid"] for row in hard.rows[table]}
        for step, table in {
            "discovered": "verdicts",
            "committed": "episodes",
            "measured": "measurements",
            "tier": "tiers",
            "captioned": "captions",
            "latents": "latents",
        }.items()
    }
    assert {step: each["episodes"] for step, each in steps.items()} == {
        step: len(names) for step, names in uids.items()
    }
    hours = {row["uid"]: row["hours"] for row in hard.rows["episodes"]}
    assert steps["measured"]["hours"] == pytest.approx(sum(hours[u] for u in uids["measured"]))


def test_hours_of_a_group_are_split_by_the_tier_of_their_timesteps(
    client: TestClient, hard: WrittenCatalog
) -> None:
    answer = client.get("/api/v1/overview", params={"by": "source"}).json()
    groups = {group["value"]: group for group in answer["hours"]["source"]}
    episodes = {row["uid"]: row for row in hard.rows["episodes"]}
    expected: dict[tuple[str, str], float] = {}
    for row in hard.rows["tiers"]:
        episode = episodes[row["uid"]]
        key = episode["source"], row["tier"]
        hours = episode["hours"] * (row["end"] - row["start"]) / episode["length"]
        expected[key] = expected.get(key, 0.0) + hours
    for source, group in groups.items():
        for tier, hours in group["hours"].items():
            assert hours == pytest.approx(expected.get((source, tier), 0.0))
    assert sum(group["episodes"] for group in groups.values()) == NUM_EPISODES


def test_a_column_of_numbers_is_no_group(client: TestClient) -> None:
    answer = client.get("/api/v1/overview", params={"by": "length"})
    assert (answer.status_code, answer.json()["error"]["where"]) == (400, "by")


def test_what_is_out_of_date_is_what_the_commands_would_do(toy_client: TestClient) -> None:
    """No measure of this version ran, the tiers are of no known policy, and no review waits."""
    answer = toy_client.get("/api/v1/stale").json()
    rows = {each["remedy"]: each["count"] for each in answer["stale"]}
    assert rows["run eicorpus measure"] == rows["run eicorpus tier"] == 4
    assert not any("publish" in remedy for remedy in rows)
    assert "reviews that wait" in answer["compared"]


def test_reviews_that_wait_are_out_of_date(toy: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    shutil.copytree(toy, corpus)
    layout = open_corpus(corpus)
    uid = snapshot.load(corpus).read(corpus, "episodes", ["uid"])["uid"][0].as_py()
    client = client_of(corpus, tmp_path / "state")

    def waiting() -> list[int]:
        rows = client.get("/api/v1/stale").json()["stale"]
        return [each["count"] for each in rows if each["what"].startswith("reviews")]

    assert waiting() == []
    reviews.submit(layout, [review(1, uid)])
    assert waiting() == [1]
