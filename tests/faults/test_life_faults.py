"""A second writer, a full disk and SIGKILL for `compact`, `gc`, `forget` and `export`. Every single cut: test_life_power_cut.py."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ingest.corpus.layout import CorpusLayout, writer_lock
from ingest.maintenance.erase import forget
from ingest.storage.local import LocalStorage
from ingest.verify.corpus import verify
from jobs.cli import app
from schemas.errors import ConfigError
from tests.curation.lifecycle_corpus import build, merge, publish_manifest, rows_of, uids
from tests.faults.disks import Count
from tests.faults.runs import tree

ROOT = Path(__file__).parents[2]
AT = datetime(2026, 2, 3, tzinfo=UTC)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    corpus = build(tmp_path_factory.mktemp("faults"), {"a": "good", "b": "quarantine", "c": "good"})
    publish_manifest(corpus)
    return corpus


@pytest.fixture
def corpus(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "corpus")


COMMANDS = {
    "compact": [],
    "gc": ["--keep", "1", "--older-than", "0"],
    "forget": ["UID"],
    "export": ["--to", "iceberg", "--warehouse", "WAREHOUSE"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_second_writer_is_turned_away(name: str, corpus: Path, tmp_path: Path) -> None:
    if name == "export":
        pytest.importorskip("pyiceberg.catalog.sql", reason="NOT RUN: no extra `iceberg`")
    filled = {"UID": uids(corpus)["c"], "WAREHOUSE": str(tmp_path / "w")}
    words = [name, str(corpus)]
    before = tree(corpus)
    with writer_lock(CorpusLayout(corpus)):
        result = CliRunner().invoke(app, [*words, *(filled.get(w, w) for w in COMMANDS[name])])
    assert isinstance(result.exception, ConfigError)
    assert "is writing to this corpus" in str(result.exception)
    after = tree(corpus)
    assert {
        path for path in before.keys() | after.keys() if before.get(path) != after.get(path)
    } <= {".writer"}


class FullDisk(LocalStorage):
    """Has room for so many more writes, and for half of the next one."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.writes = Count(room)  # under all its roots

    def write(self, path: Path, data: bytes, *, is_durable: bool = False) -> None:
        if self.writes.done >= self.writes.allowed:
            path.with_name(f".{path.name}.part").write_bytes(data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        self.writes.done += 1
        super().write(path, data)

    def sync(self) -> None:
        pass


def erase(corpus: Path, disk: LocalStorage, run_id: str) -> None:
    wanted = [row["uid"] for row in rows_of(corpus, "verdicts") if row["episode_id"] == "c"]
    wanted += [row["uid"] for row in rows_of(corpus, "tombstones")]
    forget(CorpusLayout(corpus), disk, wanted, reason="", run_id=run_id, erased_at=AT)


@pytest.mark.parametrize(("act", "room"), [(erase, 1), (erase, 9), (erase, 24), (merge, 2)])
def test_a_full_disk_is_said_and_the_next_run_finishes(
    act: Callable[[Path, LocalStorage, str], None],
    room: int,
    made: Path,
    corpus: Path,
    tmp_path: Path,
) -> None:
    wanted = shutil.copytree(made, tmp_path / "wanted")
    act(wanted, FullDisk(10**6), "whole")
    with pytest.raises(OSError, match="No space left"):
        act(corpus, FullDisk(room), "full")
    act(corpus, FullDisk(10**6), "again")
    assert verify(corpus) == []
    assert tree(corpus / "datasets") == tree(wanted / "datasets")
    assert tree(corpus / "manifests") == tree(wanted / "manifests")
    assert [*corpus.rglob("*.part"), *(corpus / "staging").iterdir()] == []


KILLED = """
import os, signal, sys
from ingest.storage.local import LocalStorage
from jobs.cli import main

def killed(self, source, target):
    os.kill(os.getpid(), signal.SIGKILL)

LocalStorage.hard_link_or_copy = killed
sys.argv = ["eicorpus", "forget", sys.argv[1], sys.argv[2]]
main()
"""


@pytest.mark.slow
def test_an_erasure_that_was_killed_is_finished_by_gc(corpus: Path) -> None:
    """After its commit, before its first file: the lock is free again, `verify` names the command, and that command does it."""
    uid = uids(corpus)["c"]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(corpus), uid], cwd=ROOT, check=False, capture_output=True
    )
    assert done.returncode == -9, done.stderr
    [found] = verify(corpus)
    assert (found.check.value, "eicorpus gc" in found.remedy) == ("erasure_unfinished", True)
    answer = json.loads(CliRunner().invoke(app, ["gc", str(corpus), "--json"]).stdout)["result"]
    assert any("finished the erasure" in line for line in answer["recovered"])
    assert verify(corpus) == []
    assert not any(uid in path.read_text() for path in (corpus / "ledger").iterdir())
