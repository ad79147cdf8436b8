"""Objects of a bucket as local files: placeholders, fetching, eviction, changed objects, several processes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapters.containers.hdf5 import Hdf5File
from adapters.containers.raw_file import RangeReader, raw_file_of
from ingest.pipeline.process import Work, guarded
from ingest.raw_data import bucket_source, object_cache, object_tree
from ingest.raw_data.bucket_source import BucketSource, fetch_metadata, listed, reading
from ingest.raw_data.object_cache import ObjectCache
from ingest.raw_data.object_tree import make_placeholder
from ingest.storage.local import LocalStorage
from ingest.storage.object_store import ObjectStore
from ingest.storage.open_store import open_store
from schemas.av_options import open_video
from schemas.errors import Code, ConfigError, SourceError, TransientError
from schemas.regular_file import (
    blocks_of_regular,
    check_regular,
    file_stamp,
    is_placeholder,
    lines_of_regular,
    open_regular,
    read_regular,
)
from tests.faults.runs import run
from tests.faults.toy import write_toy
from tests.pickling import travelled
from tests.s3_server import BUCKET, put_raw

KB = 1000


def content(key: str, size: int = 10 * KB) -> bytes:
    return random.Random(key).randbytes(size)


class Raw:
    """A bucket in memory and a cache folder."""

    def __init__(self, tmp_path: Path) -> None:
        self.uri = f"memory://{tmp_path.parent.name}-{tmp_path.name}/raw/toy"
        store = open_store(self.uri)
        assert isinstance(store, ObjectStore)
        self.store = store
        self.cache = tmp_path / "cache"

    def fill(self, *keys: str, size: int = 10 * KB) -> None:
        for key in keys:
            self.store.put(key, content(key, size))

    def listed(self, max_bytes: int = 10**9) -> BucketSource:
        return listed(self.uri, self.cache, max_bytes).source

    def fetched(self) -> dict[str, int]:
        """Bytes of what is here, by name."""
        files = [path for path in self.cache.glob("trees/**/*") if path.is_file()]
        return {
            path.name: path.stat().st_size
            for path in files
            if not is_placeholder(path.stat()) and path.stat().st_size
        }


@pytest.fixture
def raw(tmp_path: Path) -> Raw:
    return Raw(tmp_path)


def read(root: str | Path, key: str) -> bytes:
    return read_regular(Path(root, key), max_bytes=10**9)


OPENERS: dict[str, Callable[[Path], object]] = {
    "open": lambda path: open_regular(path).close(),
    "check": check_regular,
    "read": lambda path: read_regular(path, max_bytes=10**9),
    "lines": lambda path: list(lines_of_regular(path, max_bytes=10**9, max_line_bytes=10**9)),
    "blocks": lambda path: list(blocks_of_regular(path)),
    "stamp": file_stamp,
    "video": open_video,
    "hdf5": lambda path: Hdf5File(path).__enter__(),
    "range": lambda path: RangeReader(path, 0, 1),
    "fingerprint": lambda path: raw_file_of(path, path.parent),
}


@pytest.mark.parametrize("opener", OPENERS)
def test_a_placeholder_is_never_read(opener: str, tmp_path: Path) -> None:
    """Its zeros would be black pictures, or rows of zeros."""
    path = tmp_path / "a.mp4"
    make_placeholder(path, 10 * KB)
    assert path.is_file()
    assert path.stat().st_size == 10 * KB
    with pytest.raises(SourceError) as caught:
        OPENERS[opener](path)
    assert caught.value.code is Code.UNREADABLE


def test_a_tree_has_the_names_and_sizes_of_the_objects(raw: Raw) -> None:
    raw.fill("meta/info.json", "videos/a b/0.mp4", "ü.bin")
    raw.store.put("empty.txt", b"")
    source = raw.listed()
    root = Path(source.root)
    assert root.name == "toy"
    sizes = {
        path.relative_to(root).as_posix(): path.stat().st_size
        for path in root.rglob("*")
        if path.is_file()
    }
    assert sizes == {
        "meta/info.json": 10 * KB,
        "videos/a b/0.mp4": 10 * KB,
        "ü.bin": 10 * KB,
        "empty.txt": 0,
    }
    assert raw.fetched() == {}
    used = sum(path.stat().st_blocks for path in root.rglob("*") if path.is_file())
    assert used * 512 < 10 * KB


def test_opening_fetches(raw: Raw) -> None:
    raw.fill("a/1.bin", "a/2.bin")
    source = raw.listed()
    with reading(source):
        assert read(source.root, "a/1.bin") == content("a/1.bin")
        assert raw.fetched() == {"1.bin": 10 * KB}
        assert read(source.root, "a/../a/./1.bin") == content("a/1.bin")
        with pytest.raises(SourceError) as caught:
            read(source.root, "a/3.bin")
        assert caught.value.code is Code.MISSING_FILE
    with pytest.raises(SourceError, match="placeholder"):
        read(source.root, "a/2.bin")
    assert read(source.root, "a/1.bin") == content("a/1.bin")  # it is here


def test_files_of_this_machine_are_read_as_ever(raw: Raw, tmp_path: Path) -> None:
    raw.fill("a")
    (tmp_path / "labels.csv").write_bytes(b"1,2")
    with reading(raw.listed()):
        assert read(tmp_path, "labels.csv") == b"1,2"


def test_a_source_that_is_one_object(raw: Raw) -> None:
    raw.fill("a.hdf5", "b.hdf5")
    source = listed(f"{raw.uri}/a.hdf5", raw.cache, 10**9).source
    assert Path(source.root).name == "a.hdf5"
    with reading(source):
        assert read_regular(Path(source.root), max_bytes=10**9) == content("a.hdf5")
    assert [path.name for path in Path(source.root).parent.iterdir()] == ["a.hdf5"]


@pytest.mark.parametrize("number", range(4))
def test_the_cache_never_holds_more_than_it_may(raw: Raw, number: int) -> None:
    keys = [f"{i}.bin" for i in range(12)]
    raw.fill(*keys)
    source = raw.listed(max_bytes=35 * KB)
    order = random.Random(number).choices(keys, k=60)
    for key in order:
        with reading(source):
            assert read(source.root, key) == content(key)
            assert sum(raw.fetched().values()) <= 35 * KB
    assert len(raw.fetched()) == 3


def test_what_was_used_longest_ago_is_evicted(raw: Raw) -> None:
    raw.fill("a", "b", "c", "d")
    source = raw.listed(max_bytes=30 * KB)
    for key in ("a", "b", "c", "a", "d"):
        with reading(source):
            read(source.root, key)
    assert raw.fetched().keys() == {"a", "c", "d"}
    evicted = Path(source.root, "b")
    assert evicted.stat().st_size == 10 * KB
    assert evicted.stat().st_blocks == 0


class AnotherProcess:
    """An executor whose worker has another view of the cache, and needs all of it."""

    name = "another process"

    def __init__(self, source: BucketSource, store: ObjectStore) -> None:
        self.source, self.store = source, store

    def run(self, next_work: Callable[[], Work | None], body: Any) -> Iterator[Any]:
        worker = ObjectCache(Path(self.source.folder), self.source.max_bytes)
        worker.use(self.store, self.source.tree, Path(self.source.root, "large"), "large")
        worker.unpin()
        while (work := next_work()) is not None:
            yield work, guarded(work, LocalStorage())


def test_what_planning_has_opened_takes_no_room_from_workers(
    raw: Raw, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The driver reads until its run ends. It never waits for a file itself, so it never makes room."""
    monkeypatch.setattr(object_cache, "WAIT_S", 0.5)
    written = write_toy(tmp_path / "written", {"a": "quarantine"})
    raw.store.put_file("episodes.json", written / "episodes.json")
    raw.fill("large", size=1000 * KB)
    source = raw.listed(max_bytes=1000 * KB)
    worker = AnotherProcess(source, raw.store)
    with reading(source):
        read(source.root, "episodes.json")  # as to detect the source
        root = Path(source.root)
        tally = run(root, tmp_path / "corpus", executor=worker, bucket=source, uri=raw.uri)  # type: ignore[arg-type]
    assert tally.quarantined == 1


def test_a_file_in_use_is_not_evicted(raw: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_cache, "WAIT_S", 0.3)
    raw.fill("a", "b", "c", "d")
    source = raw.listed(max_bytes=20 * KB)
    other = ObjectCache(raw.cache, 20 * KB)  # as another process has it
    for key in ("a", "b"):
        other.use(raw.store, source.tree, Path(source.root, key), key)
    with reading(source):
        with pytest.raises(TransientError, match="--cache-gb"):
            read(source.root, "c")
        assert raw.fetched().keys() == {"a", "b"}
        other.unpin()
        assert read(source.root, "c") == content("c")
    assert raw.fetched().keys() == {"b", "c"}


def test_an_episode_of_more_files_than_fit_is_read(
    raw: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own files may go, those that were opened just now excepted: an open file stays readable."""
    monkeypatch.setattr(object_cache, "WAIT_S", 0.3)
    keys = [f"{i}" for i in range(9)]
    raw.fill(*keys)
    source = raw.listed(max_bytes=30 * KB)
    with reading(source):
        opened = [open_regular(Path(source.root, key)) for key in keys]
        assert [file.read() for file in opened] == [content(key) for key in keys]
        for file in opened:
            file.close()


def test_an_object_larger_than_the_cache_is_refused(raw: Raw) -> None:
    raw.fill("a")
    source = raw.listed(max_bytes=9 * KB)
    with reading(source), pytest.raises(ConfigError, match="--cache-gb"):
        read(source.root, "a")
    assert raw.fetched() == {}


@pytest.mark.parametrize("change", ["same size", "other size", "deleted"])
def test_an_object_that_changed_since_it_was_listed(raw: Raw, change: str) -> None:
    raw.fill("a", "b")
    source = raw.listed()
    if change == "deleted":
        raw.store.delete("a")
    else:
        raw.store.put("a", content("other", 10 * KB if change == "same size" else 5))
    with reading(source):
        with pytest.raises(TransientError, match="list"):
            read(source.root, "a")
        assert read(source.root, "b") == content("b")
    assert raw.fetched().keys() == {"b"}
    again = raw.listed()
    assert again.tree != source.tree


def test_a_new_listing_fetches_only_what_changed(raw: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
    raw.fill("a", "b", "c")
    source = raw.listed()
    with reading(source):
        for key in ("a", "b"):
            read(source.root, key)
    raw.store.put("b", b"changed")
    end_of_process(source)
    fetched = counted_fetches(monkeypatch)
    again = raw.listed()
    with reading(again):
        assert read(again.root, "a") == content("a")
        assert read(again.root, "b") == b"changed"
        assert read(again.root, "c") == content("c")
    assert fetched == ["b", "c"]
    assert raw.listed() == again


def test_a_tree_that_no_run_reads_goes_when_the_bucket_changes(raw: Raw) -> None:
    raw.fill("a")
    source = raw.listed()
    lock = ObjectCache(raw.cache, 10**9).hold(source.tree)
    raw.fill("b")
    second = raw.listed()
    assert {path.name for path in (raw.cache / "trees").iterdir()} == {source.tree, second.tree}
    os.close(lock)
    assert raw.listed() == second
    assert [path.name for path in (raw.cache / "trees").iterdir()] == [second.tree]


def end_of_process(source: BucketSource) -> None:
    """Let go of a tree, as the kernel does."""
    os.close(bucket_source._opened(source).lock)
    bucket_source._opened.cache_clear()


def counted_fetches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    fetched: list[str] = []
    get_file = ObjectStore.get_file

    def counted(self: ObjectStore, key: str, path: Path, *, e_tag: str | None = None) -> str:
        fetched.append(key)
        return get_file(self, key, path, e_tag=e_tag)

    monkeypatch.setattr(ObjectStore, "get_file", counted)
    return fetched


def test_threads_that_open_one_file_fetch_it_once(
    raw: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw.fill("a")
    source = raw.listed()
    fetched = counted_fetches(monkeypatch)
    with reading(source), ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: read(source.root, "a"), range(16)))
    assert set(results) == {content("a")}
    assert fetched == ["a"]


def test_metadata_is_fetched_before_planning(raw: Raw) -> None:
    raw.fill("meta/info.json", "meta/EPISODES.JSONL", "a.mp4")
    bucket = listed(raw.uri, raw.cache, 10**9)
    done: list[int] = []
    fetch_metadata(bucket, done.append)
    assert raw.fetched().keys() == {"info.json", "EPISODES.JSONL"}
    assert done == [1, 2]
    assert (bucket.num_objects, bucket.num_bytes) == (3, 30 * KB)


def test_much_metadata_is_fetched_as_it_is_read(raw: Raw) -> None:
    raw.fill(*(f"{i}.json" for i in range(10)))
    assert listed(raw.uri, raw.cache, 400 * KB).metadata
    assert not listed(raw.uri, raw.cache, 399 * KB).metadata


def test_a_download_that_fails_leaves_nothing(raw: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
    raw.fill("a", "b")
    source = raw.listed(max_bytes=10 * KB)

    def failing(self: ObjectStore, key: str, path: Path, *, e_tag: str | None = None) -> str:
        path.write_bytes(b"half")
        raise TransientError("no answer")

    with monkeypatch.context() as patched, reading(source):
        patched.setattr(ObjectStore, "get_file", failing)
        with pytest.raises(TransientError, match="no answer"):
            read(source.root, "a")
    assert raw.fetched() == {}
    assert [path.name for path in raw.cache.glob("tmp/*/*")] == ["lock"]
    with reading(source):
        assert read(source.root, "b") == content("b")


def test_a_full_disk_is_no_fault_of_the_data(raw: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
    raw.fill("a")
    source = raw.listed()

    def full(self: ObjectStore, key: str, path: Path, *, e_tag: str | None = None) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ObjectStore, "get_file", full)
    with reading(source), pytest.raises(TransientError, match="the disk of the cache is full"):
        read(source.root, "a")


def test_a_source_goes_to_another_process(raw: Raw) -> None:
    raw.fill("a")
    source = travelled(raw.listed())
    with reading(source):
        assert read(source.root, "a") == content("a")


def test_another_machine_lists_again_and_compares(raw: Raw, tmp_path: Path) -> None:
    raw.fill("a")
    source = raw.listed()
    elsewhere = tmp_path / "node"
    root = source.root.replace(str(raw.cache), str(elsewhere))
    node = replace(source, folder=str(elsewhere), root=root)
    with reading(node):
        assert read(node.root, "a") == content("a")
    late = replace(node, folder=str(tmp_path / "late"))
    raw.fill("b")
    with pytest.raises(TransientError, match="changed since the run was planned"), reading(late):
        pass


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (["a", "a/b"], "is an object and a folder"),
        (["x" * 256], "too long or too many"),
        (["/".join("x" * 65)], "too long or too many"),
    ],
)
def test_keys_that_cannot_be_files_are_refused(raw: Raw, keys: list[str], words: str) -> None:
    raw.fill(*keys)
    with pytest.raises(ConfigError, match=words):
        raw.listed()
    assert not raw.cache.exists()


def test_an_empty_object_that_marks_a_folder_is_left_out(raw: Raw) -> None:
    raw.fill("a/b")
    raw.store.put("a", b"")
    source = raw.listed()
    with reading(source):
        assert read(source.root, "a/b") == content("a/b")


def test_keys_that_differ_in_case_are_two_files(raw: Raw) -> None:
    raw.fill("a/B", "a/b", "A/b")
    source = raw.listed()
    with reading(source):
        for key in ("a/B", "a/b", "A/b"):
            assert read(source.root, key) == content(key)


def test_a_second_object_of_a_name_is_refused(tmp_path: Path) -> None:
    """As on a file system that ignores case."""
    make_placeholder(tmp_path / "a", 1)
    with pytest.raises(ConfigError, match="case"):
        make_placeholder(tmp_path / "a", 1)


def test_a_size_that_no_file_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot hold a file"):
        make_placeholder(tmp_path / "a", 2**63 - 1)


def test_too_many_objects_are_refused(raw: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
    raw.fill("a", "b", "c", size=1)
    monkeypatch.setattr(object_tree, "MAX_OBJECTS", 2)
    with pytest.raises(ConfigError, match="more than 2 objects"):
        raw.listed()


def test_nothing_there(raw: Raw) -> None:
    with pytest.raises(ConfigError, match="no object is there"):
        raw.listed()


def test_a_folder_that_cannot_be_written_is_refused(raw: Raw, tmp_path: Path) -> None:
    raw.fill("a")
    (tmp_path / "cache").write_bytes(b"")
    with pytest.raises(ConfigError, match="--cache-dir"):
        raw.listed()


# --- several processes ------------------------------------------------------------------------------------------------

READER = """
import random, sys
from pathlib import Path
from ingest.raw_data.bucket_source import listed, reading
from schemas.regular_file import read_regular

uri, cache, max_bytes, seed = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
source = listed(uri, cache, max_bytes).source
print("ready", flush=True)
rng = random.Random(seed)
for _ in range(int(sys.argv[5])):
    key = f"{rng.randrange(20)}.bin"
    with reading(source):
        data = read_regular(Path(source.root, key), max_bytes=10**9)
    assert data == random.Random(key).randbytes(10_000), key
"""


@contextmanager
def reader(cache: Path, uri: str, seed: int, turns: int) -> Iterator[subprocess.Popen[str]]:
    words = [sys.executable, "-c", READER, uri, str(cache), str(50 * KB), str(seed), str(turns)]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        words, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_processes_share_a_cache_and_one_may_be_killed(s3_server: str, tmp_path: Path) -> None:
    uri = f"s3://{BUCKET}/{tmp_path.name}/shared"
    store = open_store(uri)
    for number in range(20):
        store.put(f"{number}.bin", content(f"{number}.bin"))
    cache = tmp_path / "cache"
    most = 0
    with (
        reader(cache, uri, 1, 150) as one,
        reader(cache, uri, 2, 150) as two,
        reader(cache, uri, 3, 10**6) as victim,
    ):
        assert victim.stdout is not None
        assert victim.stdout.readline() == "ready\n"
        time.sleep(0.5)
        victim.send_signal(signal.SIGKILL)
        watch = threading.Event()
        while one.poll() is None or two.poll() is None:
            most = max(most, fetched_bytes(cache))
            watch.wait(0.02)
        for each in (one, two):
            _, errors = each.communicate()
            assert each.returncode == 0, errors
    assert 0 < most <= 50 * KB
    source = listed(uri, cache, 50 * KB).source
    with reading(source):  # what the killed process held is free again
        for number in range(20):
            assert read(source.root, f"{number}.bin") == content(f"{number}.bin")
    bucket_source._cache_in.cache_clear()


def fetched_bytes(cache: Path) -> int:
    total = 0
    for path in cache.glob("trees/*/*/*.bin"):
        status = path.lstat()
        total += 0 if is_placeholder(status) else status.st_size
    return total


@pytest.mark.slow
@pytest.mark.parametrize("key", ["%2E%2E/x", "/x", "a/%2E/x"])
def test_a_bucket_with_a_hostile_key_makes_no_file(
    s3_server: str, key: str, tmp_path: Path
) -> None:
    prefix = f"{tmp_path.parent.name}/{tmp_path.name}"
    put_raw(s3_server, f"{prefix}/{key}", b"1")
    with pytest.raises(ConfigError, match="no path"):
        listed(f"s3://{BUCKET}/{prefix}", tmp_path / "cache", 10**9)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_folder_that_a_console_made_is_no_file(s3_server: str, tmp_path: Path) -> None:
    prefix = f"{tmp_path.parent.name}/{tmp_path.name}"
    put_raw(s3_server, f"{prefix}/a/", b"")
    put_raw(s3_server, f"{prefix}/a/b", b"1")
    source = listed(f"s3://{BUCKET}/{prefix}", tmp_path / "cache", 10**9).source
    with reading(source):
        assert read(source.root, "a/b") == b"1"
