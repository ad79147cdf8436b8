"""Interrupted, terminated or killed, any writing command leaves a corpus that its own rerun completes; after an interrupt it is sound even before.

Real signals to real commands. Every moment of the power: test_power.py.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ingest.corpus.writer import UNFINISHED
from ingest.verify.corpus import verify
from tests.faults.runs import tree
from tests.faults.toy import GATE, WAITING, write_toy
from tests.faults.writers import INGEST, WRITERS
from tests.faults.zygote import Zygote

ROOT = Path(__file__).parents[2]
# What a command calls after it has written what nobody names yet, and before that is named.
KILL_AT = dict.fromkeys(WRITERS, ("put_if_absent", 1)) | {
    "manifest": ("put_dir_if_absent", 1),
    "build": ("put_dir_if_absent", 1),
    "gc": ("sync", 2),
    "gc_parts": ("sync", 2),
    "forget": ("hard_link_or_copy", 1),
}


@pytest.fixture(scope="module")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    made = Zygote(tmp_path_factory.mktemp("zygote"))
    yield made
    made.close()


def wait_until(is_true: Callable[[], bool], zygote: Zygote) -> None:
    deadline = time.monotonic() + 120
    while not is_true():
        assert time.monotonic() < deadline, zygote.log.read_text()
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_ingest_is_sound_before_and_after_its_rerun(
    how: signal.Signals, zygote: Zygote, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus"
    raw = write_toy(
        tmp_path / "raw",
        {"a": "good", "b": "quarantine", "c": "good", "d": "short", "e": "gated", "f": "good"},
    )
    child = zygote.start(INGEST.argv(tmp_path))
    wait_until((raw / WAITING).exists, zygote)  # the fifth waits for its gate
    os.kill(child, how)
    assert zygote.wait() == 130, zygote.log.read_text()
    assert verify(corpus) == []
    assert not (corpus / UNFINISHED).exists()
    (raw / GATE).touch()
    assert zygote.run(INGEST.argv(tmp_path)) == 0, zygote.log.read_text()
    assert verify(corpus) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in WRITERS if name != "text_features"])
def test_after_a_kill_the_same_command_leaves_nothing_behind(
    name: str, zygote: Zygote, tmp_path: Path
) -> None:
    writer, home = WRITERS[name], tmp_path / "home"
    home.mkdir()
    writer.prepare(home)
    wanted, corpus = shutil.copytree(home, tmp_path / "wanted"), home / "corpus"
    assert zygote.run(writer.argv(wanted)) == 0, zygote.log.read_text()
    argv = writer.argv(home)
    assert zygote.run(argv, kill_at=KILL_AT[name]) == -signal.SIGKILL, zygote.log.read_text()
    assert (corpus / UNFINISHED).exists() == (name not in ("manifest", "build"))
    assert zygote.run(argv) == 0, zygote.log.read_text()
    assert verify(corpus) == []
    assert paths_of(corpus) == paths_of(wanted / "corpus")


def paths_of(corpus: Path) -> set[str]:
    """All files but those whose names tell a run or what a run wrote: parts, snapshots, lists of a run."""
    named_by_run = re.compile(r"catalog/|ledger/|quarantine/|manifests/_cache/")
    return {path for path in tree(corpus) if not named_by_run.match(path)}


def test_jobs_take_a_corpus_for_writing_by_one_door() -> None:
    for path in (ROOT / "jobs").glob("*.py"):
        assert "writer_lock" not in path.read_text(), (
            f"{path.name}: use ingest.corpus.writer.writing"
        )
