"""The map over REST: places are columns, colours have a legend that adds up, and what has no place is counted."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from jobs.service import api_map
from tests.curation.dedup_cases import corpus
from tests.service.corpora import client_of

SEEDS = [1, 2, 1, None, 3, 1, 4, 5]  # 0, 2 and 5 are copies; 3 was never measured


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    folder = tmp_path_factory.mktemp("map")
    return client_of(corpus(folder / "corpus", SEEDS), folder / "state")


def asked(client: TestClient, **query: Any) -> Any:
    answer = client.get("/api/v1/map", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def points_of(answer: Any) -> np.ndarray:
    raw = base64.b64decode(answer["points"])
    points = np.frombuffer(raw, [("x", "<u2"), ("y", "<u2"), ("colour", "u1")])
    low, width = np.array(answer["view"][::2]), np.diff(answer["view"])[::2]
    places: np.ndarray = np.stack([points["x"], points["y"]], axis=1) / 65535 * width + low
    return places


@pytest.mark.parametrize("space", ["pictures", "motion"])
def test_points_lie_at_the_columns_of_their_episodes(client: TestClient, space: str) -> None:
    answer = asked(client, space=space)
    assert (answer["total"], answer["without_signature"]) == (8, 1)
    assert answer["in_view"] == answer["drawn"] == 7
    x, y = answer["columns"]
    page = client.get("/api/v1/episodes", params={"column": [x, y]}).json()["episodes"]
    places = np.array([[row[x], row[y]] for row in page if row[x] is not None])
    width = np.diff(answer["view"])[::2]
    assert np.allclose(points_of(answer), places, atol=float(width.max()) / 65535)
    assert len({tuple(place) for place in places.round(9)}) == 5
    assert 1 + 1e-9 > sum(answer["explained"]) > 0.3


def test_a_box_is_the_same_on_the_map_and_as_filters(client: TestClient) -> None:
    whole = asked(client, space="motion")
    x, y = whole["columns"]
    middle = float(np.mean(whole["view"][:2]))
    seen = asked(client, space="motion", x_max=middle)
    filters = [f"{x}:le:{middle}", f"{y}:ge:{whole['view'][2]}"]
    rows = client.get("/api/v1/episodes", params={"filter": filters}).json()
    assert 0 < seen["in_view"] == rows["total"] < 7
    assert seen["without_signature"] == 1
    assert points_of(seen)[:, 0].max() <= middle
    chosen = asked(client, space="motion", filter=filters)
    assert (chosen["total"], chosen["without_signature"]) == (rows["total"], 0)
    assert chosen["view"] == whole["view"]  # a filter does not move the map


def test_colours_have_a_legend_that_adds_up(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = asked(client, colour="source")
    legend = answer["colour"]
    assert sum(legend["episodes"]) + legend["other"] + legend["unknown"] == answer["in_view"]
    facet = client.get("/api/v1/facets", params={"facet": "source"}).json()["facets"]["source"]
    assert set(legend["classes"]) <= {each["value"] for each in facet}
    monkeypatch.setattr(api_map, "MAX_CLASSES", 0)
    few = asked(client, colour="source", q="")["colour"]  # another address: the first is kept
    assert (few["classes"], few["other"]) == ([], sum(legend["episodes"]))
    number = asked(client, colour="length")["colour"]
    assert (number["unit"], number["unknown"]) == ("timesteps", 0)
    assert number["low"] <= number["high"]
    nothing = asked(client, colour="num_captions", q="no such word")
    assert (nothing["total"], nothing["drawn"], nothing["colour"]["low"]) == (0, 0, None)


def test_too_many_points_are_drawn_in_even_part(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_map, "MAX_POINTS", 3)
    answer = asked(client, colour="split")
    assert (answer["in_view"], answer["drawn"]) == (7, 3)
    assert len(points_of(answer)) == 3


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"space": "sound"}, 422),
        ({"colour": "uid"}, 400),
        ({"colour": "no such"}, 400),
        ({"x_min": "nan"}, 422),
    ],
)
def test_what_is_no_map_is_refused(client: TestClient, query: dict[str, str], status: int) -> None:
    assert client.get("/api/v1/map", params=query).status_code == status


def test_a_corpus_without_signatures_has_an_empty_map(toy_client: TestClient) -> None:
    answer = asked(toy_client)
    assert answer["without_signature"] == answer["total"] > 0
    assert (answer["drawn"], answer["explained"]) == (0, [0.0, 0.0])
    assert answer["extent"] == [-0.5, 0.5, -0.5, 0.5]
