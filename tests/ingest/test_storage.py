"""The operations that make changes lasting: atomic, put-if-absent, and leaving nothing behind."""

from __future__ import annotations

import errno
import os
import pickle
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from ingest.corpus.layout import CorpusLayout
from ingest.corpus.writer import writing
from ingest.storage.local import FileSystem, LocalStorage, OutsideCorpus
from schemas.errors import ConfigError, TransientError

DISK = LocalStorage()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_write_replaces_whole_files(tmp_path: Path) -> None:
    DISK.write(tmp_path / "a.json", b"one")
    DISK.write(tmp_path / "a.json", b"two")
    assert (tmp_path / "a.json").read_bytes() == b"two"
    assert names(tmp_path) == ["a.json"]


class Full(FileSystem):
    """Has no room for a byte."""

    def write(self, handle: int, data: bytes | memoryview) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    DISK.write(tmp_path / "a.json", b"old")
    with pytest.raises(OSError, match="No space"):
        LocalStorage(tmp_path, Full()).write(tmp_path / "a.json", b"new")
    assert (tmp_path / "a.json").read_bytes() == b"old"
    assert names(tmp_path) == ["a.json"]


def test_publish_is_put_if_absent(tmp_path: Path) -> None:
    assert DISK.put_if_absent(tmp_path / "00000001.json", b"mine")
    assert not DISK.put_if_absent(tmp_path / "00000001.json", b"theirs")
    assert (tmp_path / "00000001.json").read_bytes() == b"mine"
    assert names(tmp_path) == ["00000001.json"]  # the loser's part is gone too


def test_append_creates_and_extends(tmp_path: Path) -> None:
    DISK.append(tmp_path / "a.jsonl", b"1\n")
    DISK.append(tmp_path / "a.jsonl", b"2\n")
    assert (tmp_path / "a.jsonl").read_bytes() == b"1\n2\n"
    DISK.truncate(tmp_path / "a.jsonl", 2)
    assert (tmp_path / "a.jsonl").read_bytes() == b"1\n"


def test_place_shares_the_bytes_and_survives_the_source(tmp_path: Path) -> None:
    source, target = tmp_path / "staged.mp4", tmp_path / "episode_000000.mp4"
    source.write_bytes(b"video")
    target.write_bytes(b"left over")
    (tmp_path / ".episode_000000.mp4.part").write_bytes(b"half")
    DISK.hard_link_or_copy(source, target)
    assert source.samefile(target)
    DISK.remove(source)
    assert target.read_bytes() == b"video"
    assert names(tmp_path) == ["episode_000000.mp4"]


def test_place_twice_changes_nothing(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(b"video")
    DISK.hard_link_or_copy(source, target)
    DISK.hard_link_or_copy(source, target)
    assert target.read_bytes() == b"video"
    # rename(2) of two names of ONE file does nothing, so the part may stay: recovery sweeps it
    assert set(names(tmp_path)) - {".b.part"} == {"a", "b"}


class Linkless(FileSystem):
    """A file system without hard links; `lacks` are further calls that it does not have."""

    def __init__(self, *lacks: str, code: int = errno.EPERM) -> None:
        self.lacks, self.code = {"link", *lacks}, code

    def link(self, old: str, new: str, *, old_dir: int, new_dir: int) -> None:
        raise OSError(self.code, "link")

    def rename_new(self, old: str, new: str, *, old_dir: int, new_dir: int) -> None:
        if "rename_new" in self.lacks:
            raise OSError(errno.EINVAL, "renameat2")
        super().rename_new(old, new, old_dir=old_dir, new_dir=new_dir)


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.EXDEV])
def test_place_copies_where_there_are_no_links(code: int, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"video")
    LocalStorage(tmp_path, Linkless(code=code)).hard_link_or_copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"video"
    assert not (tmp_path / "a").samefile(tmp_path / "b")


def test_a_probe_of_a_killed_process_with_our_number_is_in_nobodys_way(tmp_path: Path) -> None:
    """In a container every process may have the same number."""
    for n in ("", "1", "2"):
        (tmp_path / f".probe{n}.{os.getpid()}.part").touch()
    LocalStorage(tmp_path).check()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("lacks", [(), ("rename_new",)])
def test_publish_is_put_if_absent_without_links_too(lacks: tuple[str, ...], tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path, Linkless(*lacks))
    storage.check()
    assert storage.put_if_absent(tmp_path / "1.json", b"mine")
    assert not storage.put_if_absent(tmp_path / "1.json", b"theirs")
    assert (tmp_path / "1.json").read_bytes() == b"mine"
    assert names(tmp_path) == ["1.json"]


def test_a_file_system_that_cannot_publish_is_known_before_any_work(tmp_path: Path) -> None:
    class Blind(Linkless):
        """Says yes to the second as well."""

        def rename_new(self, old: str, new: str, *, old_dir: int, new_dir: int) -> None:
            self.rename(old, new, old_dir=old_dir, new_dir=new_dir)

    (tmp_path / "corpus").mkdir()
    corpus = CorpusLayout(tmp_path / "corpus")
    with (
        pytest.raises(ConfigError, match="another file system"),
        writing(corpus, LocalStorage(corpus.root, Blind())),
    ):
        raise AssertionError("no work may begin")
    assert names(corpus.root) == [".writer"]


def test_a_claim_that_a_stopped_process_left_is_named(tmp_path: Path) -> None:
    (tmp_path / ".1.json.claim.part").mkdir()
    storage = LocalStorage(tmp_path, Linkless("rename_new"))
    with pytest.raises(TransientError, match="eicorpus gc"):
        storage.put_if_absent(tmp_path / "1.json", b"mine")
    assert names(tmp_path) == [".1.json.claim.part"]


@pytest.mark.parametrize(
    "act",
    [
        lambda storage, path: storage.make_dir(path / "new"),
        lambda storage, path: storage.write(path / "f", b"theirs"),
        lambda storage, path: storage.write_new(path / "f", b"theirs"),
        lambda storage, path: storage.append(path / "f", b"theirs"),
        lambda storage, path: storage.put_if_absent(path / "g", b"theirs"),
        lambda storage, path: storage.put_dir_if_absent(path / "g", {"f": b"theirs"}),
        lambda storage, path: storage.truncate(path / "f", 0),
        lambda storage, path: storage.remove(path / "f"),
        lambda storage, path: storage.remove_tree(path / "inner"),
        lambda storage, path: storage.hard_link_or_copy(storage.root / "own", path / "f"),
        lambda storage, path: storage.hard_link_or_copy(path / "f", storage.root / "own"),
        lambda storage, path: storage.read(path / "f", most=1),
    ],
)
@pytest.mark.parametrize("way", ["link", "dots", "absolute"])
def test_nothing_outside_the_root_is_touched(
    act: Callable[[LocalStorage, Path], object], way: str, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    (outside / "inner").mkdir(parents=True)
    (outside / "f").write_bytes(b"private")
    root = tmp_path / "root"
    root.mkdir()
    (root / "own").write_bytes(b"own")
    (root / "link").symlink_to(outside)
    paths = {"link": root / "link", "dots": root / ".." / "outside", "absolute": outside}
    with pytest.raises(OutsideCorpus):
        act(LocalStorage(root), paths[way])
    assert sorted(p.name for p in outside.iterdir()) == ["f", "inner"]
    assert (outside / "f").read_bytes() == b"private"
    assert (root / "own").read_bytes() == b"own"


def test_removing_a_tree_removes_links_and_not_what_they_lead_to(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "f").write_bytes(b"private")
    tree = tmp_path / "root" / "tree"
    (tree / "inner").mkdir(parents=True)
    (tree / "inner" / "folder").symlink_to(outside)
    (tree / "file").symlink_to(outside / "f")
    os.mkfifo(tree / "pipe")
    (tmp_path / "root" / "whole").symlink_to(outside)
    storage = LocalStorage(tmp_path / "root")
    storage.remove_tree(tree)
    storage.remove_tree(tmp_path / "root" / "whole")
    assert names(tmp_path / "root") == []
    assert names(outside) == ["f"]


def test_what_is_written_over_a_link_replaces_the_link(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"private")
    for name in ("written", ".written.part", "created", "appended"):
        (tmp_path / name).symlink_to(tmp_path / "victim")
    storage = LocalStorage(tmp_path)
    storage.write(tmp_path / "written", b"new")
    storage.write_new(tmp_path / "created", b"new")
    with pytest.raises(OutsideCorpus, match="link"):
        storage.append(tmp_path / "appended", b"more")
    assert (tmp_path / "victim").read_bytes() == b"private"
    assert (tmp_path / "written").read_bytes() == b"new"


def test_a_pipe_is_refused_and_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    storage = LocalStorage(tmp_path)
    with pytest.raises(OutsideCorpus):
        storage.read(tmp_path / "pipe", most=1)
    with pytest.raises(OutsideCorpus):
        storage.append(tmp_path / "pipe", b"x")


class Recording(FileSystem):
    """Remembers which inodes were synchronised; `syncfs` as on an old kernel where `is_old`."""

    def __init__(self, *, is_old: bool = True) -> None:
        self.synced: set[int] = set()
        self.is_old = is_old

    def fsync(self, handle: int) -> None:
        self.synced.add(os.fstat(handle).st_ino)

    def syncfs(self, handle: int) -> None:
        if self.is_old:
            raise OSError(errno.ENOSYS, "syncfs")
        self.synced.add(-os.fstat(handle).st_dev)


@pytest.mark.parametrize("count", [1, 100])
def test_sync_covers_files_and_every_folder_made_on_the_way(count: int, tmp_path: Path) -> None:
    system = Recording()
    storage = LocalStorage(tmp_path / "corpus", system)
    folder = tmp_path / "corpus" / "a" / "b"
    storage.make_dir(folder)
    for number in range(count):
        storage.write_new(folder / str(number), b"x")
    storage.write(folder / "durable", b"x", is_durable=True)
    storage.sync()
    changed = [*folder.iterdir(), folder, folder.parent, folder.parent.parent, tmp_path]
    assert {path.stat().st_ino for path in changed} <= system.synced
    system.synced.clear()
    storage.sync()
    assert system.synced == set()


class Ordered(Recording):
    """At the moment of a publication its own file is synchronised, and so is everything in `before`."""

    def __init__(self, before: Iterable[Path] = ()) -> None:
        super().__init__()
        self.before = {path.stat().st_ino for path in before}

    def link(self, old: str, new: str, *, old_dir: int, new_dir: int) -> None:
        assert self.before | {os.stat(old, dir_fd=old_dir).st_ino} <= self.synced
        super().link(old, new, old_dir=old_dir, new_dir=new_dir)


def test_a_published_file_is_durable_before_it_has_its_name(tmp_path: Path) -> None:
    assert LocalStorage(tmp_path, Ordered()).put_if_absent(tmp_path / "new", b"x")


@pytest.mark.parametrize("way", ["put_if_absent", "put_dir_if_absent"])
def test_what_is_published_has_durable_folders_above_it(way: str, tmp_path: Path) -> None:
    system = Recording()
    storage = LocalStorage(tmp_path, system)
    folder = tmp_path / "a" / "b"
    storage.make_dir(folder)
    content = b"x" if way == "put_if_absent" else {"f": b"x"}
    assert getattr(storage, way)(folder / "new", content)
    above = [folder, folder.parent, tmp_path]
    assert {path.stat().st_ino for path in above} <= system.synced


def test_many_files_are_synchronised_with_their_whole_file_system(tmp_path: Path) -> None:
    system = Recording(is_old=False)
    storage = LocalStorage(tmp_path, system)
    for number in range(100):
        storage.write_new(tmp_path / str(number), b"x")
    storage.sync()
    assert system.synced == {-tmp_path.stat().st_dev}


@pytest.mark.parametrize("count", [1, 100])
def test_a_failed_write_back_is_reported(count: int, tmp_path: Path) -> None:
    class Lossy(FileSystem):
        def fsync(self, handle: int) -> None:
            raise OSError(errno.EIO, "lost")

        syncfs = fsync

    storage = LocalStorage(tmp_path, Lossy())
    for number in range(count):
        storage.write_new(tmp_path / str(number), b"x")
    with pytest.raises(OSError, match="lost"):
        storage.sync()


def test_a_pickled_storage_keeps_its_root_and_file_system(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path, Linkless())
    storage.write(tmp_path / "a", b"x")
    other = pickle.loads(pickle.dumps(storage))
    assert other.root == storage.root
    other.write(tmp_path / "b", b"x")
    other.sync()
    assert type(other.system) is Linkless


def test_removing_what_is_gone_is_no_error(tmp_path: Path) -> None:
    DISK.remove(tmp_path / "a")
    DISK.remove_tree(tmp_path / "b")
    DISK.make_dir(tmp_path / "c" / "d")
    DISK.make_dir(tmp_path / "c" / "d")
    DISK.remove_tree(tmp_path / "c")
    assert names(tmp_path) == []
    DISK.sync()


def test_a_root_may_be_named_in_any_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    LocalStorage(Path("real")).write(Path("real") / "a", b"x")
    LocalStorage(Path("real")).write(tmp_path / "real" / "b", b"x")
    LocalStorage(tmp_path / "link").write(tmp_path / "link" / "c", b"x")
    LocalStorage(Path("link")).make_dir(Path("link"))
    assert names(tmp_path / "real") == ["a", "b", "c"]
