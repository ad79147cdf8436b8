"""What a node must see as the driver does: which files are sampled, and what a difference is called."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ingest.corpus.layout import CorpusLayout
from ingest.executors import node_proof
from ingest.executors.inline import InlineExecutor
from ingest.executors.node_proof import (
    PREFIX,
    SharedView,
    code_id,
    difference,
    is_answered,
    mark_of,
    sampled_files,
    shared,
    spread,
)
from ingest.pipeline.process import Work, guarded, is_doubtful
from ingest.recipe import Recipe
from ingest.storage.local import LocalStorage, OutsideCorpus
from schemas.episode import EpisodeRef
from schemas.outcome import Outcome, State

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_proof, "PAUSE_S", 0.0)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    for name in ("meta/info.json", "data/chunk-000/0.parquet", "videos/chunk-000/cam/0.mp4"):
        path = tmp_path / "raw" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(name.encode() * 1000)
    (tmp_path / "raw" / "README").write_text("a set")
    return tmp_path / "raw"


def view_of(raw: Path, folder: Path) -> SharedView:
    folder.mkdir(exist_ok=True)
    (folder / "nonce").write_text("4711")
    marks = tuple(mark for path in sampled_files(raw) if (mark := mark_of(path)) is not None)
    return SharedView(folder=str(folder), nonce="4711", marks=marks)


def test_every_folder_of_the_first_level_is_sampled(raw: Path) -> None:
    assert {path.relative_to(raw).parts[0] for path in sampled_files(raw)} == {
        *("README", "meta", "data", "videos")
    }


def test_a_sample_is_bounded(tmp_path: Path) -> None:
    for i in range(300):
        (tmp_path / "top" / f"{i:03d}" / "deep").mkdir(parents=True)
        (tmp_path / "top" / f"{i:03d}" / "deep" / "a.bin").touch()
    assert len(sampled_files(tmp_path)) == node_proof.FOLDERS
    assert sampled_files(tmp_path)[-1].parts[-3] == "299"


def test_a_source_of_one_file_is_its_sample(raw: Path) -> None:
    assert sampled_files(raw / "README") == [raw / "README"]


@pytest.mark.parametrize(("count", "found"), [(1, 1), (3, 3), (5, 4)])
def test_a_spread_holds_both_ends(count: int, found: int) -> None:
    items = spread("abcd"[:count], 3) if count < 5 else spread("abcd", 5)
    assert (items[0], len(items)) == ("a", found)


def test_the_same_files_are_no_difference(raw: Path, tmp_path: Path) -> None:
    view = view_of(raw, tmp_path / "probe")
    assert difference(view, "node-1") == ""
    assert is_answered(view, "node-1")
    assert not is_answered(view, "node-2")


PROVE = """
import sys
from ingest.executors.node_proof import SharedView, _of_corpus
view = SharedView(folder=sys.argv[1], nonce="4711")
print({_of_corpus(view, "node-1") for _ in range(300)})
"""


def test_processes_of_a_node_that_start_together_all_prove_it(tmp_path: Path) -> None:
    """A cluster starts one process for each core at once; they shared a half-written answer, and the node was excluded."""
    folder = tmp_path / "probe"
    folder.mkdir()
    (folder / "nonce").write_text("4711")
    command = [sys.executable, "-c", PROVE, str(folder)]
    provers = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    assert [prover.communicate()[0] for prover in provers] == ["{''}\n"] * 3


def _remove(path: Path) -> None:
    path.unlink()


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _change(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"!")


def _make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_remove, "cannot be read on this node"),
        (_cut, "bytes on this node"),
        (_change, "has different content on this node"),
        (_make_folder, "cannot be read on this node"),
    ],
)
def test_a_file_that_differs_is_named(
    change: Callable[[Path], None], words: str, raw: Path, tmp_path: Path
) -> None:
    view = view_of(raw, tmp_path / "probe")
    video = raw / "videos/chunk-000/cam/0.mp4"
    change(video)
    found = difference(view, "node-1")
    assert str(video) in found
    assert words in found
    assert "(1 of 4 sampled files differ)" in found


def test_a_corpus_of_another_machine_is_named(raw: Path, tmp_path: Path) -> None:
    view = view_of(raw, tmp_path / "probe")
    (tmp_path / "probe" / "nonce").write_text("another")
    assert "storage that all nodes share" in difference(view, "node-1")
    gone = replace(view, folder=str(tmp_path / "nowhere"))
    assert "the corpus differs from the driver's" in difference(gone, "node-1")


def test_an_adapter_that_is_not_there_is_named(raw: Path, tmp_path: Path) -> None:
    view = replace(view_of(raw, tmp_path / "probe"), adapter="no.such.module:Adapter")
    assert "cannot be imported" in difference(view, "node-1")


def test_the_code_has_one_name_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = code_id()
    (tmp_path / "a.py").write_text("")
    monkeypatch.setattr(node_proof.ingest, "__path__", [str(tmp_path)])
    code_id.cache_clear()
    try:
        assert code_id() != before
    finally:
        code_id.cache_clear()


class Witness:
    """Stands for an executor of several machines."""

    name = "witness"

    def __init__(self) -> None:
        self.view: SharedView | None = None
        self.is_closed = False
        self.expected = 0

    def expect(self, num_work: int) -> None:
        self.expected = num_work

    def share(self, view: SharedView, is_doubtful: Callable[[Any, Any], bool]) -> None:
        self.view = view
        assert (Path(view.folder) / "nonce").read_text() == view.nonce

    def run(self, next_work: Any, body: Any) -> Iterator[Any]:
        yield from ()

    def close(self) -> None:
        self.is_closed = self.view is not None and Path(self.view.folder).is_dir()


def test_what_is_shared_goes_with_the_run(raw: Path, tmp_path: Path) -> None:
    corpus, witness = CorpusLayout(tmp_path / "corpus"), Witness()
    left = corpus.staging / f"{PREFIX}killed"
    left.mkdir(parents=True)
    files = lambda: sampled_files(raw)  # noqa: E731
    with shared(witness, corpus, LocalStorage(), files=files, num_work=7):
        assert (witness.view is not None, witness.expected) == (True, 7)
        assert len(witness.view.marks) == 4
        assert not left.exists()
    assert witness.is_closed
    assert list(corpus.staging.iterdir()) == []


def test_one_machine_shares_nothing(tmp_path: Path) -> None:
    with shared(InlineExecutor(), CorpusLayout(tmp_path / "corpus"), LocalStorage()):
        assert not (tmp_path / "corpus").exists()


@pytest.mark.parametrize(
    ("code", "problem", "is_doubted"),
    [
        ("missing_file", None, True),
        ("io_error", None, True),
        ("corrupt_video", None, False),
        ("missing_file", ("missing_file", "known when the run was planned"), False),
    ],
)
def test_an_absence_is_doubted_unless_the_driver_said_so(
    code: str, problem: tuple[str, str] | None, is_doubted: bool
) -> None:
    ref = EpisodeRef(source="s", dataset="d", episode_id="e", root="/raw", problem=problem)
    work = Work(ref=ref, adapter="s", recipe=Recipe(), staging="/staging")
    outcome = Outcome(uid=ref.uid, state=State.QUARANTINED, code=code, message="m")
    assert is_doubtful(work, outcome) is is_doubted


@pytest.mark.parametrize("code", ["disk_full", "TransientError", "UnknownOutcome"])
def test_the_disk_and_the_network_of_a_node_are_not_those_of_the_run(code: str) -> None:
    """Workers of one file system share the disk of the corpus; those that upload have their own."""
    ref = EpisodeRef(source="s", dataset="d", episode_id="e", root="/raw")
    outcome = Outcome(uid=ref.uid, state=State.FAILED, code=code, message="m")
    work = Work(ref=ref, adapter="s", recipe=Recipe(), staging="/staging")
    assert not is_doubtful(work, outcome)
    assert is_doubtful(replace(work, upload_to="s3://b/c"), outcome)


def test_links_above_the_corpus_are_followed(raw: Path, tmp_path: Path) -> None:
    """`/home` or `/data` is a link on many clusters."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "data").symlink_to("disk")
    view = view_of(raw, tmp_path / "data" / "probe")
    assert difference(view, "node-1") == ""
    assert is_answered(view, "node-1")


def test_a_link_in_the_corpus_is_a_difference(raw: Path, tmp_path: Path) -> None:
    view_of(raw, tmp_path / "elsewhere")
    (tmp_path / "probe").symlink_to("elsewhere")
    view = view_of(raw, tmp_path / "probe")
    assert "is a link" in difference(view, "node-1")


def test_a_second_run_leaves_the_folder_of_the_first(tmp_path: Path) -> None:
    """`manifest build --ray` takes no writer lock, so it may begin while `ingest --ray` runs."""
    corpus, first, second = CorpusLayout(tmp_path / "corpus"), Witness(), Witness()
    with shared(first, corpus, LocalStorage()):
        with shared(second, corpus, LocalStorage()):
            assert len(list(corpus.staging.glob(f"{PREFIX}*"))) == 2
        assert first.view is not None
        assert (Path(first.view.folder) / "nonce").read_text() == first.view.nonce
    assert list(corpus.staging.iterdir()) == []


def test_what_the_corpus_refuses_to_a_node_is_doubted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An outcome has the name of its exception, which may be a subclass of ConfigError."""

    def refuse(work: Work, disk: LocalStorage) -> Outcome:
        raise OutsideCorpus("is a link", where=work.staging)

    monkeypatch.setattr("ingest.pipeline.process.process", refuse)
    ref = EpisodeRef(source="s", dataset="d", episode_id="e", root="/raw")
    work = Work(ref=ref, adapter="s", recipe=Recipe(), staging="/staging")
    assert is_doubtful(work, guarded(work, LocalStorage(tmp_path)))
