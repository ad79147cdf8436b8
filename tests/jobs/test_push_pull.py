"""`eicorpus push` and `eicorpus pull`: folders of this machine, a fake of the Hub, and the Hub's client against a server of the test."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO, ClassVar
from urllib.parse import unquote, urlsplit

import huggingface_hub
import pytest
import typer
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
from typer.testing import CliRunner, Result

from ingest.corpus.layout import CorpusLayout, writer_lock
from ingest.corpus.manifest_folders import page_bytes, rows_bytes
from ingest.corpus.snapshot import load
from ingest.export.hub import (
    HuggingFaceHub,
    LocalFolder,
    Progress,
    Stored,
    hub_at,
    patterns_without,
)
from ingest.verify.digest import digest
from jobs.commands import pull, push
from jobs.stages import hub as stage
from jobs.stages.hub import card_of, is_of_corpus, run_push, source_at
from jobs.stages.hub_pull import run_pull
from schemas.errors import ConfigError, TransientError
from schemas.manifest import FACTS_FILE, FOLDER, ROWS_FILE
from schemas.paths import OutsideCorpus
from tests.ingest.export_cases import manifest_of, numbered_corpus
from tests.jobs.build_cases import invoke

UNKNOWN = ["unknown"]
PAGE, ORIGIN = "eicorpus_export.json", ".corpus"

app = typer.Typer()
app.command("push")(push.command)
app.command("pull")(pull.command)


def call(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def refused(*words: str | Path) -> str:
    done = call(*words)
    assert isinstance(done.exception, ConfigError), done.output
    return str(done.exception)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    corpus = numbered_corpus(tmp_path_factory.mktemp("numbered"))
    chosen = manifest_of(corpus, [("a", 0, 37), ("b", 3, 20)])
    folder = corpus / FOLDER / "chosen"
    folder.mkdir(parents=True)
    (folder / ROWS_FILE).write_bytes(rows_bytes(chosen.rows))
    (folder / FACTS_FILE).write_bytes(page_bytes(chosen.facts))
    return corpus


@pytest.fixture(scope="module")
def export(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "out"
    words = ["export", str(corpus), "--manifest", "chosen", "--to", "lerobot-v3"]
    assert invoke(*words, "--out", str(out), "--workers", "0").exit_code == 0
    return out


def tree(folder: Path) -> dict[str, bytes]:
    """Every file but the one in which an export says where its corpus is."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ORIGIN
    }


# --- folders ------------------------------------------------------------------------------------------------------------


def test_an_export_comes_back_byte_for_byte(export: Path, tmp_path: Path) -> None:
    disk, out = tmp_path / "a disk", tmp_path / "out"
    planned = call("push", export, disk.as_uri(), "--dry-run", "--json")
    assert json.loads(planned.stdout)["result"]["licence_classes"] == {"permissive": 2}
    assert not disk.exists()
    assert call("push", export, disk.as_uri()).exit_code == 0
    assert call("pull", disk.as_uri(), out).exit_code == 0
    assert tree(export) == tree(disk) == tree(out)
    before = (out / PAGE).stat().st_ino
    assert call("pull", disk.as_uri(), out).exit_code == 0  # nothing is copied twice
    assert (out / PAGE).stat().st_ino == before


def test_a_corpus_comes_back_with_an_equal_digest(corpus: Path, tmp_path: Path) -> None:
    disk, out = tmp_path / "disk", tmp_path / "out"
    own = tmp_path / "corpus"
    shutil.copytree(corpus, own)
    for name in ("cache/captions/x/y.json", "staging/u.d/frame", "catalog/.x.part"):
        (own / name).parent.mkdir(parents=True, exist_ok=True)
        (own / name).write_bytes(b"{}")
    done = call("push", own, disk.as_uri(), "--allow-licence", "unknown")
    assert f"corpus of snapshot {load(own).number}" in done.stdout, done.exception
    assert "licences of episodes: 3 unknown" in done.stdout
    done = call("pull", disk.as_uri(), out, "--json")
    assert json.loads(done.stdout)["result"]["findings"] == []
    assert digest(out).sha256 == digest(own).sha256
    left = {".writer", "cache/captions/x/y.json", "staging/u.d/frame", "catalog/.x.part"}
    assert set(tree(out)) == set(tree(own)) - left


def test_a_copy_that_was_stopped_goes_on(
    export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, copied = tmp_path / "out", list[int]()

    def blocks(file: BinaryIO) -> Iterator[bytes]:
        copied.append(1)
        if len(copied) == 3:
            raise OSError(5, "Input/output error")
        yield file.read()

    monkeypatch.setattr("ingest.export.hub._blocks", blocks)
    with pytest.raises(TransientError, match="resume"):
        run_pull(hub_at(export.as_uri()), out, 1)
    assert len(tree(out)) == 2
    assert PAGE not in tree(out)
    assert run_pull(hub_at(export.as_uri()), out, 1).findings == []
    num_compared = 2 * 2  # at both ends
    assert len(copied) == len(tree(export)) + 1 + num_compared
    assert tree(out) == tree(export)


def test_a_pull_into_a_whole_copy_verifies_it(corpus: Path, export: Path, tmp_path: Path) -> None:
    for source in (corpus, export):
        out = tmp_path / source.name
        for _ in range(2):
            done = call("pull", source.as_uri(), out, "--json")
            assert json.loads(done.stdout)["result"]["findings"] == [], done.output
            assert set(tree(out)) == set(tree(source)) - {".writer"}
        before = {path: path.stat().st_ino for path in out.rglob("*")}
        assert call("pull", source.as_uri(), out).exit_code == 0
        assert {path: path.stat().st_ino for path in out.rglob("*")} == before


def test_a_pull_into_a_damaged_copy_mends_it(
    corpus: Path, export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody reads it meanwhile, and a stop changes nothing about that."""
    for source, marker in ((corpus, "corpus.json"), (export, PAGE)):
        out = copied(source, tmp_path / source.name)
        data = sorted(out.glob("**/data/**/*.parquet"))
        data[0].write_bytes(bytes(data[0].stat().st_size))
        data[-1].unlink()
        with monkeypatch.context() as patched:
            patched.setattr(LocalFolder, "download", _break)
            with pytest.raises(TransientError):
                run_pull(hub_at(source.as_uri()), out, 1)
        assert not (out / marker).exists()
        assert call("pull", source.as_uri(), out).exit_code == 0
        assert tree(out) | {".writer": b""} == tree(source) | {".writer": b""}


def _break(*_: Any) -> None:
    raise TransientError("no route to host")


def test_a_pull_brings_a_copy_up_to_date(corpus: Path, tmp_path: Path) -> None:
    own, out = copied(corpus, tmp_path / "corpus"), tmp_path / "out"
    assert call("pull", own.as_uri(), out).exit_code == 0
    run_push(own, FakeHub(address="hf://datasets/lab/newer"), allowed_licences=UNKNOWN)
    assert load(out).number < load(own).number
    assert call("pull", own.as_uri(), out).exit_code == 0
    assert digest(out).sha256 == digest(own).sha256
    run_push(out, FakeHub(address="hf://datasets/lab/copy"), allowed_licences=UNKNOWN)
    before = tree(out)
    assert "other files, such as catalog/" in refused("pull", own.as_uri(), out)
    assert tree(out) == before


def test_a_pull_into_another_corpus_or_export_is_refused(
    corpus: Path, export: Path, tmp_path: Path
) -> None:
    """Also where it has no file that the source lacks."""
    other = copied(corpus, tmp_path / "other")
    marker = json.loads((other / "corpus.json").read_text())
    marker["uid"] = marker["uid"][::-1]
    (other / "corpus.json").write_text(json.dumps(marker, indent=2) + "\n")
    own = copied(export, tmp_path / "own")
    page = json.loads((own / PAGE).read_text())
    (own / PAGE).write_text(json.dumps(page))
    swapped = copied(export, tmp_path / "swapped")
    (swapped / PAGE).write_bytes((export / PAGE).read_bytes().replace(b"lerobot", b"robotle"))
    cases = [(corpus, other, "another corpus"), (export, own, "another export")]
    cases += [(export, swapped, "another export"), (export, corpus, "another corpus")]
    cases += [(corpus, export, "another export")]
    for source, out, told in cases:
        before = tree(out)
        assert told in refused("pull", source.as_uri(), out)
        assert tree(out) == before


def test_damage_is_found_and_not_sent(export: Path, tmp_path: Path) -> None:
    own, out = tmp_path / "own", tmp_path / "out"
    shutil.copytree(export, own)
    next(own.glob("*/data/*/*.parquet")).write_bytes(b"")
    assert "parquet: changed" in refused("push", own, (tmp_path / "disk").as_uri())
    done = call("pull", own.as_uri(), out)
    assert done.exit_code == 1
    assert "parquet: changed" in done.stdout


def test_a_link_is_not_followed(export: Path, tmp_path: Path) -> None:
    hostile, secret = tmp_path / "hostile", tmp_path / "secret"
    shutil.copytree(export, hostile)
    secret.write_text("secret")
    (hostile / "link").symlink_to(secret)
    for act in ("push", "pull"):
        words = (hostile, (tmp_path / "x").as_uri()) if act == "push" else (hostile.as_uri(), "x")
        assert isinstance(call(act, *words).exception, OutsideCorpus)
    out = tmp_path / "out"
    out.mkdir()
    (out / "meta").symlink_to(tmp_path)
    assert isinstance(call("pull", export.as_uri(), out).exception, OutsideCorpus)
    assert {path.name for path in tmp_path.iterdir()} == {"hostile", "secret", "out"}


def test_places_that_do_not_fit_are_refused(corpus: Path, export: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("mine")
    uri = export.as_uri()
    assert "is a corpus" in refused("pull", uri, corpus / "new")
    assert "other files, such as mine.txt" in refused("pull", uri, other)
    assert "1 files that" in refused("push", export, other.as_uri())
    assert call("push", export, other.as_uri(), "--replace").exit_code == 0
    assert tree(other) == tree(export)
    assert "inside the corpus" in refused("push", export, (export / "x").as_uri())
    assert "neither a corpus nor" in refused("pull", (corpus / "catalog").as_uri(), tmp_path / "x")
    assert "nothing is there" in refused("pull", (tmp_path / "no").as_uri(), tmp_path / "x")
    assert "not a corpus" in refused("push", tmp_path, (tmp_path / "x").as_uri())
    for address in ("ftp://host/x", "hf://OWNER/NAME", "hf://datasets/name", "file://host/x"):
        assert "is no address" in refused("pull", address, tmp_path / "x")
    assert "@REVISION" in refused("push", export, "hf://datasets/a/b@v1")


def test_what_belongs_to_a_copy_of_a_corpus() -> None:
    kept = [
        "corpus.json",
        "catalog/runs/part-1.parquet",
        "datasets/a/b/meta/x.json",
        "ledger/r.jsonl",
        "reviews/1.json",
    ]
    left = [".writer", ".unfinished", "build/.builder", "staging/u.d/x", "cache/captions/a/b.json"]
    left += ["datasets/x/.y.part", "manifests/_cache/a/b", "manifests/.builders", "README.md", "x"]
    left += ["datasets/notes.txt", "datasets/a/b/notes/x.txt", "catalog/notes.txt"]
    assert [name for name in kept + left if is_of_corpus(name)] == kept


# --- a fake of the Hub --------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class FakeHub:
    """A repository in memory. It counts every call."""

    address: str = "hf://datasets/lab/fold"
    files: dict[str, bytes] = field(default_factory=dict)
    is_private: bool | None = None
    calls: list[str] = field(default_factory=list)

    def look(self) -> Stored | None:
        self.calls.append("look")
        if self.is_private is None:
            return None
        sizes = {name: len(data) for name, data in self.files.items()}
        return Stored(files=sizes, is_private=self.is_private, revision="c0")

    def create(self, *, is_private: bool) -> None:
        self.calls.append("create")
        self.is_private = is_private if self.is_private is None else self.is_private

    def upload(self, folder: Path, names: Sequence[str], progress: Progress) -> None:
        self.calls.append("upload")
        self.files |= {name: (folder / name).read_bytes() for name in names}

    def finish(self, folder: Path, marker: str, card: str, deleted: Sequence[str]) -> None:
        self.calls.append("finish")
        self.files = {n: data for n, data in self.files.items() if n not in deleted}
        self.files |= {"README.md": card.encode(), marker: (folder / marker).read_bytes()}

    def download(
        self, stored: Stored, names: Sequence[str], marker: str, folder: Path, progress: Progress
    ) -> None:
        for name in (*names, marker):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(self.files[name])

    def read(self, stored: Stored, name: str) -> bytes:
        return self.files[name]

    def differing(self, stored: Stored, names: Sequence[str], folder: Path) -> list[str]:
        return [name for name in names if (folder / name).read_bytes() != self.files[name]]


def test_a_push_is_private_and_has_a_card(export: Path, tmp_path: Path) -> None:
    hub = FakeHub()
    run_push(export, hub)
    assert hub.is_private
    assert hub.calls == ["look", "create", "upload", "finish"]
    assert set(hub.files) == {*tree(export), "README.md"}
    card = hub.files["README.md"].decode()
    header, _, text = card.removeprefix("---\n").partition("---\n")
    assert "license: other\n" in header
    assert "- LeRobot\n- robotics\n" in header
    for words in (
        "# fold",
        "2 segments",
        "| permissive | 2 |",
        "| high | 2 |",
        "eicorpus pull hf://",
    ):
        assert words in text
    assert run_pull(hub, tmp_path / "out", 1).findings == []
    assert tree(tmp_path / "out") == tree(export)


def test_the_card_of_a_corpus_has_hours_and_licences(corpus: Path) -> None:
    card = card_of(source_at(corpus), "hf://datasets/lab/fold")
    assert f"snapshot {load(corpus).number}" in card
    assert "3 episodes" in card
    assert "## Licences" in card


def test_a_licence_is_refused_before_any_call(corpus: Path) -> None:
    hub = FakeHub()
    with pytest.raises(ConfigError, match=r"3 episodes are unknown.*--allow-licence unknown"):
        run_push(corpus, hub)
    assert not hub.calls
    run_push(corpus, hub, allowed_licences=UNKNOWN, dry_run=True)
    assert not hub.calls


def test_a_public_repository_needs_a_word(export: Path) -> None:
    hub = FakeHub(is_private=False)
    with pytest.raises(ConfigError, match="--public"):
        run_push(export, hub)
    assert hub.calls == ["look"]
    assert not run_push(export, hub, is_private=False).is_private


def test_a_corpus_that_is_written_is_not_sent(corpus: Path, tmp_path: Path) -> None:
    own = tmp_path / "corpus"
    shutil.copytree(corpus, own)

    class Interrupting(FakeHub):
        def upload(self, folder: Path, names: Sequence[str], progress: Progress) -> None:
            (folder / ".unfinished").touch()

    hub = Interrupting()
    with pytest.raises(TransientError, match="while it was copied"):
        run_push(own, hub, allowed_licences=UNKNOWN)
    assert "finish" not in hub.calls
    with pytest.raises(ConfigError, match="is writing to this corpus"):
        run_push(own, hub, allowed_licences=UNKNOWN)


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "a//b"])
def test_a_path_that_leads_out_is_refused(name: str, tmp_path: Path) -> None:
    stored = Stored(files={name: 1, PAGE: 2}, is_private=True, revision="0" * 40)
    for hub in (HuggingFaceHub("lab/fold"), LocalFolder(tmp_path / "x")):
        with pytest.raises(OutsideCorpus):
            hub.download(stored, [name], PAGE, tmp_path / "out", lambda files: None)
    assert not (tmp_path / "out").exists()


def test_patterns_leave_out_all_but_the_names() -> None:
    files = ["a/1", "a/2", "b/c/3", "b/c/4", "d[1]", "e"]
    assert patterns_without(files, ["a/1", "e"]) == ["a/2", "b/*", "d[[]1]"]


# --- what the corpus records of it --------------------------------------------------------------------------------------


def copied(folder: Path, place: Path) -> Path:
    shutil.copytree(folder, place)
    return place


def rows_of(corpus: Path, location: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = load(corpus).read(corpus, "exports").to_pylist()
    return [row for row in rows if row["location"] == location]


def named(corpus: Path, uid: str) -> list[str]:
    """What an erasure would name."""
    looked = invoke("forget", str(corpus), uid, "--dry-run", "--json")
    places: list[str] = json.loads(looked.stdout)["result"]["exports"]
    return places


class Failing(FakeHub):
    """The connection breaks with the first byte."""

    def upload(self, folder: Path, names: Sequence[str], progress: Progress) -> None:
        raise TransientError("no route to host")


def test_a_corpus_records_a_push_before_its_first_byte(corpus: Path, tmp_path: Path) -> None:
    own, address = copied(corpus, tmp_path / "corpus"), "hf://datasets/lab/recorded"
    uids = sorted(load(own).read(own, "episodes", ["uid"])["uid"].to_pylist())
    with pytest.raises(TransientError, match="no route"):
        run_push(own, Failing(address=address), allowed_licences=UNKNOWN)
    [row] = rows_of(own, address)
    assert (row["format"], row["sha256"], row["uids"]) == ("corpus", "", uids)
    number, hub = load(own).number, FakeHub(address=address)
    done = run_push(own, hub, allowed_licences=UNKNOWN)
    assert done.source.snapshot == load(own).number == number  # recorded once
    assert f"catalog/_snapshots/{number:08d}.json" in hub.files
    assert address in named(own, uids[0])
    run_push(own, FakeHub(address="hf://datasets/lab/x"), allowed_licences=UNKNOWN, dry_run=True)
    assert load(own).number == number


def test_a_push_that_cannot_be_recorded_sends_nothing(
    corpus: Path, export: Path, tmp_path: Path
) -> None:
    for source in (corpus, export):
        hub = FakeHub(address="hf://datasets/lab/locked")
        with (
            writer_lock(CorpusLayout(corpus)),
            pytest.raises(ConfigError, match="is writing to this corpus"),
        ):
            run_push(source, hub, allowed_licences=UNKNOWN)
        assert not hub.files


def test_episodes_that_come_while_a_push_is_recorded_are_not_sent(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another writer gets the lock before us: the record would not name what it committed."""
    own, hub, seen = copied(corpus, tmp_path / "corpus"), FakeHub(), source_at(corpus)
    fewer = {**seen.facts, "uids": seen.facts["uids"][1:]}
    answers = iter([replace(source_at(own), facts=fewer), source_at(own)])
    monkeypatch.setattr(stage, "source_at", lambda root: next(answers))
    with pytest.raises(TransientError, match="wrote to the corpus"):
        run_push(own, hub, allowed_licences=UNKNOWN)
    assert not hub.files


def test_an_erasure_names_the_pushed_copies_of_an_export(corpus: Path, tmp_path: Path) -> None:
    own, out, disk = copied(corpus, tmp_path / "corpus"), tmp_path / "out", tmp_path / "disk"
    words = ["export", str(own), "--manifest", "chosen", "--to", "lerobot-v3", "--out", str(out)]
    assert invoke(*words, "--workers", "0").exit_code == 0
    assert "not recorded" not in call("push", out, disk.as_uri()).stdout
    [row] = rows_of(own, disk.as_uri())
    page = json.loads((out / PAGE).read_text())
    assert (row["format"], row["sha256"]) == ("lerobot-v3", page["sha256"])
    assert len(row["uids"]) == 2
    done = invoke("forget", str(own), row["uids"][0])
    told = f"the pushed copy {disk.as_uri()} holds them: push to it again with --replace"
    assert told in done.stdout
    assert "of it were erased from" in refused("push", out, (tmp_path / "new").as_uri())
    assert not (tmp_path / "new").exists()


def test_a_push_that_no_corpus_records_says_so(corpus: Path, export: Path, tmp_path: Path) -> None:
    other = copied(corpus, tmp_path / "other")
    marker = json.loads((other / "corpus.json").read_text())
    (other / "corpus.json").write_text(json.dumps({**marker, "uid": "another"}))
    own = copied(export, tmp_path / "own")
    origins = {
        str(other).encode(): "is another corpus",
        str(tmp_path / "gone").encode(): "not a corpus",
        b"relative": "names no corpus",
        b"/a\0b": "names no corpus",
        None: "does not say where its corpus is",
    }
    for number, (origin, told) in enumerate(origins.items()):
        (own / ORIGIN).unlink() if origin is None else (own / ORIGIN).write_bytes(origin)
        done = call("push", own, (tmp_path / f"disk{number}").as_uri())
        assert done.exit_code == 0
        assert "not recorded, so `eicorpus forget` will not name this copy" in done.stdout
        assert told in done.stdout
        assert tree(tmp_path / f"disk{number}") == tree(export)
    locations = load(other).read(other, "exports")["location"].to_pylist()
    assert not [place for place in locations if str(tmp_path) in place]


def test_the_copy_of_an_erased_episode_is_replaced(corpus: Path, tmp_path: Path) -> None:
    own, disk = copied(corpus, tmp_path / "corpus"), tmp_path / "disk"
    words = ("push", own, disk.as_uri(), "--allow-licence", "unknown")
    assert call(*words).exit_code == 0
    [row] = rows_of(own, disk.as_uri())
    uid = row["uids"][0]
    assert invoke("forget", str(own), uid).exit_code == 0
    message = refused(*words)
    assert "1 episodes that were pushed there were erased since" in message
    assert "pass --replace to delete what is left of them there" in message
    assert call(*words, "--replace").exit_code == 0
    assert digest(disk).sha256 == digest(own).sha256
    assert uid not in load(disk).read(disk, "episodes", ["uid"])["uid"].to_pylist()


# --- the client of the Hub ----------------------------------------------------------------------------------------------


class Api:
    """What huggingface_hub.HfApi is asked, and what it answers with."""

    calls: ClassVar[list[tuple[str, dict[str, Any]]]] = []
    error: ClassVar[Exception | None] = None

    def __init__(self, **options: Any) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        def answer(**options: Any) -> Any:
            Api.calls.append((name, options))
            if Api.error:
                raise Api.error
            if name == "list_repo_tree":
                return [SimpleNamespace(path="old", size=1), SimpleNamespace(path="folder")]
            return SimpleNamespace(sha="c0", private=True)

        return answer


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> type[Api]:
    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(Api, "calls", [])
    monkeypatch.setattr(Api, "error", None)
    return Api


def test_what_the_client_is_asked(export: Path, api: type[Api]) -> None:
    before = tree(export)
    run_push(export, HuggingFaceHub("lab/fold"), replaces=True)
    asked = dict(api.calls)
    assert [name for name, _ in api.calls][2:] == ["create_repo", "upload_folder", "create_commit"]
    assert asked["create_repo"]["private"] is True
    assert asked["create_repo"]["repo_type"] == "dataset"
    assert asked["upload_folder"]["ignore_patterns"] == [ORIGIN, PAGE, ".*", "*/.*"]
    names = [each.path_in_repo for each in asked["create_commit"]["operations"]]
    assert names == ["old", "README.md", PAGE]
    assert tree(export) == before


def http_error(status: int, kind: type[HfHubHTTPError] = HfHubHTTPError) -> HfHubHTTPError:
    response: Any = SimpleNamespace(headers={}, request=None, status_code=status)
    return kind("Server answers.\nmore", response=response)


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (http_error(401), ConfigError, "run `hf auth login`"),
        (http_error(403), ConfigError, "run `hf auth login`"),
        (http_error(404, RepositoryNotFoundError), ConfigError, "no such dataset repository"),
        (http_error(400), ConfigError, "the Hub refuses"),
        (http_error(429), TransientError, "run the same command again to resume"),
        (http_error(503), TransientError, "run the same command again to resume"),
        (ConnectionError("refused"), TransientError, "run the same command again to resume"),
    ],
)
def test_errors_of_the_client(
    error: Exception, kind: type[Exception], told: str, api: type[Api]
) -> None:
    api.error = error
    with pytest.raises(kind, match=told):
        HuggingFaceHub("lab/fold").create(is_private=True)


def test_without_the_client(api: type[Api], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(ConfigError, match="eicorpus\\[train\\]"):
        HuggingFaceHub("lab/fold").look()


@contextmanager
def served(files: dict[str, bytes], down: set[str], sent: list[str]) -> Iterator[str]:
    """A server with the endpoints of the Hub that a download uses. `down`: files that it fails to send."""
    commit = "c" * 40

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            name = path.partition(f"/resolve/{commit}/")[2]
            if name in down:
                self.send_error(501)  # the client retries 500
            elif name:
                sent.extend([name] if self.command == "GET" else [])
                self.answer(files[name])
            elif f"/tree/{commit}" in path:
                each = [
                    {"type": "file", "path": n, "size": len(d), "oid": hashlib.sha1(d).hexdigest()}
                    for n, d in files.items()
                ]
                self.answer(json.dumps(each).encode())
            elif path.startswith("/api/datasets/lab/fold"):
                facts = {"id": "lab/fold", "sha": commit, "private": True, "siblings": []}
                self.answer(json.dumps(facts).encode())
            else:
                self.send_error(404)

        do_HEAD = do_GET  # noqa: N815

        def answer(self, data: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
            self.send_header("X-Repo-Commit", commit)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_pull_by_the_client_of_the_hub(export: Path, tmp_path: Path) -> None:
    files = {**tree(export), "README.md": b"card", ".gitattributes": b"*", ".cache/x": b"hostile"}
    out, last = tmp_path / "out", sorted(tree(export))[-1]
    down, sent = {last}, list[str]()
    with served(files, down, sent) as endpoint:
        hub = HuggingFaceHub("lab/fold", endpoint=endpoint)
        with pytest.raises(TransientError, match="resume"):
            run_pull(hub, out, 1)
        assert not (out / PAGE).exists()
        down.clear()
        done = run_pull(hub, out, 1)
        assert done.findings == []
        assert done.revision == "c" * 40
        assert tree(out) == tree(export)
        assert sorted(sent) == sorted(tree(export))  # each once, and nothing else
        sent.clear()
        assert run_pull(hub, out, 1).findings == []
        assert sent == [PAGE]  # to know that it is the same
        next(out.glob("*/data/*/*.parquet")).write_bytes(b"")
        assert run_pull(hub, out, 1).findings == []
    assert tree(out) == tree(export)
