"""A bounded cache of blocks: what is kept, what is replaced, and that nothing wrong is ever read from it."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from schemas.errors import ConfigError
from training.data.block_cache import WAYS, BlockCache, key_of_block

BLOCK = 5000


def cache(folder: Path, num_sets: int = 1) -> BlockCache:
    return BlockCache(folder, max_bytes=4096 + num_sets * WAYS * (8192 + 32), block_bytes=BLOCK)


def block(number: int, size: int = BLOCK) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, size, dtype=np.uint8)


def keyed(number: int) -> bytes:
    return key_of_block("test", str(number))


def is_kept(found: BlockCache, number: int) -> bool:
    got = found.get(keyed(number))
    assert got is None or np.array_equal(got, block(number))
    return got is not None


def file_of(folder: Path) -> Path:
    (path,) = folder.glob("blocks-*")
    return path


def test_a_block_is_read_into_parts_as_it_was_written(tmp_path: Path) -> None:
    found = cache(tmp_path, 3)
    for number in range(8):
        found.write(keyed(number), block(number))
    first, second = np.empty(1000, np.uint8), np.empty((20, 100), np.uint16)
    assert found.read(keyed(5), [first, second]) is not None
    together = np.concatenate([first, second.reshape(-1).view(np.uint8)])
    assert np.array_equal(together, block(5))
    assert found.read(keyed(5), [first]) is None, "of another size"
    assert found.read(keyed(99), [first, second]) is None
    assert (found.counts.hits, found.counts.misses, found.counts.damaged) == (1, 2, 0)


def test_the_least_recently_used_block_of_a_set_is_replaced(tmp_path: Path) -> None:
    found = cache(tmp_path)
    for number in range(WAYS):
        found.write(keyed(number), block(number))
    for number in (0, 2, 1):  # used again: 3 is the oldest now
        assert is_kept(found, number)
    found.write(keyed(100), block(100))
    found.write(keyed(101), block(101))
    kept = {number for number in [*range(WAYS), 100, 101] if is_kept(found, number)}
    assert kept == {*range(WAYS), 100, 101} - {3, 4}
    found.write(keyed(7), block(7))  # what is there takes no other place
    assert {number for number in [*range(WAYS), 100, 101] if is_kept(found, number)} == kept


def test_it_never_grows_over_its_bound(tmp_path: Path) -> None:
    bound = 4096 + 2 * WAYS * (8192 + 32)
    found = cache(tmp_path, 2)
    for number in range(20 * WAYS):
        found.write(keyed(number), block(number))
    status = file_of(tmp_path).stat()
    assert status.st_size <= bound
    assert status.st_blocks * 512 <= bound + 4096
    assert sum(is_kept(found, number) for number in range(20 * WAYS)) == 2 * WAYS
    found.write(keyed(-1), block(1, 3 * BLOCK))  # too large for a slot
    assert not is_kept(found, -1)


def test_others_find_it_and_a_copy_in_another_process_does(tmp_path: Path) -> None:
    found = cache(tmp_path, 2)
    found.write(keyed(1), block(1))
    assert is_kept(cache(tmp_path, 2), 1)
    assert is_kept(pickle.loads(pickle.dumps(found)), 1)


def test_every_damaged_byte_is_a_miss(tmp_path: Path) -> None:
    found = cache(tmp_path)
    found.write(keyed(1), block(1))
    path = file_of(tmp_path)
    whole = path.read_bytes()
    for at in (0, 15, 24, 28, 4096, 4096 + BLOCK - 1):  # key, size, checksum, first and last byte
        changed = bytearray(whole)
        changed[at] ^= 1
        path.write_bytes(changed)
        assert not is_kept(found, 1), at
    path.write_bytes(whole)
    assert is_kept(found, 1)
    os.truncate(path, 4096 + 100)
    assert not is_kept(found, 1)
    os.truncate(path, 0)
    assert not is_kept(found, 1)
    found.write(keyed(1), block(1))
    assert is_kept(found, 1)
    path.write_bytes(b"\xff" * len(whole))  # turns that cannot grow
    found.write(keyed(1), block(1))
    assert is_kept(found, 1)


def test_a_disk_that_refuses_makes_misses_and_no_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = cache(tmp_path)

    def refuse(*_: object) -> int:
        raise OSError(28, "no space")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", refuse)
        found.write(keyed(1), block(1))
    assert not is_kept(found, 1)
    found.write(keyed(1), block(1))
    with monkeypatch.context() as patched:
        patched.setattr(os, "preadv", refuse)
        assert not is_kept(found, 1)
    assert found.counts.failed == 2
    assert is_kept(found, 1)


def test_a_run_of_other_sizes_is_refused_while_one_uses_it(tmp_path: Path) -> None:
    found = cache(tmp_path, 2)
    with pytest.raises(ConfigError, match=r"another size uses this cache"):
        cache(tmp_path, 5)
    del found
    cache(tmp_path, 5)
    assert file_of(tmp_path).name.endswith("-5"), "the old file is gone"
    with pytest.raises(ConfigError, match=r"fewer than 16 blocks.*max_gb"):
        BlockCache(tmp_path / "small", max_bytes=50_000, block_bytes=BLOCK)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"cannot be written.*data.latent_cache.folder"):
        cache(tmp_path / "file")


WRITER = """
import sys
from pathlib import Path
from tests.training.test_block_cache import block, cache, keyed
found = cache(Path(sys.argv[1]), 2)
print("begun", flush=True)
while True:
    for number in range(60):
        found.write(keyed(number), block(number))
"""


@pytest.mark.slow
def test_a_fifo_in_the_folder_is_removed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "blocks-x")
    cache(tmp_path)
    assert not (tmp_path / "blocks-x").exists()


def test_a_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who can write to it decides what is read: a head of the cache has the checksums that pictures are compared with."""
    cache(tmp_path)
    if os.geteuid() == 0:
        os.chown(file_of(tmp_path), 12345, -1)
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    with pytest.raises(ConfigError, match="belongs to another user"):
        cache(tmp_path)


def test_killed_writers_leave_nothing_wrong(tmp_path: Path) -> None:
    """Two processes write into few sets and are killed; two threads read meanwhile and after."""
    found = cache(tmp_path, 2)
    stop = threading.Event()
    wrong: list[BaseException] = []

    def read() -> None:
        try:
            while not stop.is_set():
                for number in range(60):
                    is_kept(found, number)
        except AssertionError as error:
            wrong.append(error)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(2):
        command = [sys.executable, "-c", WRITER, str(tmp_path)]
        writers = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"begun\n"
        time.sleep(0.3)
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
            writer.communicate()
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert sum(is_kept(found, number) for number in range(60)) > 0


def test_one_thread_fetches_what_several_want(tmp_path: Path) -> None:
    found = cache(tmp_path)
    begun, done = threading.Event(), []

    def other() -> None:
        with found.claimed([keyed(1), keyed(2)]) as own:
            done.append(sorted(own) == [keyed(2)])
        begun.set()
        found.wait(keyed(1))
        done.append(is_kept(found, 1))

    with found.claimed([keyed(1)]) as own:
        assert own == {keyed(1)}
        thread = threading.Thread(target=other)
        thread.start()
        assert begun.wait(10)
        found.write(keyed(1), block(1))
    thread.join()
    assert done == [True, True]
    with found.claimed([keyed(1)]) as own:
        assert own == {keyed(1)}, "a claim ends"
