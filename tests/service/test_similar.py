"""Similar episodes over REST: copies first, of equals the lower uid, nothing of episodes without a signature."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from ingest.curation.duplicates import similar
from jobs.service import api, api_similar
from tests.curation.dedup_cases import corpus
from tests.generators.corpus import uid_of
from tests.service.corpora import client_of

SEEDS = [1, 2, 1, None, 3, 1]  # 0, 2 and 5 are copies; 3 was never measured


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    folder = tmp_path_factory.mktemp("similar")
    return client_of(corpus(folder / "corpus", SEEDS), folder / "state")


def similar_to(client: TestClient, index: int, **query: Any) -> Any:
    answer = client.get(f"/api/v1/episodes/{uid_of(index)}/similar", params=query)
    assert answer.status_code == 200
    return answer.json()


def test_copies_come_first(client: TestClient) -> None:
    answer = similar_to(client, 0)
    assert answer["has_signature"]
    rows = answer["episodes"]
    assert [row["uid"] for row in rows[:2]] == sorted([uid_of(2), uid_of(5)])
    assert {row["uid"] for row in rows[2:]} == {uid_of(1), uid_of(4)}
    for row in rows[:2]:
        assert row["similarity"] == pytest.approx(1, abs=2e-3)
        assert row["pictures_distance"] == pytest.approx(0, abs=2e-3)
        assert row["path_distance"] == pytest.approx(0, abs=2e-3)
    assert all(row["similarity"] < 0.8 for row in rows[2:])
    similarities = [row["similarity"] for row in rows]
    assert similarities == sorted(similarities, reverse=True)
    assert similar_to(client, 0, limit=1)["episodes"] == rows[:1]


def test_an_episode_without_a_signature_has_no_similar_ones(client: TestClient) -> None:
    answer = similar_to(client, 3)
    assert (answer["has_signature"], answer["episodes"]) == (False, [])
    assert client.get("/api/v1/episodes/none/similar").status_code == 404
    assert client.get(f"/api/v1/episodes/{uid_of(0)}/similar?limit=101").status_code == 422


def test_what_is_compared_at_a_time_changes_nothing(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = client.app.state.keeper.at().cache.coarse_vectors  # type: ignore[attr-defined]
    row = int(vectors.of_picture[0])
    whole = similar.nearest(vectors, row, 10, len(SEEDS))
    monkeypatch.setattr(similar, "CHUNK", 2)
    assert similar.nearest(vectors, row, 10, len(SEEDS)) == whole
    assert len(whole) == 4


@pytest.mark.parametrize(
    ("route", "owner", "places", "wait"),
    [
        ("similar", api_similar, "_comparing", "WAIT_S"),
        ("explain", api, "_explaining", "EXPLAIN_WAIT_S"),
    ],
)
def test_what_reads_the_whole_catalog_has_few_places(
    route: str,
    owner: Any,
    places: str,
    wait: str,
    client: TestClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(owner, wait, 0.0)
    address = f"/api/v1/episodes/{uid_of(1)}/{route}"
    semaphore, num_taken = getattr(owner, places), 0
    while semaphore.acquire(blocking=False):
        num_taken += 1
    answer = client.get(address)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "busy")
    semaphore.release(num_taken)
    assert client.get(address).status_code != 503
