"""What every `Store` does; a new one joins STORES. Below that, what only the local one has to do."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import pytest

from ingest.storage.local import LocalStorage
from ingest.storage.object_store import PART_BYTES, ObjectStore
from ingest.storage.open_store import open_store, probe
from ingest.storage.store import Store
from schemas.errors import Code, InvariantError, SourceError
from schemas.paths import OutsideCorpus
from tests.s3_server import BUCKET

# Name -> what opens the store at a place. Each thread and each process opens its own.
STORES: dict[str, Callable[[Path], Store]] = {
    "local": lambda place: LocalStorage(place / "corpus"),
    "memory": lambda place: open_store(f"memory://{place.name}/corpus"),
    "s3": lambda place: open_store(f"s3://{BUCKET}/{place.name}/corpus"),
}


@pytest.fixture(params=["local", "memory", pytest.param("s3", marks=pytest.mark.slow)])
def opened(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], Store]:
    if request.param == "s3":
        request.getfixturevalue("s3_server")
    place = tmp_path_factory.mktemp("store")  # its name is new: the bucket is shared
    return lambda: STORES[request.param](place)


@pytest.fixture
def stores(opened: Callable[[], Store]) -> tuple[Store, Store]:
    return opened(), opened()


@pytest.fixture
def store(stores: tuple[Store, Store]) -> Store:
    return stores[0]


def read(store: Store, key: str) -> bytes:
    return store.get(key, max_bytes=1000)


def test_what_was_put_is_read_by_another(stores: tuple[Store, Store]) -> None:
    one, other = stores
    one.put("a/b/c.json", b"{}")
    assert read(other, "a/b/c.json") == b"{}"
    other.put("a/b/c.json", b"", is_durable=True)
    assert read(one, "a/b/c.json") == b""


def test_a_missing_object_is_reported(store: Store, tmp_path: Path) -> None:
    store.put("a/b", b"1")
    for key in ("c", "a/c", "a/b/c"):
        with pytest.raises(SourceError) as caught:
            read(store, key)
        assert caught.value.code is Code.MISSING_FILE
        for operation in (
            lambda: store.range(key, 0, 1),  # noqa: B023
            lambda: store.range(key, 0, 0),  # noqa: B023
            lambda: store.copy(key, "d"),  # noqa: B023
            lambda: store.get_file(key, tmp_path / "d"),  # noqa: B023
        ):
            with pytest.raises(SourceError) as caught:
                operation()
            assert caught.value.code is Code.MISSING_FILE
        assert store.size(key) is None
    assert store.list("") == ["a/b"]
    assert list(tmp_path.iterdir()) == []


def test_an_object_over_the_limit_is_refused(store: Store) -> None:
    store.put("a", b"12345")
    assert store.get("a", max_bytes=5) == b"12345"
    with pytest.raises(SourceError) as caught:
        store.get("a", max_bytes=4)
    assert caught.value.code is Code.TOO_LARGE


def test_a_range_ends_with_the_object(store: Store) -> None:
    store.put("a", b"0123456789")
    assert store.range("a", 2, 3) == b"234"
    assert store.range("a", 8, 5) == b"89"
    assert store.range("a", 10, 5) == b""
    assert store.range("a", 99, 5) == b""
    assert store.range("a", 0, 0) == b""


def test_create_leaves_what_is_there(stores: tuple[Store, Store]) -> None:
    one, other = stores
    assert one.create("n/1.json", b"one")
    assert not other.create("n/1.json", b"two")
    assert read(other, "n/1.json") == b"one"
    one.delete("n/1.json")
    assert other.create("n/1.json", b"two")


def test_one_of_many_creates(opened: Callable[[], Store], store: Store) -> None:
    names = [f"{number}".encode() for number in range(16)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda name: opened().create("n/1", name), names))
    assert sum(answers) == 1
    assert read(store, "n/1") == names[answers.index(True)]
    assert store.list("n") == ["n/1"]


def test_keys_are_listed_below_a_folder(store: Store) -> None:
    for key in ("b", "a/2", "a/10", "a/x/1", "ab/1"):
        store.put(key, b"")
    assert store.list("a") == ["a/10", "a/2", "a/x/1"]
    assert store.list("a/x") == ["a/x/1"]
    assert store.list("") == ["a/10", "a/2", "a/x/1", "ab/1", "b"]
    assert store.list("none") == []


def test_keys_behind_another_are_listed(store: Store) -> None:
    for key in ("a/1", "a/10", "a/2", "a/3/x", "b"):
        store.put(key, b"")
    assert store.list("a", after="a/10") == ["a/2", "a/3/x"]
    assert store.list("a", after="a/15") == ["a/2", "a/3/x"]
    assert store.list("", after="a/3/x") == ["b"]
    assert store.list("", after="b") == []


@pytest.mark.parametrize("key", ["a b/c%20d", "ü/é#?", "a+b=c&d", "a~b[1]", "a:b*", "episode=1/x"])
def test_a_key_keeps_its_letters(store: Store, key: str) -> None:
    assert store.create(key, b"1")
    assert not store.create(key, b"2")
    assert store.list("") == [key]
    assert read(store, key) == b"1"


def test_the_size_of_an_object(store: Store) -> None:
    store.put("a/b", b"123")
    store.put("c", b"")
    assert store.size("a/b") == 3
    assert store.size("c") == 0
    assert store.size("a") is None


def test_a_copy_is_an_object_of_its_own(stores: tuple[Store, Store]) -> None:
    one, other = stores
    one.put("a/b", b"old")
    one.put("c/d", b"replaced")
    one.copy("a/b", "c/d")
    one.put("a/b", b"new")
    one.sync()
    assert read(other, "c/d") == b"old"
    one.delete("a/b")
    assert other.list("") == ["c/d"]
    assert read(other, "c/d") == b"old"


@pytest.mark.parametrize("size", [0, 1, PART_BYTES, 2 * PART_BYTES + 1])
def test_a_file_goes_and_comes_back(store: Store, tmp_path: Path, size: int) -> None:
    sent = random.Random(size).randbytes(size)
    (tmp_path / "sent").write_bytes(sent)
    (tmp_path / "back").write_bytes(b"replaced")
    store.put_file("videos/a.mp4", tmp_path / "sent")
    assert store.size("videos/a.mp4") == size
    assert store.get_file("videos/a.mp4", tmp_path / "back") == sha256(sent).hexdigest()
    assert (tmp_path / "back").read_bytes() == sent
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "sent"]
    store.copy("videos/a.mp4", "b")
    assert store.range("b", size - 1 if size else 0, 9) == sent[-1:]


def test_a_copy_is_made_only_where_nothing_is(stores: tuple[Store, Store]) -> None:
    one, other = stores
    if not isinstance(one, ObjectStore) or not isinstance(other, ObjectStore):
        pytest.skip("NOT RUN: files of this machine are linked")
    one.put("a", b"first")
    one.put("b", b"second")
    assert one.create_copy("a", "d/c") is True
    assert other.create_copy("b", "d/c") is False
    assert read(other, "d/c") == b"first"
    assert one.sha256("d/c") == sha256(b"first").hexdigest()
    with pytest.raises(SourceError, match="missing"):
        one.create_copy("none", "e")
    with pytest.raises(SourceError, match="missing"):
        one.sha256("e")


def test_many_objects_are_deleted(stores: tuple[Store, Store]) -> None:
    one, other = stores
    if not isinstance(one, ObjectStore):
        pytest.skip("NOT RUN: only of buckets")
    keys = [f"k/{number}" for number in range(5)]
    for key in keys:
        one.put(key, b"x")
    one.delete_all([*keys, "never/there"])
    one.delete_all([])
    assert other.list("") == []


def test_a_file_that_is_missing_is_not_sent(store: Store, tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        store.put_file("a", tmp_path / "none")
    assert caught.value.code is Code.MISSING_FILE
    assert store.list("") == []


def test_a_file_that_another_thread_gets_too_is_whole(
    opened: Callable[[], Store], tmp_path: Path
) -> None:
    opened().put("a", b"1" * 100_000)
    wanted = sha256(b"1" * 100_000).hexdigest()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: opened().get_file("a", tmp_path / "b"), range(16)))
    assert set(answers) == {wanted}
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    assert (tmp_path / "b").read_bytes() == b"1" * 100_000


def test_a_store_that_can_commit_passes_the_probe(store: Store) -> None:
    store.put("a", b"1")
    probe(store)
    assert store.list("") == ["a"]


def test_delete_twice_is_no_error(store: Store) -> None:
    store.put("a/b", b"")
    store.delete("a/b")
    store.delete("a/b")
    store.delete("none/b")
    assert store.list("") == []


def test_sync_after_each_kind_of_change(store: Store) -> None:
    store.put("a", b"1")
    store.create("b", b"2")
    store.delete("a")
    store.sync()
    assert store.list("") == ["b"]


@pytest.mark.parametrize("key", ["/a", "../a", "a/../../b", "a//b", "a/", ".", "a/./b", "a\0b"])
def test_a_key_that_leads_out_is_refused(store: Store, key: str, tmp_path: Path) -> None:
    store.put("a/b", b"")
    (tmp_path / "file").write_bytes(b"")
    operations: list[Callable[[], object]] = [
        lambda: store.size(key),
        lambda: store.copy("a/b", key),
        lambda: store.copy(key, "c"),
        lambda: store.put_file(key, tmp_path / "file"),
        lambda: store.get_file(key, tmp_path / "other"),
        lambda: read(store, key),
        lambda: store.range(key, 0, 1),
        lambda: store.put(key, b"1"),
        lambda: store.create(key, b"1"),
        lambda: store.list(key),
        lambda: store.delete(key),
    ]
    for operation in operations:
        with pytest.raises(OutsideCorpus):
            operation()
    assert store.list("") == ["a/b"]


# --- the local one ----------------------------------------------------------------------------------------------------


def test_a_link_is_refused(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("secret")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "folder").symlink_to(outside)
    (corpus / "file").symlink_to(outside / "file")
    os.mkfifo(corpus / "pipe")
    store = LocalStorage(corpus)
    for key in ("file", "folder/file", "pipe"):
        for operation in (lambda: read(store, key), lambda: store.put(key, b"1")):  # noqa: B023
            with pytest.raises(OutsideCorpus):
                operation()
        with pytest.raises(OutsideCorpus):
            store.list("")
        (corpus / key.partition("/")[0]).unlink()
    assert store.list("") == []
    assert (outside / "file").read_text() == "secret"


def test_what_is_being_written_has_no_key(tmp_path: Path) -> None:
    store = LocalStorage(tmp_path)
    with store.atomic_writer(tmp_path / "a") as file:
        file.write(b"half")
        file.flush()
        assert store.list("") == []
    assert store.list("") == ["a"]


def test_a_storage_of_the_whole_machine_has_no_keys() -> None:
    """A key would be a path below `/`."""
    for operation in (lambda s: s.put("a/b", b""), lambda s: read(s, "a/b"), lambda s: s.list("")):
        with pytest.raises(InvariantError):
            operation(LocalStorage())


def test_a_library_gets_a_path(tmp_path: Path) -> None:
    store = LocalStorage(tmp_path)
    store.put("videos/a.mp4", b"1")
    assert store.local_path("videos/a.mp4") == tmp_path / "videos/a.mp4"
    with pytest.raises(OutsideCorpus):
        store.local_path("../a.mp4")
