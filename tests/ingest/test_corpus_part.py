"""Some episodes of a corpus in a bucket become a corpus of this machine, and only their files are fetched."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from ingest.corpus import lanes, snapshot
from ingest.corpus.layout import open_or_create
from ingest.corpus.shared_manifests import fetch_manifests
from ingest.corpus.working_copy import WorkingCopy
from ingest.corpus.writer import writing
from ingest.export import part as part_module
from ingest.export.part import CorpusPart, part_of, write_part_of
from ingest.storage.local import LocalStorage
from ingest.storage.object_store import ObjectStore
from ingest.verify.corpus import verify
from ingest.verify.digest import digest
from jobs.cli import app
from schemas.errors import ConfigError, PipelineError
from tests.curation.lifecycle_corpus import build, merge, publish_manifest, rows_of, uids
from tests.faults.runs import run
from tests.ingest.test_forget_in_bucket import World


class Counting(ObjectStore):
    """Counts the files and bytes of `datasets/` that are fetched."""

    files: dict[str, int]

    def get_file(
        self, key: str, path: Path, *, max_bytes: int | None = None, e_tag: str | None = None
    ) -> str:
        digest = super().get_file(key, path, max_bytes=max_bytes, e_tag=e_tag)
        if key.startswith("datasets/"):
            assert key not in self.files
            self.files[key] = path.stat().st_size
        return digest


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = build(tmp_path_factory.mktemp("part"))
    merge(built, LocalStorage(built), "compact")
    publish_manifest(built)
    return built


@pytest.fixture
def world(corpus: Path, tmp_path: Path, request: pytest.FixtureRequest) -> World:
    world = World(folder=tmp_path, uri=f"memory://{abs(hash(request.node.nodeid))}/c")
    for path in sorted(corpus.rglob("*")):
        name = path.relative_to(corpus).as_posix()
        rooms = ("catalog/", "datasets/", "manifests/", "corpus.json")
        if path.is_file() and name.startswith(rooms):
            world.store.put_file(name, path)
    return world


def pulled(
    world: World, *, where: str = "", manifest: str = "", to: str = "pulled"
) -> tuple[CorpusPart, Path, Counting]:
    store = Counting(world.uri)
    store.files = {}
    copy = WorkingCopy(world.machine("machine").root, store)
    copy.refresh()
    fetch_manifests(copy)
    part = part_of(copy, copy.refresh(), manifest=manifest, where=where)
    root = world.folder / to
    disk = LocalStorage(root)
    layout = open_or_create(root, uid="u", recipe_digest="", disk=disk)
    with writing(layout, disk):
        write_part_of(part, layout, disk, run_id="pull")
    return part, root, store


def test_a_part_is_an_ordinary_corpus_of_these_episodes_alone(world: World, corpus: Path) -> None:
    part, root, store = pulled(world, where="episode_id in ('c', 'f')")
    assert verify(root, deep=True) == []
    by_id = {row["episode_id"]: row for row in rows_of(root, "episodes")}
    before = {row["episode_id"]: row for row in rows_of(corpus, "episodes")}
    assert sorted(by_id) == ["c", "f"]
    assert [by_id[name]["episode_index"] for name in "cf"] == [0, 1]
    for name, row in by_id.items():
        assert row["content_sha256"] == before[name]["content_sha256"]
    named = {
        row["path"]: row["num_bytes"]
        for row in rows_of(corpus, "artifacts")
        if row["uid"] in part.uids
    }
    assert store.files == named  # each once, and nothing else
    assert part.num_bytes == sum(named.values())
    assert not list((world.folder / "machine/datasets").rglob("*.mp4"))
    tables = {"captions": 1, "tiers": 1, "latents": 0, "duplicates": 0}
    assert {t: len(rows_of(root, t)) for t in tables} == {t: 2 * n for t, n in tables.items()}
    names = {row["name"] for row in rows_of(root, "measurements")}
    assert names == {
        row["name"] for row in rows_of(corpus, "measurements") if row["uid"] in part.uids
    }
    assert len(rows_of(root, "measurements")) == len(
        [row for row in rows_of(corpus, "measurements") if row["uid"] in part.uids]
    )
    assert [row["source"] for row in rows_of(root, "sources")] == ["toy"]
    (data,) = root.rglob("episode_000001.parquet")
    assert pq.read_table(data)["episode_index"].to_pylist()[0] == 1


def test_all_episodes_have_the_digest_of_the_corpus(world: World, corpus: Path) -> None:
    _, root, _ = pulled(world, manifest="m")
    assert digest(root).sha256 == digest(corpus).sha256


def test_a_part_is_resumed_and_goes_on_as_a_corpus(world: World, corpus: Path) -> None:
    pulled(world, where="episode_id = 'c'")
    number = snapshot.load(world.folder / "pulled").number
    part, root, store = pulled(world, where="episode_id = 'c'")
    assert store.files == {}
    assert snapshot.load(root).number == number
    run(corpus.parent / "raw", root, run_id="more")
    assert sorted(uids(root)) == sorted(uids(corpus))
    assert verify(root) == []
    assert len(part.uids) == 1


def named_elsewhere(world: World, corpus: Path, path: str) -> bytes:
    """The rows of videos say that they lie at `path`, and the bucket has a video there. Its bytes."""
    number = snapshot.load(corpus).number
    page = json.loads((corpus / snapshot.key_of(number)).read_text())
    video = b""
    for part in page["tables"]["artifacts"]:
        table = pq.read_table(corpus / part["path"])
        rows = table.to_pylist()
        for row in rows:
            if row["kind"] == "video":
                video = (corpus / row["path"]).read_bytes()
                digest = hashlib.sha256(video).hexdigest()
                row.update(path=path, num_bytes=len(video), sha256=digest)
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), sink)
        data = sink.getvalue().to_pybytes()
        part.update(num_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        world.store.put(part["path"], data)
    world.store.put(snapshot.key_of(number), json.dumps(page).encode())
    world.store.put(path, video)
    return video


@pytest.mark.parametrize("path", [".remote.json", "reviews/a.json"])
def test_a_hostile_bucket_writes_no_other_file_of_the_working_copy(
    world: World, corpus: Path, path: str
) -> None:
    video = named_elsewhere(world, corpus, path)
    with suppress(PipelineError):  # one episode has the sha256 of another's video
        pulled(world, where="episode_id = 'c'")
    written = world.folder / "machine" / path
    assert not written.exists() or written.read_bytes() != video


def test_a_second_selection_in_one_folder_is_refused(world: World) -> None:
    pulled(world, where="episode_id = 'c'")
    with pytest.raises(ConfigError, match="other episodes"):
        pulled(world, where="episode_id in ('c', 'f')")
    with pytest.raises(ConfigError, match="other episodes"):
        pulled(world, where="episode_id = 'f'")
    root = world.folder / "pulled"
    assert {len(rows_of(root, table)) for table in ("episodes", "captions", "tiers")} == {1}


def test_a_stopped_part_is_resumed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_module, "BATCH", 1)
    add, calls = part_module._add_batch, list[int]()

    def stopping(*args: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        add(*args)

    monkeypatch.setattr(part_module, "_add_batch", stopping)
    with pytest.raises(KeyboardInterrupt):
        pulled(world, where="episode_id in ('c', 'f')")
    root = world.folder / "pulled"
    assert len(uids(root)) == 1
    with pytest.raises(ConfigError, match="other episodes"):
        pulled(world, where="episode_id in ('a', 'f')")
    pulled(world, where="episode_id in ('c', 'f')")
    assert verify(root) == []
    assert {len(rows_of(root, table)) for table in ("episodes", "captions", "tiers")} == {2}


def test_nothing_chosen_is_said(world: World) -> None:
    copy = world.machine("machine")
    state = copy.refresh()
    for where, words in (
        ("episode_id = 'none'", "no episode is chosen"),
        ("no_such_column = 1", "no_such_column"),
        ("1 = 1); drop table episodes; --", "where"),
    ):
        with pytest.raises(ConfigError, match=words):
            part_of(copy, state, manifest="", where=where)
    with pytest.raises(ConfigError):
        part_of(copy, state, manifest="none", where="")


def test_a_working_copy_is_brought_up_to_date_when_a_command_names_its_folder(
    world: World,
) -> None:
    """As a job of `eicorpus serve` does."""
    one, other = world.machine("one"), world.machine("other")
    one.refresh()
    number = lanes.claim(other, "run").number
    done = CliRunner().invoke(app, ["snapshot", "list", str(one.root), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["result"]["snapshots"][-1]["number"] == number
    assert snapshot.load(one.root).number == number
    done = CliRunner().invoke(app, ["measure", str(one.root), "--workers", "0", "--json"])
    assert done.exit_code == 0, (done.output, done.exception)
    assert other.refresh().number > number
