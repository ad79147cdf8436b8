"""Thresholds saved as a policy: a file beside the spec or in the state folder, which jobs take by its name and which never changes."""

from __future__ import annotations

import errno
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from starlette.testclient import TestClient

from ingest.curation.tiers.policy import load_policy
from ingest.storage.local import LocalStorage
from jobs.service.cache_build import build_cache
from jobs.service.job_kinds import JobRequest
from jobs.service.job_process import main
from jobs.service.job_runner import JobRunner
from jobs.service.job_store import JobStore
from jobs.service.roles import API
from jobs.service.saved_policies import policy_of_name, with_file
from tests.curation.manifest_cases import invoke
from tests.curation.tier_corpus import FINE, TEXT, Given, policy_of, run, write_corpus
from tests.generators.corpus import uid_of
from tests.service.corpora import READER, REVIEWER, client_of, keeper_of
from tests.service.test_roles import bearer

LAZY = "conditions.lazy.above"
QUESTION = {"base": "mine", "name": "mine_2", "note": "less idle", "thresholds": {LAZY: 0.4}}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Two episodes between the old threshold and the new one, with tiers."""
    episodes = [Given(whole={**FINE, "idle_share": value}) for value in (0.1, 0.45, 0.45, 0.9)]
    corpus = write_corpus(tmp_path / "corpus", episodes)
    run(corpus, policy_of(TEXT))
    return corpus


def served(corpus: Path, state: Path, spec: Path | None = None) -> TestClient:
    return client_of(corpus, state, jobs=JobRunner(JobStore(state), corpus, spec))


@pytest.fixture
def client(corpus: Path, tmp_path: Path) -> TestClient:
    return served(corpus, tmp_path / "state")


def post(client: TestClient, **fields: Any) -> Any:
    return client.post(f"{API}/policies", json={**QUESTION, **fields})


def tiers(corpus: Path) -> dict[str, int]:
    words = ("query", str(corpus), "SELECT tier, count(*) AS n FROM tiers GROUP BY ALL", "--json")
    rows = json.loads(invoke(*words).stdout)["result"]["rows"]
    return dict(rows)


def test_a_saved_policy_is_applied_by_a_job_and_explained(
    client: TestClient, corpus: Path, tmp_path: Path
) -> None:
    assert tiers(corpus) == {"high": 3, "low": 1}
    answer = post(client)
    assert answer.status_code == 201, answer.text
    path = tmp_path / "state" / "policies" / "mine_2.yaml"
    assert answer.json() == {
        "name": "mine_2",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "policy": "mine_2 v1",
    }
    store = JobStore(tmp_path / "state")
    request = '{"kind":"tier","policy":"mine_2"}'
    job, _ = store.submit(key="a", kind="tier", request=request, now_s=1.0)
    main(tmp_path / "state", corpus, job.id)
    done = store.job(job.id)
    assert done is not None
    assert done.state == "succeeded", done
    assert tiers(corpus) == {"high": 1, "low": 3}
    build_cache(corpus, tmp_path / "state")
    keeper_of(client).refresh()
    shown = client.get(f"{API}/episodes/{uid_of(1)}/explain").json()
    assert (shown["policy"], shown["stored"]) == ("mine_2 v1", "same")
    own = {each["name"]: each for each in client.get(f"{API}/thresholds").json()["thresholds"]}
    assert own[LAZY]["value"] == 0.4
    assert own[LAZY]["origin"] == "set by admin in mine_2; above was 0.5: ours"
    # the new one is in force now, and the base of the next
    assert post(client, base="mine_2", name="mine_3").status_code == 201
    named = client.get(f"{API}/reviews/agreement", params={"policy": "mine_3"})
    assert named.json()["policy"] == "mine_3 v1"


def test_the_file_says_who_saved_it_and_why(corpus: Path, tmp_path: Path) -> None:
    spec = tmp_path / "specs" / "corpus.yaml"
    spec.parent.mkdir()
    client = served(corpus, tmp_path / "state", spec)
    assert post(client, note="less idle\n# base: other\x1b[2J\u2028policy: x").status_code == 201
    path = spec.parent / "policies" / "mine_2.yaml"
    head = path.read_text().splitlines()[:5]
    assert head[0].startswith("# base: mine v3 (")
    assert head[1] == "# author: admin"
    assert head[2].startswith("# time: 20")
    assert head[3:] == ["# note: less idle # base: other [2J policy: x", "policy: mine_2"]
    policy, _ = load_policy(str(path))
    assert policy.conditions["lazy"].above == 0.4


def test_a_saved_policy_never_changes(client: TestClient, tmp_path: Path) -> None:
    first = post(client).json()
    path = tmp_path / "state" / "policies" / "mine_2.yaml"
    before = path.read_bytes()
    assert post(client).json() == first
    for fields in ({"thresholds": {LAZY: 0.3}}, {"note": "other"}):
        answer = post(client, **fields)
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "policy_exists")
    assert post(client, name="ei30k").status_code == 409
    assert path.read_bytes() == before


def test_what_is_no_policy_is_not_written(client: TestClient, tmp_path: Path) -> None:
    for fields, status in (
        ({"name": "../x"}, 422),
        ({"name": "x/y"}, 422),
        ({"name": "Mine-2"}, 422),
        ({"base": "../mine"}, 422),
        ({"base": "other"}, 404),
        ({"note": ""}, 422),
        ({"thresholds": {}}, 422),
        ({"thresholds": {"nonsense": 1}}, 400),
        ({"path": "/tmp/x"}, 422),
    ):
        assert post(client, **fields).status_code == status, fields
    text = json.dumps(QUESTION).replace("0.4", "NaN")
    headers = {"Content-Type": "application/json"}
    assert client.post(f"{API}/policies", content=text, headers=headers).status_code == 422
    for token in (READER, REVIEWER):
        answer = client.post(f"{API}/policies", json=QUESTION, headers=bearer(token))
        assert answer.status_code == 403
    assert not (tmp_path / "state" / "policies").exists()


def test_a_range_that_nothing_can_be_in_is_refused(tmp_path: Path) -> None:
    old = "{measurement: idle_share, above: 0.5, origin: ours}"
    text = TEXT.replace(old, "{measurement: idle_share, above: 0.5, below: 0.8, origin: ours}")
    corpus = write_corpus(tmp_path / "corpus", [Given(whole=FINE)])
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    assert invoke("tier", str(corpus), "--policy", str(path)).exit_code == 0
    answer = post(served(corpus, tmp_path / "state"), thresholds={LAZY: 0.9})
    assert answer.status_code == 400
    assert "mine_2.yaml:" in answer.text
    assert not (tmp_path / "state" / "policies").exists()


def test_a_full_disk_leaves_no_file(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(LocalStorage, "_named", full)
        assert post(client).status_code == 503
    assert list((tmp_path / "state" / "policies").iterdir()) == []
    assert post(client).status_code == 201


def test_a_server_that_only_reads_saves_none(corpus: Path, tmp_path: Path) -> None:
    answer = post(client_of(corpus, tmp_path / "state"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "read_only")


def test_a_job_without_a_saved_policy_stays_as_it_is(tmp_path: Path) -> None:
    for job in ({"kind": "tier", "policy": "ei30k"}, {"kind": "dedup"}):
        request = TypeAdapter(JobRequest).validate_python(job)
        assert with_file(request, tmp_path) is request


def test_another_base_than_the_one_looked_at_is_refused(client: TestClient) -> None:
    shown = client.get(f"{API}/thresholds").json()
    assert shown["policy_name"] == "mine"
    answer = post(client, base_digest="0" * 16)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "policy_changed")
    assert post(client, base_digest=shown["policy_digest"]).status_code == 201


def test_before_the_first_run_the_base_is_the_built_in_policy(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", [Given(whole=FINE)])
    client = served(corpus, tmp_path / "state")
    shown = client.get(f"{API}/thresholds").json()
    moved = {shown["thresholds"][0]["name"]: shown["thresholds"][0]["value"] / 2}
    base = {"base": shown["policy_name"], "base_digest": shown["policy_digest"]}
    assert post(client, **base, thresholds=moved).status_code == 201


def test_a_file_with_a_built_in_name_is_not_that_policy(tmp_path: Path) -> None:
    (tmp_path / "ei30k.yaml").write_text(TEXT)
    request = TypeAdapter(JobRequest).validate_python({"kind": "tier", "policy": "ei30k"})
    assert with_file(request, tmp_path) == request
    assert policy_of_name(tmp_path, "ei30k").digest == load_policy("ei30k")[0].digest
