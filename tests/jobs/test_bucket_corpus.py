"""Commands on a corpus in a bucket: moto's S3 on loopback, each cache a machine of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ingest.corpus.remote_link import read_link
from ingest.storage.open_store import open_store
from ingest.verify.digest import digest
from tests import generators
from tests.faults import several_writers
from tests.generators.corpus import write_catalog
from tests.jobs.test_ingest_uri import upload
from tests.s3_server import BUCKET

pytestmark = pytest.mark.slow

Eicorpus = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def uri(s3_server: str, request: pytest.FixtureRequest) -> str:
    return f"s3://{BUCKET}/{abs(hash(request.node.nodeid))}"


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/count").write_text("4")
    return tmp_path / "raw"


@pytest.fixture
def eicorpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Eicorpus:
    def run(*words: object, machine: str = "one") -> subprocess.CompletedProcess[str]:
        monkeypatch.setenv("EICORPUS_CACHE", str(tmp_path / machine))
        command = [sys.executable, "-m", "jobs", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return run


def result(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["result"]


def ingest(eicorpus: Eicorpus, raw: Path, out: object, machine: str = "one") -> Any:
    words = ("ingest", "benchmarks.overhead:Tiny", raw, "--out", out, "--workers", 0, "--json")
    return result(eicorpus(*words, machine=machine))


def test_from_raw_data_to_tiers_on_several_machines(
    eicorpus: Eicorpus, raw: Path, uri: str, tmp_path: Path
) -> None:
    assert ingest(eicorpus, raw, uri)["corpus"] == uri
    assert ingest(eicorpus, raw, uri, machine="two")["committed"] == 4
    ingest(eicorpus, raw, tmp_path / "local")
    told = result(eicorpus("digest", uri, "--json", machine="two"))
    assert told["digest"] == digest(tmp_path / "local").sha256
    assert result(eicorpus("measure", uri, "--workers", 0, "--json", machine="two"))
    assert result(eicorpus("tier", uri, "--json"))
    sql = "select count(*) as n from tiers"
    assert result(eicorpus("query", uri, sql, "--json", machine="three"))["rows"] == [[4]]
    assert result(eicorpus("verify", uri, "--json", machine="three"))["ok"]
    assert result(eicorpus("gc", uri, "--json"))["removed"]
    assert result(eicorpus("verify", uri, "--json", machine="four"))["ok"]


def test_a_corpus_of_one_machine_goes_there_and_comes_back(
    eicorpus: Eicorpus, raw: Path, uri: str, tmp_path: Path
) -> None:
    local, pulled = tmp_path / "local", tmp_path / "pulled"
    ingest(eicorpus, raw, local)
    assert result(eicorpus("push", local, uri, "--allow-licence", "unknown", "--json"))["pushed"]
    (raw / "count").write_text("6")
    assert ingest(eicorpus, raw, uri)["committed"] == 6
    assert result(eicorpus("pull", uri, pulled, "--json"))["findings"] == []
    assert read_link(pulled) is None
    (raw / "count").write_text("7")
    assert ingest(eicorpus, raw, pulled)["committed"] == 7
    assert result(eicorpus("verify", pulled, "--json"))["ok"]
    ingest(eicorpus, raw, tmp_path / "again")
    assert digest(pulled).sha256 == digest(tmp_path / "again").sha256


def test_any_state_of_a_bucket_is_listed_and_opened(
    eicorpus: Eicorpus, raw: Path, uri: str
) -> None:
    (raw / "count").write_text("2")
    ingest(eicorpus, raw, uri)
    (raw / "count").write_text("5")
    ingest(eicorpus, raw, uri, machine="two")
    listed = result(eicorpus("snapshot", "list", uri, "--json", machine="three"))["snapshots"]
    assert [each["number"] for each in listed] == [*range(1, len(listed) + 1)]
    assert [each["episodes"] for each in listed][-1] == 5
    of_two = max(each["number"] for each in listed if each["episodes"] == 2)
    assert all(each["published_s"] > 1e9 and each["command"] for each in listed)
    sql = "select count(*) from episodes"
    for number, episodes in ((of_two, 2), (len(listed), 5)):
        words = ("query", uri, sql, "--snapshot", number, "--json")
        assert result(eicorpus(*words, machine="three"))["rows"] == [[episodes]]
    told = result(eicorpus("snapshot", "diff", uri, of_two, len(listed), "--json", machine="four"))
    assert len(told["added"]) == 3
    refused = eicorpus("query", uri, sql, "--snapshot", 99, machine="three")
    assert refused.returncode == 2
    assert f"no snapshot 99; the newest is {len(listed)}" in refused.stderr


SPEC = """\
version: 1
corpus: {corpus}
sources:
  films: {{path: "{raw}", adapter: video_folder}}
measures: {{}}
tiers: {{}}
manifests:
  all: {{split: {{val: 0, test: 0}}, statistics: false}}
verify: {{}}
"""


def test_a_spec_names_a_corpus_and_raw_data_in_buckets(
    eicorpus: Eicorpus, uri: str, tmp_path: Path
) -> None:
    written = generators.write("video_folder", tmp_path / "films")
    upload(written.root, f"{uri}/raw")
    spec = tmp_path / "corpus.yaml"
    spec.write_text(SPEC.format(corpus=f"{uri}/corpus", raw=f"{uri}/raw"))
    planned = result(eicorpus("plan", spec, "--json"))
    assert planned["corpus"] == f"{uri}/corpus"
    assert not open_store(f"{uri}/corpus").list("")  # a plan changes nothing
    done = eicorpus("build", spec, "--workers", 0, "--json")
    assert done.returncode == 0, done.stdout
    built = result(done)
    assert {each["outcome"] for each in built["targets"]} == {"built"}
    again = result(eicorpus("build", spec, "--workers", 0, "--json"))
    assert {each["outcome"] for each in again["targets"]} == {"up to date"}
    open_store(f"{uri}/raw").put_file("another.mp4", written.root / "a.mp4")
    more = result(eicorpus("build", spec, "--workers", 0, "--json", machine="two"))
    (films,) = [each for each in more["targets"] if each["target"] == "sources.films"]
    assert films["done"] == 1
    sql = "select count(*) from episodes"
    count = result(eicorpus("query", f"{uri}/corpus", sql, "--json", machine="three"))["rows"]
    assert count == [[films["total"] - films["left_out"]]]
    names = result(eicorpus("list", "manifests", f"{uri}/corpus", "--json", machine="three"))
    assert len(names["manifests"]) >= 2
    spec.write_text(SPEC.format(corpus=f"{uri}/corpus", raw="s3://no-such-bucket-here/raw"))
    refused = eicorpus("build", spec, "--workers", 0)
    assert refused.returncode == 2
    assert "corpus.yaml:4:" in refused.stderr
    assert "no-such-bucket-here" in refused.stderr


def test_an_episode_is_forgotten_and_a_part_is_pulled(
    eicorpus: Eicorpus, raw: Path, uri: str, tmp_path: Path
) -> None:
    ingest(eicorpus, raw, uri)
    sql = "select uid from episodes order by uid"
    every = [row[0] for row in result(eicorpus("query", uri, sql, "--json"))["rows"]]
    looked = result(eicorpus("forget", uri, every[1], "--dry-run", "--json", machine="two"))
    assert looked["would_forget"] == [every[1]]
    done = result(eicorpus("forget", uri, every[1], "--reason", "asked", "--json", machine="two"))
    assert done["forgotten"] == [every[1]]
    left = result(eicorpus("query", uri, sql, "--json"))["rows"]
    assert [row[0] for row in left] == [every[0], *every[2:]]
    store = open_store(uri)
    for key in store.list(""):
        if "/tombstones/" not in key and key.endswith((".json", ".jsonl", ".parquet")):
            assert every[1].encode() not in store.get(key, max_bytes=1 << 24), key
    assert result(eicorpus("gc", uri, "--json"))["removed"]
    assert result(eicorpus("verify", uri, "--json", machine="three"))["ok"]
    assert ingest(eicorpus, raw, uri)["committed"] == 3  # it does not come back
    words = ("pull", uri, tmp_path / "part", "--where", f"uid = '{every[0]}'", "--json")
    assert result(eicorpus(*words, "--dry-run"))["num_files"] == 1
    assert result(eicorpus(*words))["findings"] == []
    count = "select count(*) from episodes"
    assert result(eicorpus("query", tmp_path / "part", count, "--json"))["rows"] == [[1]]


REFUSED = {
    "no corpus there": (("query", "URI", "select 1"), "no corpus.json"),
    "an erasure of no corpus": (("forget", "URI", "x"), "no corpus.json"),
    "a server of no corpus": (("serve", "URI"), "no corpus.json"),
    "a part of a folder": (("pull", "RUN", "RUN", "--where", "true"), "from a bucket"),
    "a bucket that is not there": (("query", "s3://no-such-bucket-here/c", "select 1"), "bucket"),
    "another kind of place": (("query", "ftp://host/c", "select 1"), "is a URL"),
    "memory": (("query", "memory://m/c", "select 1"), "memory://"),
    "a corpus for a manifest": (("train", "URI", "--out", "RUN"), "manifests/NAME"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_before_anything_is_made(
    eicorpus: Eicorpus, uri: str, tmp_path: Path, case: str
) -> None:
    words, message = REFUSED[case]
    done = eicorpus(
        *(word.replace("URI", uri).replace("RUN", str(tmp_path / "run")) for word in words)
    )
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert not (tmp_path / "run").exists()
    assert not list((tmp_path / "one").glob("corpora/*/corpus.json"))


def test_a_corpus_that_is_read_needs_no_library_of_buckets(tmp_path: Path) -> None:
    """A start on a local corpus stays as it was."""
    corpus = write_catalog(tmp_path / "c").root
    code = (
        "import sys; from jobs.cli import main; sys.argv = ['eicorpus', 'query', sys.argv[1], 'select 1']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\nassert 'obstore' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(corpus)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_killed_jobs_lose_nothing_and_commit_nothing_twice() -> None:
    losses = several_writers.Losses()
    done = several_writers.play(jobs=2, episodes=12, kill_every_s=3, losses=losses, seed=1)
    assert done.problem == ""
