"""Pages, facets and histograms against the same answers computed by Polars and plain Python from the rows that were written."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import polars as pl
import pytest
from starlette.testclient import TestClient

from jobs.service import pages
from tests.generators.corpus import WrittenCatalog, uid_of
from tests.service.corpora import HOSTILE, NUM_EPISODES, keeper_of, value_of

API = "/api/v1"


@pytest.fixture(autouse=True)
def short_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page is found in several steps along the order, as it is in a large corpus."""
    monkeypatch.setattr(pages, "FIRST_STEP", 3)


def all_pages(client: TestClient, limit: int, **query: Any) -> list[dict[str, Any]]:
    """Every row, by following the cursor to the end."""
    rows: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        more = {} if cursor is None else {"cursor": cursor}
        answer = client.get(f"{API}/episodes", params={**query, "limit": limit, **more})
        assert answer.status_code == 200, answer.text
        page = answer.json()
        assert len(page["episodes"]) <= limit
        rows += page["episodes"]
        cursor = page["cursor"]
        if cursor is None:
            return rows


def frame(hard: WrittenCatalog) -> pl.DataFrame:
    """uid, `tied` and what else is sorted by, from the rows themselves."""
    tied = {i: value_of(i) for i in range(NUM_EPISODES) if i % 5}
    return pl.DataFrame(
        {
            "uid": [row["uid"] for row in hard.rows["episodes"]],
            "measurements.tied": [tied.get(i) for i in range(NUM_EPISODES)],
            "embodiment": [row["embodiment"] for row in hard.rows["episodes"]],
            "length": [float(row["length"]) for row in hard.rows["episodes"]],
            "episode_id": [row["episode_id"] for row in hard.rows["episodes"]],
            "success": [
                None if row["success"] is None else str(row["success"]).lower()
                for row in hard.rows["episodes"]
            ],
        },
        strict=False,
    )


@pytest.mark.parametrize("limit", [1, 7, 100, 1000])
@pytest.mark.parametrize(
    "column", ["measurements.tied", "embodiment", "success", "length", "episode_id", "uid"]
)
@pytest.mark.parametrize("descends", [False, True])
def test_pages_together_are_a_full_sort(
    client: TestClient, hard: WrittenCatalog, column: str, descends: bool, limit: int
) -> None:
    by = list(dict.fromkeys([column, "uid"]))
    expected = frame(hard).sort(by, descending=descends, nulls_last=True)["uid"].to_list()
    rows = all_pages(client, limit, sort=f"-{column}" if descends else column)
    assert [row["uid"] for row in rows] == expected


@pytest.mark.parametrize("limit", [3, 1000])
def test_pages_of_a_filter_are_the_sort_of_what_it_lets_through(
    client: TestClient, hard: WrittenCatalog, limit: int
) -> None:
    chosen = frame(hard).filter(
        (pl.col("embodiment") == HOSTILE) | (pl.col("embodiment") == "franka_panda"),
        pl.col("measurements.tied") <= 1.0,
    )
    expected = chosen.sort("measurements.tied", "uid", descending=True)["uid"].to_list()
    assert len(expected) > 20
    filters = [
        f"embodiment:eq:{HOSTILE}",
        "embodiment:eq:franka_panda",
        "measurements.tied:le:1.0",
    ]
    rows = all_pages(client, limit, sort="-measurements.tied", filter=filters)
    assert [row["uid"] for row in rows] == expected


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("measurements.tied:eq:0", lambda v, _: v == 0),
        ("measurements.tied:ne:0", lambda v, _: v is not None and v != 0),
        ("measurements.tied:lt:inf", lambda v, _: v is not None and v < math.inf),
        ("measurements.tied:null:true", lambda v, _: v is None),
        ("measurements.tied:null:false", lambda v, _: v is not None),
        ("embodiment:gt:franka_panda", lambda _, e: e > "franka_panda"),
        ("embodiment:le:g", lambda _, e: e <= "g"),
        ("embodiment:ne:no such text", lambda *_: True),
        ("embodiment:eq:no such text", lambda *_: False),
        (f"uid:eq:{uid_of(3)}", None),
    ],
)
def test_a_filter_means_what_it_says(
    client: TestClient, hard: WrittenCatalog, text: str, holds: Any
) -> None:
    rows = frame(hard).rows(named=True)
    if holds is None:
        expected = {uid_of(3)}
    else:
        expected = {r["uid"] for r in rows if holds(r["measurements.tied"], r["embodiment"])}
    answer = client.get(f"{API}/episodes", params={"filter": text, "limit": 1000}).json()
    assert {row["uid"] for row in answer["episodes"]} == expected
    assert answer["total"] == len(expected)


def test_hours_and_totals_are_of_the_whole_selection(
    client: TestClient, hard: WrittenCatalog
) -> None:
    answer = client.get(f"{API}/episodes", params={"limit": 1, "filter": "source:eq:oxe"}).json()
    chosen = [row for row in hard.rows["episodes"] if row["source"] == "oxe"]
    assert answer["total"] == len(chosen)
    assert answer["hours"] == pytest.approx(sum(row["hours"] for row in chosen))


def test_facets_are_a_group_by_without_the_filter_on_the_facet_itself(
    client: TestClient, hard: WrittenCatalog
) -> None:
    filters = ["source:eq:oxe", "source:eq:egodex", "split:eq:train"]
    answer = client.get(
        f"{API}/facets", params={"filter": filters, "facet": ["source", "split", "success"]}
    ).json()
    rows = hard.rows["episodes"]

    def counted(name: str, *keeps: str) -> Counter[Any]:
        chosen = [
            row
            for row in rows
            if ("source" not in keeps or row["source"] in ("oxe", "egodex"))
            and ("split" not in keeps or row["split"] == "train")
        ]
        text = {None: None, True: "true", False: "false"}
        return Counter(text.get(row[name], row[name]) for row in chosen)

    facets = {
        name: {each["value"]: each["episodes"] for each in values}
        for name, values in answer["facets"].items()
    }
    assert facets["source"] == counted("source", "split")
    assert facets["split"] == counted("split", "source")
    assert facets["success"] == counted("success", "source", "split")
    assert None in facets["success"]
    hours = {each["value"]: each["hours"] for each in answer["facets"]["split"]}
    for name, total in hours.items():
        chosen = [r for r in rows if r["split"] == name and r["source"] in ("oxe", "egodex")]
        assert total == pytest.approx(sum(row["hours"] for row in chosen))


def test_the_tier_of_an_episode_is_the_tier_of_most_of_it(
    client: TestClient, hard: WrittenCatalog
) -> None:
    of = {row["uid"]: row["tier"] for row in hard.rows["tiers"]}
    for row in all_pages(client, 1000):
        assert row["tier"] == of[row["uid"]]
        assert row[f"hours_{row['tier']}"] == pytest.approx(row["hours"])


def test_a_measurement_is_its_newest_version(client: TestClient) -> None:
    rows = all_pages(client, 1000, column="measurements.renewed")
    values = {row["uid"]: row["measurements.renewed"] for row in rows}
    assert values == {uid_of(i): i + 2000.0 for i in range(NUM_EPISODES)}


def test_a_histogram_counts_every_episode_once(client: TestClient, hard: WrittenCatalog) -> None:
    query: dict[str, Any] = {
        "column": "measurements.tied",
        "bins": 4,
        "low": 0,
        "high": 1.5,
        "by": "tier",
    }
    answer = client.get(f"{API}/histogram", params=query).json()
    values = frame(hard)["measurements.tied"].to_list()
    known = [v for v in values if v is not None]
    inside = [v for v in known if 0 <= v <= 1.5]
    expected, _ = np.histogram(inside, bins=4, range=(0, 1.5))
    counted = np.sum([each["episodes"] for each in answer["series"]], axis=0)
    assert counted.tolist() == expected.tolist()
    assert answer["unknown"] == len(values) - len(known)
    assert answer["below"] == sum(v < 0 for v in known)
    assert answer["above"] == sum(v > 1.5 for v in known)
    assert {each["group"] for each in answer["series"]} <= {
        "high",
        "low",
        "actionless",
        "excluded",
    }


@pytest.mark.parametrize("q", ["take 17.", "TAKE 17.", "hand 29", "倒水", 'say "hi"', "%", "_"])
def test_words_are_searched_in_id_tasks_and_captions(
    client: TestClient, hard: WrittenCatalog, q: str
) -> None:
    captions = {row["uid"]: row["text"] for row in hard.rows["captions"]}
    expected = {
        row["uid"]
        for row in hard.rows["episodes"]
        if all(
            word in "\n".join([row["episode_id"], *row["tasks"], captions[row["uid"]]]).lower()
            for word in q.lower().split()
        )
    }
    answer = client.get(f"{API}/episodes", params={"q": q, "limit": 1000}).json()
    assert {row["uid"] for row in answer["episodes"]} == expected


@pytest.mark.parametrize(
    "query",
    [
        {"sort": "no such column"},
        {"sort": "-"},
        {"filter": "source"},
        {"filter": "source:like:x"},
        {"filter": "no such:eq:1"},
        {"filter": "length:gt:long"},
        {"filter": "length:gt:nan"},
        {"filter": "uid:gt:a"},
        {"filter": "length:null:perhaps"},
        {"filter": ["source:eq:a"] * 65},
        {"q": " ".join(f"w{i}" for i in range(9))},
        {"cursor": "AAAA"},
        {"cursor": "!"},
        {"cursor": "WyJ1aWQiLCBudWxsLCAzXQ=="},
    ],
)
def test_what_cannot_be_asked_is_refused_with_an_envelope(
    client: TestClient, query: dict[str, Any]
) -> None:
    answer = client.get(f"{API}/episodes", params=query)
    assert answer.status_code == 400, answer.text
    body = answer.json()
    assert body["ok"] is False
    assert body["result"] is None
    assert body["error"]["code"] == "usage"


@pytest.mark.parametrize(
    "query", [{"limit": 0}, {"limit": 10**30}, {"limit": "x"}, {"snapshot": -1}]
)
def test_numbers_out_of_range_are_refused(client: TestClient, query: dict[str, Any]) -> None:
    answer = client.get(f"{API}/episodes", params=query)
    assert answer.status_code == 422
    assert answer.json()["error"]["where"] == next(iter(query))


def test_a_cursor_of_another_sort_is_refused(client: TestClient) -> None:
    cursor = client.get(f"{API}/episodes", params={"limit": 1, "sort": "length"}).json()["cursor"]
    answer = client.get(f"{API}/episodes", params={"sort": "-length", "cursor": cursor})
    assert answer.status_code == 400


def test_the_same_page_is_not_sent_twice(client: TestClient) -> None:
    first = client.get(f"{API}/episodes", params={"limit": 2})
    tag = first.headers["etag"]
    again = client.get(
        f"{API}/episodes", params={"limit": 2}, headers={"If-None-Match": f'"x", W/{tag}'}
    )
    assert (again.status_code, again.content) == (304, b"")
    other = client.get(f"{API}/episodes", params={"limit": 3}, headers={"If-None-Match": tag})
    assert other.status_code == 200


def test_a_question_to_the_cache_writes_no_progress_bar(client: TestClient) -> None:
    cache = keeper_of(client).at().cache
    (row,) = cache.ask("SELECT current_setting('enable_progress_bar') AS shows")
    assert row == {"shows": False}
