"""Jobs of `eicorpus serve` as a process, with the commands that they run."""

from __future__ import annotations

import http.client
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from ingest.corpus.layout import open_corpus, writer_lock
from tests.jobs.build_cases import POLICY, build, refused, write_spec
from tests.service.test_serve import DEADLINE_S, Server, serving


def asked(server: Server, method: str, path: str, body: object = None) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE_S)
    headers = {"Authorization": f"Bearer {server.token}", "Content-Type": "application/json"}
    connection.request(method, f"/api/v1/jobs{path}", json.dumps(body), headers)
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return answer


def ended(server: Server, key: str, job: dict[str, Any]) -> dict[str, Any]:
    """The job after its end; the event stream ends with it."""
    submitted = asked(server, "POST", "", {"key": key, "job": job})
    assert server.ask(f"/api/v1/jobs/{submitted['id']}/events")[0] == 200
    answer: dict[str, Any] = asked(server, "GET", f"/{submitted['id']}")
    return answer


@pytest.mark.slow
def test_a_killed_server_loses_no_job_and_another_writer_is_named(
    toy: Path, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus"
    shutil.copytree(toy, corpus)
    job = {"kind": "tier", "policy": "ei30k"}
    with serving(corpus, tmp_path / "state") as first:
        submitted = asked(first, "POST", "", {"key": "a", "job": job})
        first.process.kill()
    with serving(corpus, tmp_path / "state") as server:
        tiered = ended(server, "a", job)
        assert (tiered["id"], tiered["state"]) == (submitted["id"], "succeeded"), tiered
        assert tiered["result"]["command"] == "tier"
        with writer_lock(open_corpus(corpus)):
            refused = ended(server, "b", job)
        assert refused["state"] == "failed"
        assert f"(process {os.getpid()})" in refused["problem"]
    with serving(corpus, tmp_path / "state", "--read-only") as reader:
        assert asked(reader, "GET", "")["error"]["code"] == "read_only"


@pytest.mark.slow
def test_a_server_of_a_spec_plans_and_builds(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, {"a": "good", "b": "good"})
    targets = build(spec)["built"]
    with serving(spec, tmp_path / "state") as server:
        options = json.loads(server.ask("/api/v1/job-options")[1])
        assert {"build", "plan"} <= set(options["kinds"])
        assert set(options["choices"]["targets"]) == set(targets)
        planned = ended(server, "plan", {"kind": "plan"})
        assert (planned["state"], planned["result"]["result"]["up_to_date"]) == ("succeeded", True)
        (tmp_path / "policy.yaml").write_text(POLICY % 0.9)
        built = ended(server, "build", {"kind": "build", "targets": ["tiers"]})
        assert built["state"] == "succeeded", built
        assert built["result"]["result"]["built"] == ["tiers"]
        rest = ended(server, "rest", {"kind": "build"})
        built_now = set(rest["result"]["result"]["built"])
        assert "manifests.train" in built_now
        assert built_now < set(targets) - {"tiers", "sources.toy"}
        spec.write_text(f"corpus: ./other\n{spec.read_text()}")
        assert (
            asked(server, "POST", "", {"key": "o", "job": {"kind": "build"}})["error"]["code"]
            == "other_corpus"
        )


@pytest.mark.slow
def test_the_first_build_of_a_spec_can_be_a_job(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, {"a": "good"})
    with serving(spec, tmp_path / "state") as server:
        job = ended(server, "build", {"kind": "build", "targets": ["sources.toy"]})
        assert job["state"] == "succeeded", job
        assert job["result"]["result"]["built"] == ["sources.toy"]


@pytest.mark.slow
def test_a_spec_is_served_while_its_raw_data_are_elsewhere(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, {"a": "good"})
    build(spec, "sources.toy")
    (tmp_path / "raw").rename(tmp_path / "away")
    with serving(spec, tmp_path / "state") as server:
        planned = ended(server, "plan", {"kind": "plan"})
        assert planned["state"] == "failed"
        assert "raw: no such file or folder" in planned["problem"]


def test_a_spec_that_was_never_built_is_refused(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, {"a": "good"})
    assert "is not built yet" in refused("serve", str(spec), "--read-only")
    assert not (tmp_path / "corpus").exists()
    for text in ("", "# later"):
        spec.write_text(text)
        assert f"{spec}: is missing (sources)" in refused("serve", str(spec))
