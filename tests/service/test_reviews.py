"""Reviews over REST: the token gives the author, errors are told apart by code, and answers show what is stored."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from starlette.testclient import TestClient

from ingest.corpus import review_journal, snapshot
from ingest.corpus.layout import CorpusLayout
from ingest.corpus.reviews import submit
from ingest.corpus.writer import writing
from ingest.storage.local import LocalStorage
from jobs.service import api_reviews, api_thresholds
from jobs.service.cache_build import build_cache
from jobs.service.job_runner import JobRunner
from jobs.service.job_store import JobStore
from jobs.service.roles import API
from schemas.review import MAX_TEXT
from tests.curation.lifecycle_corpus import uids
from tests.curation.manifest_cases import invoke
from tests.curation.tier_corpus import FINE, TEXT, Given, policy_of, run, write_corpus
from tests.generators.corpus import uid_of
from tests.ingest.test_reviews import review, write
from tests.service.corpora import READER, REVIEWER, TOKEN, client_of, keeper_of
from tests.service.test_roles import bearer


@pytest.fixture
def corpus(toy: Path, tmp_path: Path) -> CorpusLayout:
    return CorpusLayout(shutil.copytree(toy, tmp_path / "corpus"))


@pytest.fixture
def client(corpus: CorpusLayout, tmp_path: Path) -> TestClient:
    jobs = JobRunner(JobStore(tmp_path / "jobs"), corpus.root)
    client = client_of(corpus.root, tmp_path / "state", jobs=jobs)
    client.headers.update(bearer(REVIEWER))
    return client


def row(number: int, uid: str, **fields: Any) -> dict[str, Any]:
    row = {"review_id": str(UUID(int=number)), "uid": uid, "kind": "note", "value": "odd"}
    return {**row, **fields}


def sent(client: TestClient, *rows: dict[str, Any]) -> Any:
    return client.post(f"{API}/reviews", json={"reviews": rows})


def listed(client: TestClient, uid: str) -> list[dict[str, Any]]:
    answer = client.get(f"{API}/episodes/{uid}/reviews")
    assert answer.status_code == 200
    stored: list[dict[str, Any]] = answer.json()["reviews"]
    return stored


def test_a_review_is_stored_shown_published_and_superseded(
    client: TestClient, corpus: CorpusLayout
) -> None:
    uid, before = uids(corpus.root)["a"], datetime.now(UTC)
    first = row(1, uid, kind="tier_override", value="low", start=0, end=2)
    for _ in range(2):
        answer = sent(client, first)
        assert answer.status_code == 201
        assert answer.json() == {
            "receipts": [{"review_id": first["review_id"], "is_pending": True}]
        }
    [stored] = listed(client, uid)
    at = datetime.fromisoformat(stored.pop("at"))
    assert timedelta(0) <= at - before < timedelta(minutes=10)
    assert stored == {
        **first,
        "author": "Ada",
        "snapshot": snapshot.load(corpus.root).number,
        "supersedes": None,
        "is_pending": True,
        "is_in_force": True,
    }
    write(corpus)
    assert sent(client, first).json()["receipts"][0]["is_pending"] is False
    sent(client, row(2, uid, supersedes=first["review_id"]))
    shown = [(each["is_pending"], each["is_in_force"]) for each in listed(client, uid)]
    assert shown == [(False, False), (True, True)]
    assert listed(client, uids(corpus.root)["c"]) == []


def test_a_review_is_of_the_snapshot_that_its_reviewer_saw(
    client: TestClient, corpus: CorpusLayout
) -> None:
    uid, seen = uids(corpus.root)["a"], snapshot.load(corpus.root).number
    assert sent(client, row(1, uid)).status_code == 201
    write(corpus)
    build_cache(corpus.root, keeper_of(client).folder)
    keeper_of(client).refresh()
    for number, asked in ((2, {"snapshot": seen}), (3, {})):
        answer = client.post(f"{API}/reviews", json={"reviews": [row(number, uid)]}, params=asked)
        assert answer.status_code == 201
    assert [each["snapshot"] for each in listed(client, uid)] == [seen, seen, seen + 1]
    answer = client.post(
        f"{API}/reviews", json={"reviews": [row(4, uid)]}, params={"snapshot": seen + 2}
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "place")


@pytest.mark.parametrize("name", ["author", "at", "snapshot"])
def test_what_the_server_decides_is_not_taken_from_the_client(
    name: str, client: TestClient, corpus: CorpusLayout
) -> None:
    uid = uids(corpus.root)["a"]
    assert sent(client, row(1, uid, **{name: "Eve"})).status_code == 422
    assert listed(client, uid) == []


def test_refusals_have_codes_and_store_nothing(client: TestClient, corpus: CorpusLayout) -> None:
    uid = uids(corpus.root)["a"]
    good = row(1, uid)
    assert sent(client, good).status_code == 201
    for wrong, status, code in (
        (row(1, uid, value="other"), 409, "review_id"),
        (row(2, "unknown"), 422, "place"),
        (row(2, uid, start=0, end=1 << 20), 422, "place"),
        (row(2, uid, start=3), 422, "usage"),
        (row(2, uid, start=3, end=3), 422, "usage"),
        (row(2, uid, kind="delete"), 422, "usage"),
        (row(2, uid, kind="tier_override", value="best"), 422, "usage"),
        (row(2, uid, value="x" * (MAX_TEXT + 1)), 422, "usage"),
        (row(2, uid, review_id="x"), 422, "usage"),
    ):
        answer = sent(client, row(3, uid), wrong)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert sent(client).status_code == 422
    assert sent(client, *(row(n, uid) for n in range(10, 111))).status_code == 422
    assert sent(client, *(row(n, uid) for n in range(10, 110))).status_code == 201
    assert len(listed(client, uid)) == 101
    other = client.post(f"{API}/reviews", json={"reviews": [good]}, headers=bearer(READER))
    assert (other.status_code, other.json()["error"]["code"]) == (403, "role")
    assert client.get(f"{API}/episodes/unknown/reviews").status_code == 404


def test_another_author_has_another_review(client: TestClient, corpus: CorpusLayout) -> None:
    uid = uids(corpus.root)["a"]
    admin = TestClient(client.app, base_url=str(client.base_url))
    admin.headers.update(bearer(TOKEN))
    assert sent(client, row(1, uid)).status_code == 201
    assert sent(admin, row(1, uid)).status_code == 409
    assert sent(admin, row(2, uid)).status_code == 201
    assert [each["author"] for each in listed(client, uid)] == ["Ada", "admin"]


def test_a_server_that_only_reads_takes_none(corpus: CorpusLayout, tmp_path: Path) -> None:
    client = client_of(corpus.root, tmp_path / "state")
    answer = sent(client, row(1, uids(corpus.root)["a"]))
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "read_only")
    assert not (corpus.root / "reviews").exists()


def test_reviews_are_taken_while_another_process_writes(
    client: TestClient, corpus: CorpusLayout
) -> None:
    uid = uids(corpus.root)["a"]
    with writing(corpus, LocalStorage(corpus.root)):
        assert sent(client, row(1, uid)).status_code == 201
        assert [each["is_pending"] for each in listed(client, uid)] == [True]
    assert [each["is_pending"] for each in listed(client, uid)] == [False]


def test_a_journal_that_another_process_holds_is_waited_for_shortly(
    client: TestClient, corpus: CorpusLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_reviews, "LOCK_WAIT_S", 0.0)
    uid = uids(corpus.root)["a"]
    with review_journal.held(corpus, LocalStorage(corpus.root)):
        answer = sent(client, row(1, uid))
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "busy")
        assert answer.headers["retry-after"] == "2"
        assert listed(client, uid) == []
    assert sent(client, row(1, uid)).status_code == 201


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TestClient]:
    """Six episodes with values around a threshold, tiers, and two published reviews."""
    folder = tmp_path_factory.mktemp("judged")
    values = [0.9, 0.51, 0.5, 0.1, 0.49, None]
    episodes = [Given(whole={**FINE, "idle_share": value}) for value in values]
    corpus = write_corpus(folder / "corpus", episodes)
    run(corpus, policy_of(TEXT))
    fields = {"kind": "tier_override", "value": "low"}
    submit(CorpusLayout(corpus), [review(n, uid_of(n), **fields) for n in (1, 3)])
    write(CorpusLayout(corpus))
    return corpus, client_of(corpus, folder / "state")


def printed(*words: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(invoke(*words, "--json").stdout)["result"]
    return answer


def test_the_sample_and_the_agreement_are_those_of_the_commands(
    judged: tuple[Path, TestClient],
) -> None:
    corpus, client = judged
    options = {"measurement": "idle_share", "count": 3}
    answer = client.get(f"{API}/reviews/sample", params=options).json()
    words = ("review", "sample", str(corpus), "--measurement=idle_share", "--near-threshold=3")
    expected = printed(*words)
    assert {name: answer[name] for name in expected} == expected
    assert len(answer["candidates"]) == 3
    answer = client.get(f"{API}/reviews/agreement").json()
    expected = printed("review", "agreement", str(corpus))
    assert {name: answer[name] for name in expected} == expected
    assert answer["tiers"][1]["recall"]["total"] == 2
    named = client.get(f"{API}/reviews/agreement", params={"policy": "ei30k"}).json()
    assert (
        named["policy"] == printed("review", "agreement", str(corpus), "--policy=ei30k")["policy"]
    )
    assert named["policy"] != answer["policy"]


def test_a_policy_is_a_name_and_no_path(judged: tuple[Path, TestClient]) -> None:
    _, client = judged
    for name, status in (("other", 404), ("../policy.yaml", 422), ("policy.yaml", 422)):
        answer = client.get(f"{API}/reviews/agreement", params={"policy": name})
        assert answer.status_code == status


def test_comparisons_run_one_at_a_time(
    judged: tuple[Path, TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, client = judged
    monkeypatch.setattr(api_thresholds, "WAIT_S", 0.0)
    sample = f"{API}/reviews/sample?measurement=idle_share"
    for path, one in (
        (sample, api_reviews._comparing),
        (f"{API}/reviews/agreement", api_thresholds.JUDGING),
    ):
        with one:
            answer = client.get(path)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        assert client.get(path).status_code == 200


def test_agreement_and_what_if_judge_the_corpus_once(
    judged: tuple[Path, TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, client = judged
    assert client.get(f"{API}/what-if").status_code == 200
    monkeypatch.delattr(api_thresholds, "judge")
    assert client.get(f"{API}/reviews/agreement").status_code == 200


def test_a_what_if_with_the_values_in_force_changes_nothing(
    judged: tuple[Path, TestClient],
) -> None:
    _, client = judged
    threshold, *_ = client.get(f"{API}/thresholds").json()["thresholds"]
    same = f"{threshold['name']}:{threshold['value']}"
    counts = client.get(f"{API}/what-if", params={"threshold": same}).json()["counts"]
    assert [each["segments"] for each in counts] == [each["segments_before"] for each in counts]
