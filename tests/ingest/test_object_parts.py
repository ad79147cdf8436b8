"""Archives in a bucket of which members are read: what is downloaded, what is counted, and what happens when the object changes."""

from __future__ import annotations

import io
import json
import os
import random
import struct
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from adapters.containers import raw_file, zarr_store
from adapters.containers.tar_shard import tar_members
from adapters.containers.zarr_store import ZarrStore
from adapters.registry import adapter_for
from ingest.raw_data import bucket_source, object_cache, object_parts
from ingest.raw_data.bucket_source import BucketSource, listed, reading
from ingest.raw_data.object_cache import ObjectCache
from ingest.raw_data.object_tree import StoredObject
from ingest.storage.object_store import ObjectStore
from ingest.storage.open_store import open_store
from jobs.demo.raw.scene import Scene
from schemas.errors import ConfigError, TransientError
from schemas.regular_file import file_stamp, is_in_parts, open_regular, read_regular
from tests.faults.runs import facts, run, tree
from tests.generators import egocentric_10k, umi
from tests.generators.tar_shards import scene_bytes, write_tar
from tests.s3_server import BUCKET

MB = 1_000_000
KB = 1000


class Counted:
    """Bytes and requests of parts, and objects that were fetched whole."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.num_bytes, self.num_requests, self.whole = 0, 0, list[str]()
        ranges, get_file = ObjectStore.ranges, ObjectStore.get_file

        def counted_ranges(
            store: ObjectStore, key: str, spans: Sequence[tuple[int, int]], *, size: int, e_tag: str
        ) -> Iterator[bytes]:
            for data in ranges(store, key, spans, size=size, e_tag=e_tag):
                self.num_bytes += len(data)
                self.num_requests += 1
                yield data

        def counted_file(
            store: ObjectStore, key: str, path: Path, *, e_tag: str | None = None
        ) -> str:
            self.whole.append(key)
            return get_file(store, key, path, e_tag=e_tag)

        monkeypatch.setattr(ObjectStore, "ranges", counted_ranges)
        monkeypatch.setattr(ObjectStore, "get_file", counted_file)

    def taken(self) -> int:
        """Bytes since the last time."""
        num_bytes, self.num_bytes = self.num_bytes, 0
        return num_bytes


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(monkeypatch)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 1 kB."""
    sizes = {"WHOLE_BYTES": 0, "BLOCK_BYTES": KB, "GAP_BYTES": 4 * KB, "MOST_BYTES": 32 * KB}
    for name, value in (sizes | {"PART_BYTES": 8 * KB}).items():
        monkeypatch.setattr(object_parts, name, value)


def one_object(tmp_path: Path, data: bytes, max_bytes: int = 10**9) -> BucketSource:
    uri = f"memory://{tmp_path.parent.name}-{tmp_path.name}/raw"
    open_store(uri).put("a.tar", data)
    return listed(uri, tmp_path / "cache", max_bytes).source


def used_bytes(source: BucketSource) -> int:
    cache = bucket_source._cache_in(source.folder, source.max_bytes)
    (row,) = cache._rows("SELECT (SELECT bytes FROM usage), (SELECT sum(bytes) FROM files)")
    assert row[0] == (row[1] or 0)
    return int(row[0])


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("seed", range(6))
def test_reads_anywhere_give_the_bytes_of_the_object(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    data = rng.randbytes(100 * KB + rng.randrange(2 * KB))
    source = one_object(tmp_path, data)
    with reading(source):
        for _ in range(8):
            with open_regular(
                Path(source.root, "a.tar"), in_parts=True, buffering=rng.choice([-1, 0])
            ) as file:
                for _ in range(rng.randrange(12)):
                    start, length = rng.randrange(len(data) + 10), rng.randrange(9 * KB)
                    file.seek(start)
                    assert file.read(length) == data[start : start + length]
    assert used_bytes(source) <= len(data)


@pytest.mark.usefixtures("small")
def test_only_what_is_read_is_fetched_and_once(tmp_path: Path, counted: Counted) -> None:
    data = random.Random(0).randbytes(100 * KB)
    source = one_object(tmp_path, data)
    path = Path(source.root, "a.tar")
    with reading(source):
        assert is_in_parts(path)
        for _ in range(2):
            with open_regular(path, in_parts=True, buffering=0) as file:
                for at in (50 * KB + 10, 80 * KB, 10):
                    file.seek(at)
                    assert file.read(100) == data[at : at + 100]
    assert (counted.num_bytes, counted.num_requests, counted.whole) == (3 * KB, 3, [])
    assert used_bytes(source) == 3 * KB


@pytest.mark.usefixtures("small")
def test_reading_on_fetches_more_at_a_time_and_never_behind_the_end(
    tmp_path: Path, counted: Counted
) -> None:
    data = random.Random(0).randbytes(100 * KB)
    source = one_object(tmp_path, data)
    with (
        reading(source),
        open_regular(
            Path(source.root, "a.tar"), in_parts=True, buffering=0, end=90 * KB - 5
        ) as file,
    ):
        got = b"".join(iter(lambda: file.read(500), b""))[: 90 * KB]
        assert got == data[: 90 * KB]
        assert counted.num_bytes == 100 * KB  # this reader did read on
        assert counted.num_requests < 30
    counted.num_bytes = 0
    other = one_object(tmp_path / "b", data)
    with (
        reading(other),
        open_regular(
            Path(other.root, "a.tar"), in_parts=True, buffering=0, end=90 * KB - 5
        ) as file,
    ):
        while file.tell() < 90 * KB - 5:
            file.read(min(500, 90 * KB - 5 - file.tell()))
    assert counted.num_bytes == 90 * KB


@pytest.mark.usefixtures("small")
def test_a_walk_over_small_members_takes_as_many_requests_as_the_whole(
    tmp_path: Path, counted: Counted
) -> None:
    shard = write_tar(tmp_path / "a.tar", {f"{k}.json": b"x" * 700 for k in range(150)})
    source = one_object(tmp_path, shard.read_bytes())
    with reading(source):
        assert len(list(tar_members(Path(source.root, "a.tar")))) == 150
    size = shard.stat().st_size
    assert counted.num_bytes <= size
    assert counted.num_requests <= size / (8 * KB) + 8


@pytest.mark.usefixtures("small")
def test_an_object_that_changes_between_two_reads(tmp_path: Path) -> None:
    data = random.Random(0).randbytes(100 * KB)
    source = one_object(tmp_path, data)
    path = Path(source.root, "a.tar")
    with reading(source), open_regular(path, in_parts=True, buffering=0) as file:
        assert file.read(10) == data[:10]
        store = open_store(source.uri)
        store.put("a.tar", random.Random(1).randbytes(100 * KB))
        file.seek(50 * KB)
        with pytest.raises(TransientError, match="changed since it was listed"):
            file.read(10)
        file.seek(20)
        assert file.read(10) == data[20:30]
        store.delete("a.tar")
        file.seek(50 * KB)
        with pytest.raises(TransientError, match="deleted since it was listed"):
            file.read(10)


@pytest.mark.usefixtures("small")
def test_parts_are_bounded_and_evicted_beside_whole_files(tmp_path: Path) -> None:
    data = random.Random(0).randbytes(100 * KB)
    source = one_object(tmp_path, data, max_bytes=40 * KB)
    store = open_store(source.uri)
    for key in ("b", "c"):
        store.put(key, data[: 30 * KB])
    source = listed(source.uri, tmp_path / "cache", 40 * KB).source
    path = Path(source.root, "a.tar")
    with reading(source), open_regular(path, in_parts=True, buffering=0) as file:
        assert file.read(20 * KB) == data[: 20 * KB]
    assert used_bytes(source) == 20 * KB
    with reading(source):
        assert read_regular(Path(source.root, "b"), max_bytes=MB) == data[: 30 * KB]
    assert used_bytes(source) == 30 * KB  # the parts went
    assert not list((tmp_path / "cache" / "parts").glob("*/*/*"))
    with (
        reading(source),
        open_regular(path, in_parts=True) as file,
        pytest.raises(ConfigError, match="--cache-gb"),
    ):
        file.read()
    assert used_bytes(source) <= 40 * KB


@pytest.mark.usefixtures("small")
def test_a_reader_goes_on_after_its_parts_were_evicted(tmp_path: Path) -> None:
    data = random.Random(0).randbytes(100 * KB)
    source = one_object(tmp_path, data)
    cache = bucket_source._cache_in(source.folder, source.max_bytes)
    path = Path(source.root, "a.tar")
    with reading(source), open_regular(path, in_parts=True, buffering=0) as file:
        assert file.read(10) == data[:10]
        cache.unpin()
        other = ObjectCache(Path(source.folder), 0)
        assert other._is_evicted(source.tree, f"a.tar{object_cache.PARTS}", 0)
        file.seek(60 * KB)
        assert file.read(10) == data[60 * KB : 60 * KB + 10]
        assert not other._is_evicted(source.tree, f"a.tar{object_cache.PARTS}", 0)  # in use
        cache.unpin()
        assert other._is_evicted(source.tree, f"a.tar{object_cache.PARTS}", 0)
        file.seek(60 * KB)  # of which only the first block was here
        assert file.read(4 * KB) == data[60 * KB : 64 * KB]
        file.seek(0)
        assert file.read() == data


@pytest.mark.usefixtures("small")
def test_a_file_that_is_fetched_whole_takes_the_place_of_its_parts(tmp_path: Path) -> None:
    data = random.Random(0).randbytes(100 * KB)
    source = one_object(tmp_path, data)
    path = Path(source.root, "a.tar")
    with reading(source):
        with open_regular(path, in_parts=True) as file:
            file.read(10)
        stamp = file_stamp(path, in_parts=True)
        bucket_source._cache_in(source.folder, source.max_bytes).unpin()
        assert read_regular(path, max_bytes=MB) == data
        assert not is_in_parts(path)
        assert file_stamp(path, in_parts=True) != stamp
    assert used_bytes(source) == 100 * KB
    assert not list((tmp_path / "cache" / "parts").glob("*/*/*"))


@pytest.mark.usefixtures("small")
def test_parts_of_an_earlier_start_of_the_machine_are_not_believed(tmp_path: Path) -> None:
    """After a power cut a block may be marked and not written."""
    data = random.Random(0).randbytes(100 * KB)
    source = one_object(tmp_path, data)
    with reading(source), open_regular(Path(source.root, "a.tar"), in_parts=True) as file:
        file.read(10)
    (start,) = (tmp_path / "cache" / "parts").iterdir()
    start.rename(start.with_name("earlier"))
    again = ObjectCache(tmp_path / "cache", 10**9)
    assert [path.name for path in (tmp_path / "cache" / "parts").iterdir()] == [start.name]
    assert again._rows("SELECT bytes FROM usage") == [(0,)]


@pytest.mark.parametrize("boot_id", [None, b"", b"\xff../.."])
def test_without_a_name_of_the_start_parts_last_while_the_cache_is_open(
    boot_id: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_cache, "BOOT_ID", tmp_path / "boot_id")
    if boot_id is not None:
        (tmp_path / "boot_id").write_bytes(boot_id)
    folder = tmp_path / "cache"

    def parts() -> list[str]:
        return [path.name for path in (folder / "parts").glob("*/t/*")]

    one = ObjectCache(folder, 10**9)
    os.close(one.opened_parts("t", "a.tar", 9))
    one.reserve_more("t", StoredObject("a.tar", 9, ""), 9)
    made = parts()
    assert len(made) == 1
    other = ObjectCache(folder, 10**9)
    assert parts() == made
    for each in (one, other):  # as the kernel does for a process that ends
        os.close(each._parts_lock)
    again = ObjectCache(folder, 10**9)
    assert parts() == []
    assert again._rows("SELECT bytes FROM usage") == [(0,)]
    os.close(again._parts_lock)


@pytest.mark.usefixtures("small")
def test_a_new_listing_keeps_the_parts_of_what_is_the_same(
    tmp_path: Path, counted: Counted
) -> None:
    data = random.Random(0).randbytes(100 * KB)
    source = one_object(tmp_path, data)
    with reading(source), open_regular(Path(source.root, "a.tar"), in_parts=True) as file:
        file.read(10)
    bucket_source._opened(source).cache.unpin()
    os.close(bucket_source._opened(source).lock)
    bucket_source._opened.cache_clear()
    open_store(source.uri).put("b", b"new")
    again = listed(source.uri, tmp_path / "cache", 10**9).source
    assert again.tree != source.tree
    counted.taken()
    with reading(again), open_regular(Path(again.root, "a.tar"), in_parts=True) as file:
        assert file.read(10) == data[:10]
    assert counted.num_bytes == 0
    assert [path.parent.name for path in (tmp_path / "cache/parts").glob("*/*/*")] == [again.tree]
    assert used_bytes(again) > 0


@pytest.mark.usefixtures("small")
def test_threads_that_read_one_object_fetch_a_block_once(tmp_path: Path, counted: Counted) -> None:
    data = random.Random(0).randbytes(100 * KB)
    source = one_object(tmp_path, data)
    ready = threading.Barrier(8)

    def read_some(_: int) -> bytes:
        with open_regular(Path(source.root, "a.tar"), in_parts=True, buffering=0) as file:
            ready.wait(30)
            return file.read(KB)

    with reading(source), ThreadPoolExecutor(8) as pool:
        assert set(pool.map(read_some, range(8))) == {data[:KB]}
    assert counted.num_bytes == KB


@pytest.mark.usefixtures("small")
def test_threads_that_read_overlapping_parts_count_and_fetch_a_block_once(
    tmp_path: Path, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache has room for the object and half of it again: counted once, it fits."""
    ranges = ObjectStore.ranges

    def slow(*words: Any, **named: Any) -> Iterator[bytes]:
        threading.Event().wait(0.1)  # what others read meanwhile is not here yet
        yield from ranges(*words, **named)

    monkeypatch.setattr(ObjectStore, "ranges", slow)
    data = random.Random(0).randbytes(64 * KB)
    source = one_object(tmp_path, data, max_bytes=96 * KB)
    ready = threading.Barrier(8)

    def read_from(at: int) -> bool:
        with open_regular(Path(source.root, "a.tar"), in_parts=True, buffering=0) as file:
            ready.wait(30)
            file.seek(at)
            return file.read(40 * KB) == data[at : at + 40 * KB]

    with reading(source), ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read_from, range(0, 8 * KB, KB)))
    assert counted.num_bytes == used_bytes(source) == 47 * KB


@pytest.mark.usefixtures("small")
def test_an_object_never_counts_for_more_than_its_size(tmp_path: Path) -> None:
    """A download that failed, or parts that were evicted, are fetched again."""
    source = one_object(tmp_path, bytes(64 * KB), max_bytes=96 * KB)
    cache = bucket_source._cache_in(source.folder, source.max_bytes)
    listed_object, _ = cache.listed_object(source.tree, "a.tar")
    for _ in range(3):
        cache.reserve_more(source.tree, listed_object, 40 * KB)
    assert used_bytes(source) == 64 * KB


def test_a_small_object_is_fetched_whole(tmp_path: Path, counted: Counted) -> None:
    source = one_object(tmp_path, b"x" * 100 * KB)
    with reading(source), open_regular(Path(source.root, "a.tar"), in_parts=True) as file:
        assert file.read() == b"x" * 100 * KB
    assert (counted.num_bytes, counted.whole) == (0, ["a.tar"])


READER = """
import random, sys
from pathlib import Path
from ingest.raw_data import object_parts
from ingest.raw_data.bucket_source import listed, reading
from schemas.regular_file import open_regular

object_parts.WHOLE_BYTES, object_parts.BLOCK_BYTES = 0, 1000
object_parts.GAP_BYTES, object_parts.MOST_BYTES = 2000, 8000
uri, cache, seed = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
source = listed(uri, cache, 50_000).source
print("ready", flush=True)
rng = random.Random(seed)
for _ in range(int(sys.argv[4])):
    key = f"{rng.randrange(20)}.bin"
    data = random.Random(key).randbytes(15_000)
    with reading(source), open_regular(Path(source.root, key), in_parts=True, buffering=0) as file:
        for _ in range(3):
            at, length = rng.randrange(15_000), rng.randrange(1, 5_000)
            file.seek(at)
            assert file.read(length) == data[at : at + length], (key, at)
"""


@pytest.mark.slow
def test_processes_read_parts_of_the_same_objects_and_one_may_be_killed(
    s3_server: str, tmp_path: Path
) -> None:
    uri, cache = f"s3://{BUCKET}/{tmp_path.name}/parts", tmp_path / "cache"
    store = open_store(uri)
    for number in range(20):
        store.put(f"{number}.bin", random.Random(f"{number}.bin").randbytes(15 * KB))
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", READER, uri, str(cache), str(seed), str(turns)],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed, turns in ((1, 60), (2, 60), (3, 10**6))
    ]
    *readers, victim = started
    try:
        assert victim.stdout is not None
        assert victim.stdout.readline() == "ready\n"
        threading.Event().wait(0.5)
        victim.kill()
        for each in readers:
            _, errors = each.communicate(timeout=300)
            assert each.returncode == 0, errors
    finally:
        for each in started:
            each.kill()
            each.communicate()
    source = listed(uri, cache, 50 * KB).source
    assert used_bytes(source) <= 50 * KB
    bucket_source._cache_in.cache_clear()


# --- archives ---------------------------------------------------------------------------------------------------------


def padded(video: bytes, size: int, seed: int) -> bytes:
    """An MP4 of this size: a `free` box behind it."""
    rest = size - len(video) - 8
    return video + struct.pack(">I4s", rest + 8, b"free") + random.Random(seed).randbytes(rest)


def write_shard(root: Path, count: int, size: int) -> Path:
    """Egocentric-10K with one shard of large videos."""
    files = {}
    for k in range(count):
        name = f"factory001_worker001_{k:05d}"
        video = scene_bytes(Scene(seed=k, duration_s=2.0, width=96, height=72))
        files[f"{name}.mp4"] = padded(video, size, k)
        files[f"{name}.json"] = json.dumps(egocentric_10k.about(1, k, size)).encode()
    return write_tar(root / "factory_001/workers/worker_001/factory001_worker001_part00.tar", files)


def in_bucket(root: Path, uri: str, cache: Path) -> BucketSource:
    store = open_store(uri)
    for path in root.rglob("*"):
        if path.is_file():
            store.put_file(path.relative_to(root).as_posix(), path)
    return listed(uri, cache, 10**9).source


def assert_same_corpus(one: Path, other: Path) -> None:
    assert tree(one / "datasets") == tree(other / "datasets")
    assert facts(one, "episodes") == facts(other, "episodes")


@pytest.mark.slow
@pytest.mark.parametrize("place", ["memory", "s3"])
def test_one_episode_of_a_large_tar_downloads_its_members_and_the_headers(
    place: str, request: pytest.FixtureRequest, tmp_path: Path, counted: Counted
) -> None:
    count, size = 4, 12 * MB
    shard = write_shard(tmp_path / "raw", count, size)
    how: dict[str, Any] = {"source": "egocentric_10k", "select": "*_00002/*"}
    local = run(tmp_path / "raw", tmp_path / "local", **how)
    assert local.committed == 1
    if place == "s3":
        request.getfixturevalue("s3_server")
    uri = f"s3://{BUCKET}/{tmp_path.name}" if place == "s3" else f"memory://{tmp_path.name}"
    source = in_bucket(tmp_path / "raw", f"{uri}/raw", tmp_path / "cache")
    with reading(source):
        tally = run(Path(source.root), tmp_path / "bucket", bucket=source, uri=uri, **how)
    assert tally == local
    assert_same_corpus(tmp_path / "bucket", tmp_path / "local")
    headers = 3 * count * object_parts.BLOCK_BYTES  # of the tar, of the video, and its index
    assert size <= counted.num_bytes <= size + headers
    assert headers + size < shard.stat().st_size / 2
    assert counted.whole == []
    assert used_bytes(source) == counted.num_bytes


@pytest.mark.slow
def test_planning_reads_headers_only(tmp_path: Path, counted: Counted) -> None:
    count = 3
    write_shard(tmp_path / "raw", count, 12 * MB)
    for k in range(count):
        video = scene_bytes(Scene(seed=k, duration_s=2.0, width=96, height=72))
        (tmp_path / "raw" / f"{k}.mp4").write_bytes(padded(video, 12 * MB, k))
    source = in_bucket(tmp_path / "raw", f"memory://{tmp_path.name}/raw", tmp_path / "cache")
    adapter = adapter_for("video_folder")
    with reading(source):
        info = adapter.survey(Path(source.root), {})
        refs = list(adapter.discover(Path(source.root), info))
    assert [ref.problem for ref in refs] == [None] * 2 * count
    assert counted.num_bytes <= 3 * 2 * count * object_parts.BLOCK_BYTES
    assert counted.whole == []


@pytest.mark.slow
def test_one_episode_of_a_large_zip_downloads_its_pictures_and_the_index(
    tmp_path: Path, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw_file, "WHOLE_LIMIT_BYTES", 20 * MB)  # of a fingerprint
    members = umi.buffer_of([Scene(seed=k, width=96, height=72) for k in range(3)])
    # what the adapter does not read, as the episodes between may be
    members["data/other/0"] = random.Random(0).randbytes(30 * MB)
    path = tmp_path / "raw" / "dataset.zarr.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted(members, key=lambda name: (name != "data/other/0", name)):
            archive.writestr(name, members[name])
    how: dict[str, Any] = {"source": "umi", "select": "*/1"}
    local = run(tmp_path / "raw", tmp_path / "local", **how)
    assert local.committed == 1
    source = in_bucket(tmp_path / "raw", f"memory://{tmp_path.name}/raw", tmp_path / "cache")
    with reading(source):
        tally = run(Path(source.root), tmp_path / "bucket", bucket=source, **how)
    assert tally == local
    assert_same_corpus(tmp_path / "bucket", tmp_path / "local")
    assert counted.num_bytes < path.stat().st_size / 4
    assert counted.whole == []


def test_a_zip_lets_go_of_its_file(tmp_path: Path) -> None:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        archive.writestr("data/x", b"1")
    path = tmp_path / "a.zarr.zip"
    path.write_bytes(body.getvalue())
    assert ZarrStore(path=path, where="a").get("data/x") == b"1"
    held = zarr_store._zip(path, file_stamp(path), "a")
    file = held.fp
    assert file is not None
    held.close()
    assert file.closed
    zarr_store._zip.cache_clear()
