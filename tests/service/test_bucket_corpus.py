"""The service over a corpus in a bucket: commits of other machines are shown, and files are fetched when they are looked at."""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from ingest.catalog.catalog import Catalog
from ingest.corpus import lanes, snapshot
from ingest.corpus.commit_log import Change, CommitLog, LogEntry, Replacement, key_of
from ingest.corpus.layout import MARKER
from ingest.corpus.state_list import list_states
from ingest.corpus.working_copy import WorkingCopy, attach
from ingest.storage.object_store import ObjectStore
from jobs.service import bucket_files
from jobs.service.bucket_files import BucketFiles
from schemas.errors import ConfigError
from tests.curation.lifecycle_corpus import uids
from tests.s3_server import BUCKET
from tests.service.corpora import client_of
from tests.service.test_latents import encoded_in, strip_of

API = "/api/v1"


class Asked(ObjectStore):
    """Notes which files are copied, and how many bytes are read of others."""

    files: list[str]
    num_bytes: int

    def range(self, key: str, start: int, length: int) -> bytes:
        data = super().range(key, start, length)
        self.num_bytes += len(data)
        return data

    def get_file(
        self, key: str, path: Path, *, max_bytes: int | None = None, e_tag: str | None = None
    ) -> str:
        self.files.append(key)
        return super().get_file(key, path, max_bytes=max_bytes, e_tag=e_tag)


@pytest.fixture
def store(toy: Path, request: pytest.FixtureRequest) -> Asked:
    return pushed(toy, f"memory://{abs(hash(request.node.nodeid))}/c")


def pushed(corpus: Path, uri: str) -> Asked:
    """A corpus as `eicorpus push` puts it into a bucket."""
    store = Asked(uri)
    store.files, store.num_bytes = [], 0
    for path in sorted(corpus.rglob("*")):
        name = path.relative_to(corpus).as_posix()
        if path.is_file() and name.startswith(("catalog/", "datasets/", "corpus.json")):
            store.put_file(name, path)
    assert store.size(MARKER)
    return store


@pytest.fixture
def copy(store: Asked, tmp_path: Path) -> WorkingCopy:
    copy = attach(tmp_path / "copy", str(store.uri), store)
    copy.refresh()
    return copy


@pytest.fixture
def client(copy: WorkingCopy, tmp_path: Path) -> TestClient:
    return client_of(copy.root, tmp_path / "state", files=BucketFiles(copy))


def test_a_file_is_fetched_when_it_is_looked_at_and_no_other(
    toy: Path, toy_client: TestClient, client: TestClient, store: Asked
) -> None:
    uid = uids(toy)["a"]
    store.files.clear()
    assert client.get(f"{API}/episodes").status_code == 200
    assert store.files == []
    routes = (f"{API}/episodes/{uid}/frames/3/front", f"{API}/episodes/{uid}/series")
    for route in routes:
        mine, its = client.get(route), toy_client.get(route)
        assert mine.status_code == its.status_code == 200, mine.text
    assert client.get(routes[0]).content == toy_client.get(routes[0]).content
    kinds = sorted(name.rpartition(".")[2] for name in store.files)
    assert kinds == ["mp4", "parquet"]
    assert all("episode_00000" in name for name in store.files)
    client.get(f"{API}/episodes/{uid}/videos/front")
    assert len(store.files) == 2


def test_of_a_pack_of_latents_only_the_file_of_the_episode_is_read(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_files, "PIECE_BYTES", 10_000)
    corpus = encoded_in(Path(shutil.copytree(toy, tmp_path / "packed")), 256)
    [pack] = corpus.rglob("*.tar")
    uid, local = uids(corpus)["a"], client_of(corpus, tmp_path / "local")
    store = pushed(corpus, f"memory://{tmp_path.name}-packed/c")
    copy = attach(tmp_path / "copy", str(store.uri), store)
    copy.refresh()
    client = client_of(copy.root, tmp_path / "state", files=BucketFiles(copy))
    store.files.clear()
    assert strip_of(client, uid) == strip_of(local, uid)
    assert not [name for name in store.files if name.endswith(".tar")]
    assert not list(copy.root.rglob("*.tar"))
    with Catalog.open(corpus) as catalog:
        ask = f"select num_bytes from latents where uid = '{uid}' and pack_offset is not null"
        [(num_bytes,)] = catalog.sql(ask).rows()
    assert store.num_bytes == num_bytes < pack.stat().st_size / 2
    key = pack.relative_to(corpus).as_posix()
    store.put(key, bytes(pack.stat().st_size))
    assert "other bytes there" in strip_of(client, uid)["problem"]
    store.put(key, b"short")
    assert "other bytes there" in strip_of(client, uid)["problem"]
    store.delete(key)
    assert "missing" in strip_of(client, uid)["problem"]


def test_threads_use_disks_of_their_own(
    toy: Path, copy: WorkingCopy, monkeypatch: pytest.MonkeyPatch
) -> None:
    used, fetch_files = list[tuple[int, WorkingCopy]](), WorkingCopy.fetch_files

    def noted(copy: WorkingCopy, files: Any) -> int:
        used.append((threading.get_ident(), copy))
        return fetch_files(copy, files)

    monkeypatch.setattr(WorkingCopy, "fetch_files", noted)
    files, ready = BucketFiles(copy), threading.Barrier(4)
    rows = snapshot.load(toy).read(toy, "artifacts").to_pylist()

    def look(number: int) -> None:
        ready.wait(30)  # so that no thread does the work of two
        files.fetch(rows[number::4])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(look, range(4)))
    threads = {thread for thread, _ in used}
    assert len({id(each.disk) for _, each in used}) == len(threads) > 1
    assert all(each.disk is not copy.disk for _, each in used)


def test_a_damaged_or_missing_object_is_said_to_be_one(
    toy: Path, client: TestClient, store: Asked
) -> None:
    uid = uids(toy)["a"]
    files = client.get(f"{API}/episodes/{uid}").json()["artifacts"]
    (video,) = [each["path"] for each in files if each["kind"] == "video"]
    size = store.size(video)
    assert size
    store.put(video, bytes(size))
    answer = client.get(f"{API}/episodes/{uid}/frames/0/front")
    assert answer.status_code == 404
    assert "other bytes" in answer.json()["error"]["message"]
    store.delete(video)
    assert client.get(f"{API}/episodes/{uid}/frames/0/front").status_code == 404


def wait_for(holds: Callable[[], bool]) -> None:
    until_s = time.monotonic() + 300
    while not holds():
        assert time.monotonic() < until_s
        time.sleep(0.01)


def test_a_commit_of_another_machine_comes_by_itself(
    copy: WorkingCopy, store: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_files, "REFRESH_S", 0.01)
    stop, reported = threading.Event(), list[str]()
    watch = threading.Thread(target=BucketFiles(copy).watch, args=(stop, reported.append))
    watch.start()
    try:
        before = snapshot.numbers(copy.root)[-1]
        lanes.claim(attach(tmp_path / "other", str(store.uri), ObjectStore(store.uri)), "run")
        wait_for(lambda: snapshot.numbers(copy.root)[-1] == before + 1)
        marker = store.get(MARKER, max_bytes=9999)
        store.put(MARKER, b"{}")
        wait_for(lambda: len(reported) == 1)
        store.put(MARKER, marker)
    finally:
        stop.set()
        watch.join()
    assert str(store.uri) in reported[0]


def test_an_error_that_nobody_foresaw_does_not_end_the_watch(
    copy: WorkingCopy, store: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_files, "REFRESH_S", 0.01)
    refresh, fails = WorkingCopy.refresh, threading.Event()

    def refreshed(copy: WorkingCopy) -> snapshot.Snapshot:
        if fails.is_set():
            raise KeyError("unforeseen")
        return refresh(copy)

    monkeypatch.setattr(WorkingCopy, "refresh", refreshed)
    fails.set()
    stop, reported = threading.Event(), list[str]()
    watch = threading.Thread(target=BucketFiles(copy).watch, args=(stop, reported.append))
    watch.start()
    try:
        wait_for(lambda: len(reported) == 1 or not watch.is_alive())
        fails.clear()
        before = snapshot.numbers(copy.root)[-1]
        lanes.claim(attach(tmp_path / "other", str(store.uri), ObjectStore(store.uri)), "run")
        wait_for(lambda: snapshot.numbers(copy.root)[-1] == before + 1 or not watch.is_alive())
        assert watch.is_alive()
    finally:
        stop.set()
        watch.join()
    assert "KeyError: 'unforeseen'" in reported[0]


def test_a_damaged_log_is_said_to_be_one(copy: WorkingCopy, store: Asked) -> None:
    """An entry replaces a part that no state had."""
    gone = Replacement(instead_of=(f"catalog/segments/part-{0:032x}.parquet",), parts=())
    number = snapshot.numbers(copy.root)[-1] + 1
    entry = LogEntry(number=number, run_id="run", change=Change(replaced={"segments": gone}))
    assert store.create(key_of(number), entry.data)
    with pytest.raises(ConfigError, match="damaged"):
        list_states(copy)


@pytest.mark.slow
def test_the_command_serves_a_uri_and_runs_jobs_there(
    toy: Path, s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job of the service commits to the bucket, and its commit is served."""
    uri = f"s3://{BUCKET}/{tmp_path.parent.name}/{tmp_path.name}/served"
    store = ObjectStore(uri)
    for path in sorted(toy.rglob("*")):
        name = path.relative_to(toy).as_posix()
        if path.is_file() and name.startswith(("catalog/", "datasets/", "corpus.json")):
            store.put_file(name, path)
    monkeypatch.setenv("EICORPUS_CACHE", str(tmp_path / "cache"))
    words = ["serve", uri, "--port", "0", "--state", str(tmp_path / "state")]
    process = subprocess.Popen(
        [sys.executable, "-m", "jobs", *words], stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        link = next(line for line in process.stderr if "/login?code=" in line)
        port = int(link.partition("127.0.0.1:")[2].partition("/")[0])
        token = next((tmp_path / "state").glob("*/token")).read_text().strip()

        def ask(path: str, body: object = None) -> tuple[int, dict[str, Any]]:
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
            method = "GET" if body is None else "POST"
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=120)) as connection:
                text = None if body is None else json.dumps(body)
                connection.request(method, path, text, headers)
                answer = connection.getresponse()
                return answer.status, json.loads(answer.read())

        wait_for(lambda: ask("/readyz")[0] == 200)
        before = ask("/readyz")[1]["snapshot"]
        job = {"kind": "tier", "policy": "ei30k"}
        status, told = ask(f"{API}/jobs", {"key": "k", "job": job})
        assert status == 201, told
        wait_for(lambda: ask(f"{API}/jobs")[1]["jobs"][0]["state"] not in ("queued", "running"))
        assert ask(f"{API}/jobs")[1]["jobs"][0]["state"] == "succeeded", ask(f"{API}/jobs")
        wait_for(lambda: ask("/readyz")[1]["snapshot"] > before)
        assert CommitLog(store=store).entry(before + 1) is not None
    finally:
        process.kill()
        process.communicate()
