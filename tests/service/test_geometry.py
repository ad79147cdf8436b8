"""Neighbours in a selection against the whole list, and hands against the corpus they are from."""

from __future__ import annotations

import numpy as np
import pytest
from starlette.testclient import TestClient

from jobs.service.geometry import MAX_STEPS, shown_timesteps


@pytest.mark.parametrize(
    "sort", ["uid", "-uid", "measurements.tied", "-measurements.tied", "-tier"]
)
@pytest.mark.parametrize("chosen", [{}, {"filter": "source:eq:oxe", "q": "towel"}])
def test_neighbours_are_those_of_the_list(
    client: TestClient, sort: str, chosen: dict[str, str]
) -> None:
    """In both directions, through ties and unknown values."""
    page = client.get("/api/v1/episodes", params={"limit": 300, "sort": sort, **chosen}).json()
    uids = [None, *(row["uid"] for row in page["episodes"]), None]
    for before, uid, after in zip(uids, uids[1:-1], uids[2:], strict=False):
        answer = client.get(
            f"/api/v1/episodes/{uid}/neighbours", params={"sort": sort, **chosen}
        ).json()
        assert (answer["previous"], answer["next"]) == (before, after)


def test_timesteps_are_thinned_evenly() -> None:
    assert shown_timesteps(3).tolist() == [0, 1, 2]
    many = shown_timesteps(100_001)
    assert len(many) <= MAX_STEPS
    assert set(np.diff(many)) == {167}


def test_an_episode_without_hands_has_no_geometry(toy_client: TestClient) -> None:
    uid = toy_client.get("/api/v1/episodes").json()["episodes"][0]["uid"]
    answer = toy_client.get(f"/api/v1/episodes/{uid}/geometry").json()
    features = {
        channel["name"]
        for channel in toy_client.get(f"/api/v1/episodes/{uid}/series").json()["channels"]
    }
    assert [hand["side"] for hand in answer["hands"]] == sorted(
        {name.split(".")[0] for name in features if ".position_m." in name}
    )
