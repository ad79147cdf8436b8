"""Whose folder it is: made only where nothing else is, opened only when understood, written by one process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ingest.corpus.layout import (
    CorpusLayout,
    data_file,
    open_corpus,
    open_or_create,
    video_file,
    writer_lock,
)
from ingest.storage.local import LocalStorage
from schemas.catalog import FORMAT_VERSION
from schemas.errors import ConfigError
from tests.faults.runs import tree

ROOT = Path(__file__).parents[2]


def create(path: Path, uid: str = "u1") -> CorpusLayout:
    return open_or_create(path, uid=uid, recipe_digest="0" * 16, disk=LocalStorage())


def test_a_new_corpus_says_what_it_is(tmp_path: Path) -> None:
    corpus = create(tmp_path / "new" / "corpus")
    assert json.loads((corpus.root / "corpus.json").read_text()) == {
        "format_version": FORMAT_VERSION,
        "uid": "u1",
        "created_by_recipe": "0" * 16,
    }
    before = tree(corpus.root)
    assert create(corpus.root, uid="u2") == corpus  # opened, not made again
    assert tree(corpus.root) == before
    assert open_corpus(corpus.root) == corpus


def test_an_empty_folder_and_hidden_files_are_fine(tmp_path: Path) -> None:
    (tmp_path / ".DS_Store").touch()
    assert create(tmp_path).root == tmp_path


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"precious")
    before = tree(tmp_path)
    with pytest.raises(ConfigError, match="contains other files"):
        create(tmp_path)
    assert tree(tmp_path) == before


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    with pytest.raises(ConfigError, match="cannot be written"):
        create(tmp_path / "x")


@pytest.mark.parametrize(
    "text",
    [
        f'{{"format_version": {FORMAT_VERSION + 1}}}',
        "{}",
        "",
        "[]",
        "null",
        '{"format_version": "new"}',
        '{"format_version": null}',
        "\xff",
    ],
)
def test_a_marker_that_is_not_understood_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "corpus.json").write_bytes(text.encode("latin-1"))
    before = tree(tmp_path)
    for open_it in (open_corpus, create):
        with pytest.raises(ConfigError):
            open_it(tmp_path)
    assert tree(tmp_path) == before


def test_no_corpus_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no corpus\.json"):
        open_corpus(tmp_path)


def test_paths_by_hand() -> None:
    corpus = CorpusLayout(Path("/c"))
    assert data_file(0) == "data/chunk-000/episode_000000.parquet"
    assert data_file(999) == "data/chunk-000/episode_000999.parquet"
    assert data_file(1000) == "data/chunk-001/episode_001000.parquet"
    assert (
        video_file(2001, "observation.images.head")
        == "videos/chunk-002/observation.images.head/episode_002001.mp4"
    )
    assert corpus.staging_dir("u", "a-v1") != corpus.staging_dir("u", "a-v2")
    assert corpus.staging_dir("u", "a-v1").is_relative_to(corpus.staging)


# --- one writer ---------------------------------------------------------------------------------------------------------

HOLDER = """
import sys
from pathlib import Path
from ingest.corpus.layout import CorpusLayout, writer_lock
with writer_lock(CorpusLayout(Path(sys.argv[1]))):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_processes_cannot_write(tmp_path: Path) -> None:
    corpus = create(tmp_path)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(ConfigError, match=f"process {holder.pid}"), writer_lock(corpus):
        pass
    holder.kill()  # however it dies, the lock goes with it
    holder.communicate()
    with writer_lock(corpus):
        pass


def test_the_lock_is_let_go_after_an_error(tmp_path: Path) -> None:
    corpus = create(tmp_path)
    with pytest.raises(ZeroDivisionError), writer_lock(corpus):
        raise ZeroDivisionError
    with writer_lock(corpus):
        pass
