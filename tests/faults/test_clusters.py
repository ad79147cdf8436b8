"""Several machines: real raylets, each with its own view of the file system, and the real command as their driver.

A node that does not see what the driver sees never decides what happens to an episode.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmarks.raylets import HERE, ROOT, Raylets, kill_tree
from ingest.corpus import snapshot
from ingest.storage.open_store import open_store
from ingest.verify.digest import digest
from tests.faults.runs import TOY, facts, run, tree
from tests.faults.toy import DEEP, GATE, write_toy
from tests.generators.lerobot_set import write_small
from tests.jobs.test_ingest_uri import done as cli
from tests.jobs.test_ingest_uri import upload
from tests.s3_server import BUCKET

pytestmark = [pytest.mark.slow, pytest.mark.ray]
PATIENCE_S = 180.0
KINDS = {"h0": "deep", "h1": "deep", "h2": "deep", "nowhere": "deep"}


@dataclass(frozen=True, kw_only=True)
class Place:
    """Folders of the tests, and a cluster of which no node sees all of them."""

    cluster: Raylets
    views: Path  # a folder for each: `driver`, `first`, `second`, `newcomer`
    lerobot: Path  # its videos/ look empty to the second node
    deep: Path  # DEEP looks empty to both
    local: Path  # looks empty to both: storage of the driver alone
    late: Path  # looks empty to a node that joins later


SEEN = {
    "first": {"videos", "late"},
    "second": {"late"},
    "newcomer": {"videos"},
}  # of what is shared


def shared(path: Path, views: Path, name: str) -> None:
    """What lies at `path` goes to the driver's view, and a link leads each process to its own: another way to it, or an empty folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    views.joinpath("driver").mkdir(parents=True, exist_ok=True)
    if path.exists():
        path.rename(views / "driver" / name)
    else:
        (views / "driver" / name).mkdir()
    path.symlink_to(HERE / name)
    for node, names in SEEN.items():
        (views / node).mkdir(exist_ok=True)
        if name in names:
            (views / node / name).symlink_to(views / "driver" / name)
        else:
            (views / node / name).mkdir()


@contextmanager
def placed(root: Path, *nodes: str) -> Iterator[Place]:
    write_small(root / "lerobot")
    write_toy(root / "deep", KINDS)
    write_toy(root / "late", {"g0": "gated", "g1": "gated", "a": "good", "b": "good"})
    views = root / "lerobot" / "views"  # inside, because links of raw data must not lead out
    folders = {name: root / name for name in ("lerobot", "deep", "local", "late")}
    shared(root / "lerobot" / "videos", views, "videos")
    shared(root / "deep" / DEEP, views, "deep")
    shared(root / "local", views, "local")
    shared(root / "late", views, "late")
    for name in set(KINDS) - {"nowhere"}:
        (views / "driver" / "deep" / name).write_bytes(b"here")
    with Raylets(views / "driver") as cluster:
        cluster.add(*(views / node for node in nodes))
        yield Place(cluster=cluster, views=views, **folders)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A cluster that no test changes, because tests come in any order."""
    with placed(tmp_path_factory.mktemp("clusters"), "first", "second") as made:
        yield made


@pytest.fixture
def own_place(tmp_path: Path) -> Iterator[Place]:
    """Places of the test's own, where it may add nodes."""
    with placed(tmp_path / "cluster", "first", "second") as own:
        yield own


@pytest.fixture
def own_cluster(tmp_path: Path) -> Iterator[Raylets]:
    """A head and one node of the test's own, which may end them."""
    with Raylets(ROOT) as cluster:
        cluster.add(ROOT)
        yield cluster


def answer(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The result of a command with `--json`."""
    result: dict[str, Any] = json.loads(done.stdout)["result"]
    return result


def error_message(stdout: str) -> str:
    """The message of a command with `--json` that failed."""
    return str(json.loads(stdout)["error"]["message"])


def until(is_so: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < end, f"never {what}"
        time.sleep(0.05)


def test_default_limits_fit_small_nodes_and_a_node_without_videos_loses_nothing(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S1: 4096 MiB are asked of nodes of 4.0e9 bytes. S2: `videos/` is not mounted on one of them. A folder above the corpus is a link."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "data").symlink_to("disk")
    done = place.cluster.run(
        "ingest", "lerobot", str(place.lerobot), "--out", f"{tmp_path}/data/out", "--json"
    )
    assert done.returncode == 0, done.stderr
    found = answer(done)
    assert (found["committed"], found["absent"], found["quarantined"]) == (3, 0, 0)
    [excluded] = found["excluded_nodes"]
    assert f"{place.lerobot}/videos/" in excluded
    assert "nodes left: 1" in done.stderr.replace("\n", " ")
    monkeypatch.chdir(place.views / "driver")
    run(place.lerobot, tmp_path / "wanted", source="lerobot")
    assert tree(tmp_path / "data/out/datasets") == tree(tmp_path / "wanted/datasets")


def test_a_corpus_that_the_nodes_do_not_share_is_refused(place: Place) -> None:
    """S3"""
    done = place.cluster.run(
        "ingest", TOY, str(place.late), "--out", f"{place.local}/out", "--json"
    )
    assert done.returncode == 2, done.stderr
    assert error_message(done.stdout).count("the corpus differs from the driver's") == 2
    assert str(place.local) in error_message(done.stdout)


def test_nodes_that_share_only_a_bucket_make_the_corpus_of_one_machine(
    s3_server: str, tmp_path: Path
) -> None:
    """Each node has a disk of its own below the cache. Raw data and corpus are in the bucket. A worker that crashes is told by its node."""
    raw = write_toy(tmp_path / "raw", {"a": "good", "b": "segfault", "c": "good"})
    write_small(tmp_path / "set")
    prefix = f"s3://{BUCKET}/{tmp_path.name}"
    upload(tmp_path / "set", f"{prefix}/set")
    with placed(tmp_path / "cluster", "first", "second") as own:
        words = ["--cache-dir", str(own.local), "--max-quarantined", "1", "--json"]
        sets = [("lerobot", f"{prefix}/set"), (TOY, str(raw))]
        told = {}
        for source, path in sets:
            done = own.cluster.run("ingest", source, path, "--out", f"{prefix}/corpus", *words)
            assert done.returncode == 0, done.stderr
            told[source] = answer(done)
        assert told["lerobot"]["committed"] == 3
        assert (told[TOY]["committed"], told[TOY]["quarantined"]) == (2, 1)
        assert "excluded_nodes" not in told[TOY] or not told[TOY]["excluded_nodes"]
        [copy] = (own.views / "driver" / "local" / "corpora").iterdir()
        verdicts = snapshot.load(copy).read(copy, "verdicts", ["code", "message"]).to_pylist()
        [crash] = [row for row in verdicts if row["code"]]
        assert crash["code"] == "worker_died"
        assert "SIGSEGV at" in crash["message"]
        worked = [*(own.views / "first" / "local").rglob("*.lock")]
        worked += (own.views / "second" / "local").rglob("*.lock")
        assert worked
        assert open_store(f"{prefix}/corpus").list("staging") == []
    pulled = tmp_path / "pulled"
    cli("pull", f"{prefix}/corpus", str(pulled))
    for source, path in (("lerobot", tmp_path / "set"), (TOY, raw)):
        cli("ingest", source, path, "--out", tmp_path / "local", "--max-quarantined", "1")
    assert digest(pulled) == digest(tmp_path / "local")


def test_a_memory_limit_below_what_a_worker_needs_is_refused(place: Place, tmp_path: Path) -> None:
    """S4: with the numbers, and not as another version of eicorpus."""
    words = ["ingest", TOY, str(place.deep), "--out", f"{tmp_path}/out", "--memory-limit-mb", "256"]
    done = place.cluster.run(*words, "--json")
    assert done.returncode == 2, done.stderr
    error = error_message(done.stdout)
    assert "--memory-limit-mb 256 MiB is too low: a worker process uses " in error
    assert "use --memory-limit-mb " in error
    assert "install" not in error


def test_more_threads_than_any_node_has_are_refused(place: Place, tmp_path: Path) -> None:
    """S1: what no node can give is said at once, with the numbers, and nothing is made."""
    done = place.cluster.run(
        "ingest",
        TOY,
        str(place.deep),
        "--out",
        f"{tmp_path}/out",
        "--decoder-threads",
        "3",
        "--json",
    )
    assert done.returncode == 2, done.stderr
    assert "needs 3 CPUs" in error_message(done.stdout)
    assert "the largest of 2 nodes offers 1 CPUs; use --decoder-threads 1" in error_message(
        done.stdout
    )
    assert not (tmp_path / "out").exists()


def test_what_a_node_calls_absent_is_read_again_by_the_driver(place: Place, tmp_path: Path) -> None:
    """S2: both nodes lack a folder that no sample touches. One file is nowhere: that is the data's."""
    done = place.cluster.run("ingest", TOY, str(place.deep), "--out", f"{tmp_path}/out", "--json")
    assert done.returncode == 0, done.stderr
    found = answer(done)
    assert (found["committed"], found["codes"]) == (3, {"missing_file": 1})
    assert len(found["excluded_nodes"]) == 2
    problem = "it reports what the driver does not see (missing_file: "
    assert all(problem in each for each in found["excluded_nodes"])
    assert {row["episode_id"] for row in facts(tmp_path / "out", "episodes")} == {"h0", "h1", "h2"}


def test_a_node_that_joins_later_proves_itself_first(own_place: Place, tmp_path: Path) -> None:
    """Both nodes are held by an episode each, so that the rest goes to the newcomer."""
    log, out = tmp_path / "stderr", tmp_path / "out"
    command = own_place.cluster.command(
        "ingest", TOY, str(own_place.late), "--out", str(out), "--json"
    )
    with log.open("wb") as stderr:
        driver = subprocess.Popen(
            command,
            cwd=own_place.cluster.view,
            env=own_place.cluster.env,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
        try:
            until(lambda: len(list(out.glob("staging/.nodes.*/watch.*"))) == 2, "two at work")
            own_place.cluster.add(own_place.views / "newcomer")
            until(
                lambda: "episodes.json cannot be read on this node" in log.read_text(), "excluded"
            )
            (own_place.views / "driver" / "late" / GATE).touch()
            stdout, _ = driver.communicate(timeout=PATIENCE_S)
        finally:
            kill_tree(driver)
    assert driver.returncode == 0, log.read_text()
    found = json.loads(stdout)["result"]
    assert (found["committed"], found["quarantined"], found["failed"]) == (4, 0, 0)
    assert len(found["excluded_nodes"]) == 1
    assert list(out.glob("staging/.nodes.*")) == []


def test_a_lost_head_ends_the_command_with_how_to_resume(
    own_cluster: Raylets, tmp_path: Path
) -> None:
    """S5: SIGKILL of the head."""
    raw, out = (
        write_toy(tmp_path / "raw", {"a": "good", "g": "gated", "z": "good"}),
        tmp_path / "out",
    )
    words = ["ingest", TOY, str(raw), "--out", str(out), "--json"]
    driver = subprocess.Popen(
        own_cluster.command(*words, module="tests.faults.drive_cluster"),
        cwd=ROOT,
        env=own_cluster.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until(lambda: list(out.glob("staging/.nodes.*/watch.*")), "at work")
        kill_tree(own_cluster.started[0])
        stdout, stderr = driver.communicate(timeout=PATIENCE_S)
    finally:
        kill_tree(driver)
    assert driver.returncode == 1, stderr
    found = json.loads(stdout)["error"]
    assert (found["code"], found["exit_code"]) == ("cluster_lost", 1)
    assert "the head of the Ray cluster" in found["message"]
    assert f"resume with: eicorpus ingest {TOY} {raw} --out {out} --json --ray" in found["remedy"]
    (raw / GATE).touch()
    kill_tree(own_cluster.started[1])  # a node that has lost its head ends by itself later
    own_cluster.start_head()
    own_cluster.add(ROOT)
    again = own_cluster.run(*words)
    assert again.returncode == 0, again.stderr
    assert answer(again)["committed"] == 3


def drain(cluster: Raylets, node_id: str) -> None:
    """As a cloud announces that it takes a spot node away."""
    words = ["--address", cluster.address, "--node-id", node_id, "--reason-message", "spot"]
    words += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--deadline-remaining-seconds", "1"]
    ray = [sys.executable, "-m", "ray.scripts.scripts", "drain-node", *words]
    subprocess.run(ray, env=cluster.env, check=True, capture_output=True, timeout=PATIENCE_S)


def test_a_preempted_and_a_lost_node_are_told_apart_and_a_new_one_does_their_work(
    own_cluster: Raylets, tmp_path: Path
) -> None:
    """Both nodes go with an episode each. The node that joins proves itself and does all three."""
    own_cluster.add(ROOT)
    kinds = {"g0": "gated", "g1": "gated", "z": "good"}
    raw, out = write_toy(tmp_path / "raw", kinds), tmp_path / "out"
    driver = subprocess.Popen(
        own_cluster.command("ingest", TOY, str(raw), "--out", str(out), "--json"),
        cwd=ROOT,
        env=own_cluster.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    def nodes_at_work() -> list[str]:
        """Node of each process that has written what it works on."""
        texts = [path.read_text() for path in out.glob("staging/.nodes.*/watch.*")]
        return [text.split()[1] for text in texts if text.count(" ") >= 2]

    try:
        until(lambda: len(set(nodes_at_work())) == 2, "two at work")
        drain(own_cluster, nodes_at_work()[0])
        time.sleep(2.0)  # past its deadline
        for process in own_cluster.started[1:]:
            kill_tree(process)
        (raw / GATE).touch()
        own_cluster.add(ROOT)
        stdout, stderr = driver.communicate(timeout=PATIENCE_S)
    finally:
        kill_tree(driver)
    assert driver.returncode == 0, stderr
    found = json.loads(stdout)["result"]
    assert (found["committed"], found["quarantined"], found["failed"]) == (3, 0, 0)
    assert sorted(event["code"] for event in deaths(out)) == ["node_lost", "node_preempted"]


def deaths(corpus: Path) -> list[dict[str, Any]]:
    """Deaths of workers, as the ledger has them."""
    [ledger] = corpus.glob("ledger/*.jsonl")
    events = [json.loads(line) for line in ledger.read_text().splitlines()]
    return [event for event in events if event["event"] == "death"]


def test_an_autoscaler_at_zero_nodes_is_asked_from_the_plan(tmp_path: Path) -> None:
    """A real autoscaler of Ray. Its head lends no CPU, and nothing but the request makes it add nodes."""
    raw, out = write_toy(tmp_path / "raw", dict.fromkeys("abc", "good")), tmp_path / "out"
    with Raylets(ROOT, most_nodes=1) as cluster:
        done = cluster.run("ingest", TOY, str(raw), "--out", str(out), "--json")
    assert done.returncode == 0, done.stderr
    found = answer(done)
    assert (found["committed"], found["excluded_nodes"]) == (3, [])
