"""How a corpus is taken for writing when the disk refuses, and what stays after a failed synchronisation."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from ingest.corpus import writer
from ingest.corpus.layout import CorpusLayout, open_or_create
from ingest.corpus.writer import UNFINISHED, writing
from ingest.storage.file_system import FileSystem
from ingest.storage.local import LocalStorage
from ingest.storage.unsynced import FEW
from schemas.errors import ConfigError, PipelineError, TransientError
from tests.faults.writers import WRITERS, do


class Refusing(FileSystem):
    """Makes no new file."""

    def __init__(self, number: int) -> None:
        self.number = number

    def open(self, name: str, flags: int, *, dir_fd: int | None = None, mode: int = 0o666) -> int:
        if flags & os.O_CREAT:
            raise OSError(self.number, os.strerror(self.number))
        return super().open(name, flags, dir_fd=dir_fd, mode=mode)


REFUSALS = {
    errno.ENOSPC: (TransientError, "the disk is full .*; make room and run the same command again"),
    errno.EDQUOT: (TransientError, "the disk is full .*; make room and run the same command again"),
    errno.EIO: (TransientError, "a write failed .*; check the disk"),
    errno.EACCES: (ConfigError, "not writable"),
    errno.EROFS: (ConfigError, "not writable"),
    errno.EPERM: (ConfigError, "not writable"),
    errno.EOPNOTSUPP: (ConfigError, "use another file system"),
    errno.ENOSYS: (ConfigError, "use another file system"),
    errno.ENAMETOOLONG: (ConfigError, "cannot be written"),
}


@pytest.mark.parametrize("number", REFUSALS, ids=errno.errorcode.__getitem__)
def test_a_refused_write_says_what_to_do(number: int, tmp_path: Path) -> None:
    kind, message = REFUSALS[number]
    disk = LocalStorage(tmp_path, Refusing(number))
    with (
        pytest.raises(PipelineError, match=message) as taken,
        writing(CorpusLayout(tmp_path), disk),
    ):
        raise AssertionError("no work may begin")
    with pytest.raises(PipelineError, match=message) as made:
        open_or_create(tmp_path, uid="corpus", recipe_digest="", disk=disk)
    assert type(taken.value) is type(made.value) is kind


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_lock_file_that_cannot_be_made_says_it_too(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, message = REFUSALS[number]
    corpus, disk = CorpusLayout(tmp_path), LocalStorage(tmp_path)

    def refuse(*given: object, **how: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(kind, match=message), writing(corpus, disk):
        raise AssertionError("no work may begin")


class Lossy(FileSystem):
    """Reports a lost write once, as Linux does."""

    def __init__(self) -> None:
        self.fails = False

    def fsync(self, handle: int) -> None:
        if self.fails:
            self.fails = False
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    syncfs = fsync


@pytest.mark.parametrize("count", [1, FEW + 1])
def test_a_failed_synchronisation_leaves_the_mark_for_the_next_writer(
    count: int, tmp_path: Path
) -> None:
    corpus, system = CorpusLayout(tmp_path), Lossy()
    disk = LocalStorage(tmp_path, system)

    def work() -> None:
        with writing(corpus, disk):
            for number in range(count):
                disk.write_new(tmp_path / f"a{number}", b"x")
            system.fails = True
            disk.sync()

    with pytest.raises(OSError, match="Input/output"):
        work()
    assert (tmp_path / UNFINISHED).exists()
    with writing(corpus, LocalStorage(tmp_path)):
        pass
    assert not (tmp_path / UNFINISHED).exists()


@pytest.mark.parametrize("way", ["write", "put_if_absent", "put_dir_if_absent"])
def test_a_storage_that_lost_a_write_never_again_says_that_all_is_there(
    way: str, tmp_path: Path
) -> None:
    system = Lossy()
    disk = LocalStorage(tmp_path, system)
    acts = {
        "write": lambda: disk.write(tmp_path / "a", b"x", is_durable=True),
        "put_if_absent": lambda: disk.put_if_absent(tmp_path / "a", b"x"),
        "put_dir_if_absent": lambda: disk.put_dir_if_absent(tmp_path / "a", {"b": b"x"}),
    }
    system.fails = True
    with pytest.raises(OSError, match="Input/output"):
        acts[way]()
    with pytest.raises(OSError, match="Input/output"):
        disk.sync()


@pytest.mark.parametrize(("name", "times"), [("ingest", 1), ("gc", 1), ("forget", 2)])
def test_a_command_recovers_once(
    name: str, times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`forget` once more after its commit, because recovery is the second half of an erasure."""
    WRITERS[name].prepare(tmp_path)
    argv = WRITERS[name].argv(tmp_path)
    (tmp_path / "corpus").mkdir(exist_ok=True)
    (tmp_path / "corpus" / UNFINISHED).touch()
    real, calls = writer._remove_orphan_parts, []

    def counted(*given: Any) -> list[str]:
        calls.append(name)
        return real(*given)

    monkeypatch.setattr(writer, "_remove_orphan_parts", counted)
    do(argv)
    assert len(calls) == times
