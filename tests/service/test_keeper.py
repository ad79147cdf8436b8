"""The corpus changes under the server: it grows, is compacted, loses episodes, is damaged. Pages stay those of one snapshot."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from benchmarks.synthetic import declared
from ingest.corpus import publishing, snapshot
from ingest.corpus.layout import CorpusLayout
from ingest.corpus.snapshot import write_tables
from ingest.corpus.snapshot_list import snapshot_path
from ingest.storage.local import LocalStorage
from jobs.service import cache_build
from jobs.service.cache_build import BUILDING, build_cache
from jobs.service.keeper import RETRY_S, Keeper, state_folder
from schemas.errors import ConfigError
from tests.curation.lifecycle_corpus import merge, uids
from tests.generators.corpus import commit, rows_of
from tests.service.corpora import client_of, keeper_of, write_hard_catalog

API = "/api/v1"


def settle(keeper: Keeper) -> None:
    """Look until the newest snapshot is served or has failed."""
    for _ in range(3):
        keeper.refresh()
        if keeper._build is not None:
            keeper._build._process.join()
    keeper.refresh()


def grow(root: Path, count: int, first: int, run_id: str = "run-2") -> None:
    """Commit more episodes."""
    rows = rows_of(count, first=first)
    commit(root, {t: rows[t] for t in rows if "uid" in rows[t][0]}, run_id)


def page(client: TestClient, **query: Any) -> Any:
    answer = client.get(f"{API}/episodes", params=query)
    return answer.json() if answer.status_code == 200 else answer


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write_hard_catalog(tmp_path / "corpus", 40).root


@pytest.fixture
def copy(toy: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy, tmp_path / "corpus"))


def test_without_a_cache_the_answer_is_building(small: Path, tmp_path: Path) -> None:
    client = client_of(small, tmp_path / "state", builds=False)
    for path in (f"{API}/episodes", f"{API}/facets", "/readyz"):
        answer = client.get(path)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        assert answer.json()["error"]["code"] == "building"
    assert client.get("/healthz").status_code == 200
    (corpus,) = client.get(f"{API}/corpora").json()["corpora"]
    assert (corpus["snapshot"], corpus["newest_snapshot"]) == (None, 1)
    settle(keeper_of(client))
    assert page(client)["total"] == 40
    assert client.get("/readyz").json() == {"snapshot": 1}


def test_a_corpus_that_grows(small: Path, tmp_path: Path) -> None:
    client = client_of(small, tmp_path / "state")
    keeper = keeper_of(client)
    first = page(client, limit=10)
    grow(small, 7, 5000)
    keeper.refresh()  # a newer one exists; its cache is being built
    seen = page(client, limit=10)
    assert (seen["snapshot"], seen["newest_snapshot"], seen["total"]) == (1, 2, 40)
    settle(keeper)
    now = page(client, limit=10)
    assert (now["snapshot"], now["newest_snapshot"], now["total"]) == (2, 2, 47)
    # who began on the first snapshot ends on it
    old = page(client, limit=1000, cursor=first["cursor"], snapshot=1)
    assert (old["snapshot"], len(old["episodes"])) == (1, 30)
    # and a cursor goes on in the newer one too
    rest = page(client, limit=1000, cursor=first["cursor"])
    last = first["episodes"][-1]["uid"]
    assert [row["uid"] for row in rest["episodes"]] == sorted(
        row["uid"] for row in page(client, limit=1000)["episodes"] if row["uid"] > last
    )


def test_snapshots_before_the_last_two_are_gone(small: Path, tmp_path: Path) -> None:
    client = client_of(small, tmp_path / "state")
    for number in (2, 3):
        grow(small, 1, 1000 * number, f"run-{number}")
        settle(keeper_of(client))
    answer = client.get(f"{API}/episodes", params={"snapshot": 1})
    assert (answer.status_code, answer.json()["error"]["code"]) == (410, "snapshot_gone")
    assert page(client, snapshot=2)["snapshot"] == 2
    assert len(list((tmp_path / "state").glob("0*"))) == 2


def test_a_corpus_that_is_compacted(copy: Path, tmp_path: Path) -> None:
    client = client_of(copy, tmp_path / "state")
    before = page(client, limit=1000)
    details = client.get(f"{API}/episodes/{uids(copy)['a']}").json()
    merge(copy, LocalStorage(), "compact")
    settle(keeper_of(client))
    after = page(client, limit=1000)
    assert after["snapshot"] > before["snapshot"]
    assert after["episodes"] == before["episodes"]
    again = client.get(f"{API}/episodes/{uids(copy)['a']}").json()
    assert {**again, "snapshot": 0, "newest_snapshot": 0} == {
        **details,
        "snapshot": 0,
        "newest_snapshot": 0,
    }


def erase(corpus: Path, uid: str) -> None:
    """`eicorpus forget`, as the command does it."""
    from typer.testing import CliRunner

    from jobs.cli import app

    result = CliRunner().invoke(app, ["forget", str(corpus), uid, "--reason", "asked"])
    assert result.exit_code == 0, (result.output, result.exception)


def test_an_episode_that_is_erased(copy: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    client = client_of(copy, state)
    uid = uids(copy)["c"]
    number = page(client)["snapshot"]
    assert client.get(f"{API}/episodes/{uid}").status_code == 200
    erase(copy, uid)
    keeper_of(client).refresh()
    # the snapshot that had it is not served any more, and its cache has gone
    for snapshot_asked in ({}, {"snapshot": number}):
        answer = client.get(f"{API}/episodes/{uid}", params=snapshot_asked)
        assert answer.status_code == 503
    assert [path for path in state.glob("0*") if path.name.startswith(f"{number:08d}")] == []
    settle(keeper_of(client))
    answer = client.get(f"{API}/episodes/{uid}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (410, "forgotten")
    assert uid not in client.get(f"{API}/episodes").text
    for kind in ("videos/front", "series", "frames/0/front", "explain"):
        assert client.get(f"{API}/episodes/{uid}/{kind}").status_code == 410
    text = b"".join(path.read_bytes() for path in state.rglob("*") if path.is_file())
    assert b"secret words of c" not in text
    assert b"secret words of a" in text
    assert client.get(f"{API}/episodes/{uids(copy)['a']}/videos/front").status_code == 200


def test_a_corpus_that_was_made_anew_at_the_same_path(small: Path, tmp_path: Path) -> None:
    client = client_of(small, tmp_path / "state")
    assert page(client)["total"] == 40
    shutil.rmtree(small)
    write_hard_catalog(small, 13)
    settle(keeper_of(client))
    assert (page(client)["total"], page(client)["snapshot"]) == (13, 1)


def test_an_empty_corpus(tmp_path: Path) -> None:
    root = tmp_path / "corpus"
    root.mkdir()
    (root / "corpus.json").write_text('{"format_version": 1, "uid": "empty"}')
    client = client_of(root, tmp_path / "state")
    assert page(client)["episodes"] == []
    assert client.get(f"{API}/facets").json()["total"] == 0
    assert client.get(f"{API}/histogram", params={"column": "hours"}).status_code == 200
    assert client.get(f"{API}/episodes/x").status_code == 404
    assert client.get(f"{API}/runs").json()["rows"] == []


def test_a_catalog_that_is_damaged_is_reported_and_tried_again(small: Path, tmp_path: Path) -> None:
    clock = [0.0]
    client = client_of(small, tmp_path / "state", clock=lambda: clock[0])
    keeper = keeper_of(client)
    grow(small, 3, 5000)
    part = snapshot.load(small).parts("episodes")[-1].file(small)
    whole = part.read_bytes()
    part.write_bytes(whole[:-8] + b"XXXXXXXX")
    settle(keeper)
    (corpus,) = client.get(f"{API}/corpora").json()["corpora"]
    assert corpus["problem"]
    assert (page(client)["snapshot"], page(client)["newest_snapshot"]) == (1, 2)
    assert "eicorpus_cache_failed 1.0" in client.get("/metrics").text
    part.write_bytes(whole)
    keeper.refresh()
    assert keeper._build is None  # not before its time
    clock[0] += RETRY_S + 1
    settle(keeper)
    assert page(client)["snapshot"] == 2
    assert client.get(f"{API}/corpora").json()["corpora"][0]["problem"] == ""


def test_a_corpus_that_grows_faster_than_caches_are_built(small: Path, tmp_path: Path) -> None:
    """What was built is served, although a newer snapshot was published meanwhile; no cache is left over."""
    keeper = keeper_of(client_of(small, tmp_path / "state"))
    for number in (2, 3, 4):
        grow(small, 5, 1000 * number, f"run-{number}")
        keeper.refresh()  # begins a build of this one, or goes on with one before it
        if keeper._build is not None:
            keeper._build._process.join()
        grow(small, 5, 1000 * number + 500, f"run-{number}b")
        served = keeper.state.held[0].cache.snapshot
        keeper.refresh()
        assert keeper.state.held[0].cache.snapshot > served
        assert keeper.state.newest > keeper.state.held[0].cache.snapshot
        settle(keeper)
    assert len(list((tmp_path / "state").glob("0*"))) == 2


def test_a_policy_without_a_digest_is_a_problem_and_ends_nothing(
    small: Path, tmp_path: Path
) -> None:
    keeper = keeper_of(client_of(small, tmp_path / "state"))
    part = write_tables(LocalStorage(), small, "policies", [declared("policies", {}, 1)])
    publishing.publish(LocalStorage(), small, snapshot.load(small), {"policies": part}, "run-2")
    with pytest.raises(ConfigError, match="policies lacks a value"):
        keeper.refresh()
    assert keeper.state.held[0].cache.snapshot == 1


@pytest.mark.parametrize(
    ("name", "content"),
    [("columns.json", "{"), ("key.json", "{}"), ("order-0.npy", ""), ("texts.arrow", "")],
)
def test_a_cache_that_is_damaged_is_built_again(
    small: Path, tmp_path: Path, name: str, content: str
) -> None:
    folder = build_cache(small, tmp_path / "state")
    (folder / name).write_text(content)
    client = client_of(small, tmp_path / "state")
    settle(keeper_of(client))
    assert page(client)["total"] == 40


def test_what_a_killed_build_left_is_removed(small: Path, tmp_path: Path) -> None:
    left = tmp_path / "state" / f"{BUILDING}-12345"
    left.mkdir(parents=True)
    (left / "detail.duckdb").write_bytes(b"half")
    folder = build_cache(small, tmp_path / "state")
    assert not left.exists()
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == [".lock", folder.name]


def test_a_build_that_fails_leaves_nothing_that_is_served(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(cache_build, "_save", broken)
        with pytest.raises(OSError, match="No space"):
            build_cache(small, tmp_path / "state")
    assert list((tmp_path / "state").glob("0*")) == []
    assert build_cache(small, tmp_path / "state").is_dir()


def test_the_same_snapshot_is_built_once(small: Path, tmp_path: Path) -> None:
    first = build_cache(small, tmp_path / "state")
    stamp = (first / "key.json").stat().st_mtime_ns
    assert build_cache(small, tmp_path / "state") == first
    assert (first / "key.json").stat().st_mtime_ns == stamp
    assert json.loads((first / "key.json").read_text())["policy"] == "synthetic"


def test_the_state_is_not_in_the_corpus(small: Path) -> None:
    with pytest.raises(ConfigError, match="inside the corpus"):
        state_folder(small / "state", small)


def test_nothing_is_written_into_the_corpus(small: Path, tmp_path: Path) -> None:
    before = sorted((p, p.stat().st_mtime_ns) for p in small.rglob("*"))
    client = client_of(small, tmp_path / "state")
    page(client)
    assert sorted((p, p.stat().st_mtime_ns) for p in small.rglob("*")) == before
    assert CorpusLayout(small).root == small
    assert snapshot_path(small, 1).is_file()
