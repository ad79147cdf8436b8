"""Latents that are read by ranges out of a store, through the cache of this machine: the same batches, what is fetched, and what is damaged."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from benchmarks.annotated_corpus import checksums
from schemas.errors import Code, ConfigError, SourceError, TransientError
from schemas.latent_header import read_header
from schemas.latents import LATENTS, PICTURE_CRC, WITH_CHECKSUMS
from schemas.manifest import Manifest, load
from tests.training.corpus import ENCODER, Trainable
from tests.training.loader_cases import loader, recipe, same
from training.data.block_cache import BlockCache
from training.data.latent_traffic import traffic_of
from training.data.loader import Loader
from training.data.stored_latents import FolderStore, LatentPlace

SMALL = {"max_gb": 0.1}


def _unchanged(key: str, start: int, data: bytes) -> bytes:
    return data


@dataclass
class Bucket:
    """A store of a corpus that counts requests; `change` may answer otherwise."""

    corpus: Path
    change: Callable[[str, int, bytes], bytes] = _unchanged
    asked: Counter[str] = field(default_factory=Counter)
    num_bytes: int = 0
    lock: Any = field(default_factory=threading.Lock)

    def range(self, key: str, start: int, length: int) -> bytes:
        data = FolderStore(self.corpus).range(key, start, length)
        with self.lock:
            self.asked[f"{key}@{start}+{length}"] += 1
            self.num_bytes += len(data)
        return self.change(key, start, data)

    def size(self, key: str) -> int | None:
        return FolderStore(self.corpus).size(key)

    def num(self) -> int:
        return sum(self.asked.values())


def stored(manifest: Manifest, bucket: Bucket, folder: Path, **given: Any) -> Loader:
    data = {"latent_cache": {**SMALL, "ahead_steps": 0, **given.pop("cache_keys", {})}}
    place = LatentPlace(store=bucket, name="bucket", folder=folder)
    return loader(manifest, recipe(data=data, **given), place=place)


@pytest.fixture
def checked_manifest(trainable: Trainable, tmp_path: Path) -> Manifest:
    """With a checksum of each picture, as files have them from version 2 on."""
    copy = trainable.copied(tmp_path / "corpus")
    for path in copy.corpus.glob(f"datasets/*/*/latents/{ENCODER}/**/*.safetensors"):
        tensors = load_file(path)
        facts = read_header(path).facts.model_copy(update={"latents_version": WITH_CHECKSUMS})
        tensors[PICTURE_CRC] = checksums(tensors[LATENTS])
        save_file(tensors, path, metadata=facts.metadata())
    return load(copy.manifest)


@pytest.mark.parametrize("num_workers", [0, 3])
def test_batches_are_those_of_the_folder(
    manifest: Manifest, tmp_path: Path, num_workers: int
) -> None:
    """Cold, warm, by a second process's cache, and with read-ahead."""
    reads = [loader(manifest).batch(step) for step in range(6)]
    bucket = Bucket(manifest.corpus)
    run = {"num_workers": num_workers}
    for ahead in (0, 4):
        actual = stored(manifest, bucket, tmp_path, run=run, cache_keys={"ahead_steps": ahead})
        batches = actual.batches()
        assert all(same(a, b) for a, b in zip(reads, islice(batches, 6), strict=True))
        batches.close()  # type: ignore[attr-defined]


def test_what_was_fetched_is_not_fetched_again(manifest: Manifest, tmp_path: Path) -> None:
    bucket = Bucket(manifest.corpus)
    first = stored(manifest, bucket, tmp_path)
    for step in range(4):
        first.batch(step)
    num = bucket.num()
    pictures = [key for key, _ in bucket.asked.items() if not key.endswith("+8192")]
    assert len(pictures) == len({*pictures})
    for step in range(4):
        first.batch(step)
    again = stored(manifest, bucket, tmp_path)  # another process of this machine
    before_steps = bucket.num()
    for step in range(4):
        again.batch(step)
    assert bucket.num() == before_steps
    assert before_steps - num <= 2, "the head that says the shape"
    counts = again.cache_counts
    assert counts is not None
    assert counts.hits > 0
    assert counts.damaged == 0


def test_read_ahead_fetches_before_a_step_is_made(manifest: Manifest, tmp_path: Path) -> None:
    bucket = Bucket(manifest.corpus)
    actual = stored(manifest, bucket, tmp_path, cache_keys={"ahead_steps": 3})
    batches = actual.batches()
    next(batches)
    batches.close()  # type: ignore[attr-defined]  # waits for what is under way
    ahead = actual.steps.read_ahead()
    assert ahead is not None
    ahead.reached(0)
    ahead._pool.shutdown(wait=True)
    num = bucket.num()
    for step in (1, 2, 3):
        actual.batch(step)
    assert bucket.num() == num
    actual.batch(4)
    assert bucket.num() > num


def test_side_by_side_pictures_are_one_request(manifest: Manifest, tmp_path: Path) -> None:
    """t - 3, t and t + 6 are four neighbours at most: one request for each view of a sample."""
    bucket = Bucket(manifest.corpus)
    actual = stored(manifest, bucket, tmp_path)
    drawn = actual.draws.of_step(0)
    actual.source.load(drawn.part(slice(0, 1)))
    num = bucket.num()
    actual.source.load(drawn.part(slice(0, 1)))
    assert bucket.num() == num
    views = sum(1 for _ in actual.source.reads(0)[:2])
    traffic = actual.latent_traffic()
    assert (traffic.pictures_per_sample, traffic.requests_per_sample) == (6, 2)
    assert traffic.requested_bytes_per_sample == 8 * traffic.picture_bytes
    assert traffic.picture_bytes == 7 * 8 * 2
    assert traffic.bytes_per_step == 12 * 6 * 7 * 8 * 2
    assert views
    in_eight_bits = replace(actual.latent_shape, dtype="int8")  # their scales lie by themselves
    traffic = traffic_of(in_eight_bits, actual.window, num_views=2, batch_size=12)
    assert (traffic.requests_per_sample, traffic.picture_bytes) == (4, 7 * (8 + 4))


@pytest.mark.parametrize("head", [b"", b"\0" * 15, b"\xff" * 16, b"\0" * 16 + b"\x07" + b"\0" * 7 + b"[1, 2]"])  # fmt: skip
def test_a_head_of_the_cache_that_is_none_is_fetched(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: bytes
) -> None:
    monkeypatch.setattr(BlockCache, "get", lambda *_: np.frombuffer(head, np.uint8))
    actual = stored(manifest, Bucket(manifest.corpus), tmp_path)
    assert same(actual.batch(0), loader(manifest).batch(0))


def test_without_room_every_block_is_fetched(manifest: Manifest, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"fewer than 16 blocks.*data.latent_cache.max_gb"):
        stored(manifest, Bucket(manifest.corpus), tmp_path, cache_keys={"max_gb": 1e-6})


def test_a_lost_cache_changes_nothing(manifest: Manifest, tmp_path: Path) -> None:
    reads = [loader(manifest).batch(step) for step in range(3)]
    actual = stored(manifest, Bucket(manifest.corpus), tmp_path)
    assert same(actual.batch(0), reads[0])
    for path in tmp_path.glob("blocks-*"):
        path.write_bytes(b"")
    assert same(actual.batch(1), reads[1])
    for path in tmp_path.glob("blocks-*"):
        path.unlink()
    assert same(actual.batch(2), reads[2])


def test_a_store_that_fails_for_a_moment_is_asked_again(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.data.broken.WAIT_S", 0.001)
    left = [2]

    def fails_twice(key: str, start: int, data: bytes) -> bytes:
        if left[0]:
            left[0] -= 1
            raise TransientError("the store failed (503)", where=key)
        return data

    bucket = Bucket(manifest.corpus)
    actual = stored(manifest, bucket, tmp_path)
    bucket.change = fails_twice
    assert same(actual.batch(0), loader(manifest).batch(0))
    assert left == [0]
    bucket.change = _unchanged
    cold = stored(manifest, bucket, tmp_path / "cold")
    bucket.change, left[0] = fails_twice, 10**6
    with pytest.raises(SourceError, match=r"the store failed \(503\)") as error:
        cold.batch(0)
    assert error.value.code is Code.UNREADABLE


def test_a_missing_object_and_an_absent_end_are_named(manifest: Manifest, tmp_path: Path) -> None:
    bucket = Bucket(manifest.corpus)
    actual = stored(manifest, bucket, tmp_path)
    bucket.change = lambda key, start, data: data[: len(data) // 2]
    with pytest.raises(SourceError, match=r"the object ends at byte"):
        actual.batch(3)

    def is_gone(key: str, start: int, data: bytes) -> bytes:
        raise SourceError(Code.MISSING_FILE, "the object is missing", where=key)

    bucket.change = is_gone
    with pytest.raises(SourceError, match=r"broken sample.*the object is missing"):
        actual.batch(5)


def test_a_damaged_block_is_fetched_again_and_then_replaced(
    checked_manifest: Manifest, tmp_path: Path
) -> None:
    """Files of packs have a checksum of each picture: one wrong answer changes nothing, and three replace the sample, which is written down."""
    reads = [loader(checked_manifest).batch(step) for step in range(3)]
    bad: set[tuple[str, int]] = set()
    left: Counter[tuple[str, int]] = Counter()

    def flips(key: str, start: int, data: bytes) -> bytes:
        left[key, start] += 1
        if not start or (left[key, start] > 1 and (key, start) not in bad):
            return data
        return bytes([data[0] ^ 1]) + data[1:]

    bucket = Bucket(checked_manifest.corpus)
    actual = stored(checked_manifest, bucket, tmp_path, run={"max_bad_samples": 3})
    bucket.change = flips
    assert all(same(actual.batch(step), reads[step]) for step in range(3))
    assert max(left.values()) > 1
    bad.add(max(left))
    cold = stored(checked_manifest, bucket, tmp_path / "cold", run={"max_bad_samples": 3})
    replaced = [one for step in range(3) for one in cold.batch(step).replaced]
    assert replaced
    assert all("has the checksum" in one.error for one in replaced)
    assert all(Code.UNREADABLE in one.error for one in replaced)


def test_whole_files_cannot_be_compared(manifest: Manifest, tmp_path: Path) -> None:
    place = LatentPlace(store=Bucket(manifest.corpus), name="b", folder=tmp_path)
    with pytest.raises(ConfigError, match=r"--verify-latents|eicorpus verify"):
        loader(manifest, place=place, verify_latents=True)


def test_a_cache_beside_a_folder_and_whole_copies(manifest: Manifest, tmp_path: Path) -> None:
    """A corpus on a network file system is read through the cache; files of a working copy are read where they are."""
    data = {"latent_cache": {**SMALL, "folder": str(tmp_path / "cache")}}
    actual = loader(manifest, recipe(data=data))
    assert same(actual.batch(0), loader(manifest).batch(0))
    assert list((tmp_path / "cache").glob("blocks-*"))
    bucket = Bucket(manifest.corpus)
    place = LatentPlace(store=bucket, name="b", folder=tmp_path / "x", copies=manifest.corpus)
    here = loader(manifest, recipe(data={"latent_cache": SMALL}), place=place)
    assert same(here.batch(0), loader(manifest).batch(0))
    assert not bucket.asked


def test_keys_of_the_cache_do_not_change_what_a_run_is(tmp_path: Path) -> None:
    plain, cached = recipe(), recipe(data={"latent_cache": {"max_gb": 3}})
    assert plain.digest() == cached.digest()
    assert "latent_cache" in json.loads(cached.model_dump_json())["data"]


def test_a_cache_is_opened_once_for_equal_runs(tmp_path: Path) -> None:
    one = BlockCache(tmp_path, max_bytes=10**6, block_bytes=16384)
    two = BlockCache(tmp_path, max_bytes=10**6, block_bytes=16384)
    assert one.num_sets == two.num_sets
