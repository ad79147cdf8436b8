"""`eicorpus ingest` and `doctor` of raw data by URI: S3 through moto, the Hub through a fake, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from ingest.export import hub as hub_module
from ingest.storage.open_store import open_store
from jobs.cli import app
from schemas.errors import ConfigError
from schemas.regular_file import is_placeholder
from tests import generators
from tests.faults.runs import facts, tree
from tests.jobs.test_push_pull import FakeHub
from tests.s3_server import BUCKET

SOURCE = "video_folder"
ROOT = Path(__file__).parents[2]


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def done(*words: object) -> Any:
    result = run(*words, "--json")
    assert result.exit_code == 0, (words, result.output, result.exception)
    return json.loads(result.stdout)["result"]


def digest(corpus: Path) -> str:
    result = run("digest", corpus)
    assert result.exit_code == 0, result.output
    return result.stdout


def upload(root: Path, uri: str) -> None:
    store = open_store(uri)
    for path in sorted(root.rglob("*")):
        if path.is_file():
            store.put_file(path.relative_to(root).as_posix(), path)


@dataclass
class Raw:
    """Raw data on this machine and in a bucket."""

    root: Path
    uri: str
    folder: Path

    def ingest(self, place: object, out: str, *words: object) -> Any:
        cache = ("--cache-dir", self.folder / "cache")
        common = ("ingest", SOURCE, place, "--out", self.folder / out, "--workers", "0", *cache)
        return done(*common, *words)


@pytest.fixture
def raw(s3_server: str, tmp_path: Path) -> Raw:
    written = generators.write(SOURCE, tmp_path / "raw")
    uri = f"s3://{BUCKET}/{tmp_path.parent.name}/{tmp_path.name}/{written.root.name}"
    upload(written.root, uri)
    return Raw(root=written.root, uri=uri, folder=tmp_path)


@pytest.mark.slow
def test_a_bucket_gives_the_corpus_of_a_folder(raw: Raw) -> None:
    local = raw.ingest(raw.root, "local")
    bucket = raw.ingest(raw.uri, "bucket")
    assert bucket["committed"] == local["committed"] > 0
    assert digest(raw.folder / "bucket") == digest(raw.folder / "local")
    assert tree(raw.folder / "bucket" / "datasets") == tree(raw.folder / "local" / "datasets")
    (row,) = facts(raw.folder / "bucket", "sources")
    assert row["root"] == raw.uri
    again = raw.ingest(raw.uri, "bucket")
    assert again["committed_before"] == local["committed"]


@pytest.mark.slow
def test_worker_processes_fetch_what_they_read(raw: Raw) -> None:
    local = raw.ingest(raw.root, "local")
    bucket = raw.ingest(raw.uri, "bucket", "--workers", "2", "--cache-gb", "0.01")
    assert bucket["committed"] == local["committed"]
    assert digest(raw.folder / "bucket") == digest(raw.folder / "local")


@pytest.mark.slow
def test_raw_data_that_moves_into_a_bucket_needs_a_word(raw: Raw) -> None:
    raw.ingest(raw.root, "corpus")
    words = ("ingest", SOURCE, raw.uri, "--out", raw.folder / "corpus", "--workers", "0")
    cache = ("--cache-dir", raw.folder / "cache")
    refused = run(*words, *cache)
    assert isinstance(refused.exception, ConfigError)
    assert "--moved" in str(refused.exception)
    assert raw.uri in str(refused.exception)
    assert done(*words, *cache, "--moved")["committed_before"]


@pytest.mark.slow
def test_new_objects_are_new_episodes(raw: Raw) -> None:
    first = raw.ingest(raw.uri, "corpus")
    open_store(raw.uri).put_file("another.mp4", raw.root / "a.mp4")
    second = raw.ingest(raw.uri, "corpus")
    assert second["committed"] == first["committed"] + 1


@pytest.mark.slow
def test_the_source_of_a_bucket_is_detected(raw: Raw) -> None:
    words = ("ingest", raw.uri, "--out", raw.folder / "corpus", "--workers", "0")
    result = run(*words, "--cache-dir", raw.folder / "cache")
    assert result.exit_code == 0, (result.output, result.exception)
    assert f"source: {SOURCE}" in result.stderr
    assert f"{raw.uri}: " in result.stderr


@pytest.mark.slow
def test_doctor_examines_a_bucket(raw: Raw) -> None:
    cache = ("--cache-dir", raw.folder / "cache")
    bucket = done("doctor", SOURCE, raw.uri, *cache)
    local = done("doctor", SOURCE, raw.root)
    assert bucket == local


@pytest.mark.slow
def test_an_empty_prefix_makes_no_corpus(s3_server: str, tmp_path: Path) -> None:
    for uri, words in (
        (f"s3://{BUCKET}/none/{tmp_path.name}", "no object is there"),
        ("s3://no-such-bucket/a", "there is no bucket no-such-bucket"),
    ):
        common = ("ingest", SOURCE, uri, "--out", tmp_path / "corpus")
        result = run(*common, "--cache-dir", tmp_path / "cache")
        assert isinstance(result.exception, ConfigError)
        assert words in str(result.exception)
    assert not (tmp_path / "corpus").exists()


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("ftp://host/a", "ftp://host/a is a URL"),
        ("memory://a", "memory://a is a URL"),
        ("https://host/a.tar", "is a URL"),
        ("s3://KEY:SECRET@bucket/a", "user or a password"),
        ("hf://models/a/b", "is no address"),
    ],
)
@pytest.mark.parametrize("command", ["ingest", "doctor"])
def test_other_uris_are_refused(command: str, uri: str, words: str, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "corpus") if command == "ingest" else ()
    result = run(command, SOURCE, uri, *out, "--cache-dir", tmp_path / "cache")
    assert isinstance(result.exception, ConfigError)
    assert words in str(result.exception)
    assert "SECRET" not in str(result.exception)
    assert not (tmp_path / "corpus").exists()


@pytest.mark.slow
def test_a_repository_of_the_hub_is_downloaded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = generators.write(SOURCE, tmp_path / "raw")
    files = {
        path.relative_to(written.root).as_posix(): path.read_bytes()
        for path in written.root.rglob("*")
        if path.is_file()
    }

    class Whole(FakeHub):
        def differing(self, stored: Any, names: Any, folder: Path) -> list[str]:
            return [name for name in names if not (folder / name).is_file()]

        def download(
            self, stored: Any, names: Any, marker: str, folder: Path, progress: Any
        ) -> None:
            self.calls.append("download")
            super().download(stored, names, marker, folder, progress)

    hub = Whole(address=f"hf://datasets/lab/{written.root.name}", files=files, is_private=False)
    monkeypatch.setattr(hub_module, "hub_at", lambda address: hub)
    local = done("ingest", SOURCE, written.root, "--out", tmp_path / "local", "--workers", "0")
    for _ in range(2):
        words = ("ingest", SOURCE, hub.address, "--out", tmp_path / "corpus", "--workers", "0")
        copied = done(*words, "--cache-dir", tmp_path / "cache")
    assert hub.calls == ["look", "download", "look"]
    assert copied["committed"] == local["committed"]
    assert digest(tmp_path / "corpus") == digest(tmp_path / "local")
    (row,) = facts(tmp_path / "corpus", "sources")
    assert row["root"] == hub.address


# --- real samples -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize(
    ("source", "folder"),
    [
        ("oxe", "oxe_bridge_rlds"),
        ("robocasa_gr1", "lerobot_v20_gr1_picknplace"),
        ("vitra", "vitra"),
        ("hot3d", "hot3d/data_sample"),
    ],
)
def test_a_real_sample_in_a_bucket_gives_the_same_corpus(
    source: str, folder: str, samples: Path, s3_server: str, tmp_path: Path
) -> None:
    root = samples / folder
    uri = f"s3://{BUCKET}/{tmp_path.name}/{root.name}"
    upload(root, uri)
    words = ("--max-quarantined", "1", "--workers", "0")
    local = done("ingest", source, root, "--out", tmp_path / "local", *words)
    cache = ("--cache-dir", tmp_path / "cache")
    bucket = done("ingest", source, uri, "--out", tmp_path / "bucket", *cache, *words)
    assert bucket["committed"] == local["committed"] > 0
    assert digest(tmp_path / "bucket") == digest(tmp_path / "local")


@pytest.mark.slow
@pytest.mark.ray
def test_workers_of_ray_fetch_what_they_read(raw: Raw) -> None:
    raw.ingest(raw.root, "local")
    out, cache = raw.folder / "ray", raw.folder / "cache"
    words = [
        "ingest",
        SOURCE,
        raw.uri,
        "--out",
        out,
        "--cache-dir",
        cache,
        "--ray",
        "--workers",
        "2",
    ]
    command = [sys.executable, "-m", "jobs", *map(str, words)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert digest(out) == digest(raw.folder / "local")
    assert [path for path in cache.glob("trees/*/*/*.mp4") if not is_placeholder(path.stat())]
