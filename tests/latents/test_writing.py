"""A file is written while the next pictures are encoded; whoever of the two fails, nothing half is left."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BufferedRandom
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest

from ingest.executors.inline import InlineExecutor
from ingest.latents import encode_file
from ingest.latents.backends import LocalBackend
from ingest.latents.encode_file import Decoded, LatentMaker
from ingest.latents.plan import PlannedLatentFile
from ingest.latents.token_file import BackgroundWriter, TokenFile
from ingest.models.encoder import ImageEncoder
from ingest.storage.local import LocalStorage
from schemas.errors import ConfigError
from tests.latents.corpora import alone, paired, planned_file

PATIENCE_S = 10.0  # for what comes at once unless it never comes


# --- one behind ------------------------------------------------------------------------------------------------------


def joined(seen: list[str]) -> Generator[None, str | None, str]:
    while (item := (yield)) is not None:
        if item == "bad":
            raise OSError(errno.ENOSPC, "full")
        seen.append(item)
    return "".join(seen)


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(max_workers=1) as pool:
        yield pool


def test_all_is_taken_in_order(thread: ThreadPoolExecutor) -> None:
    behind = BackgroundWriter(joined([]), thread)
    for item in "abcdefgh":
        behind.send(item)
    assert behind.end().result(PATIENCE_S) == "abcdefgh"


def test_who_sends_is_one_ahead_and_no_more(thread: ThreadPoolExecutor) -> None:
    may_take, seen = Event(), list[str]()

    def slow() -> Generator[None, str | None, str]:
        taker = joined(seen)
        next(taker)
        while (item := (yield)) is not None:
            assert may_take.wait(PATIENCE_S)
            taker.send(item)
        return "".join(seen)

    behind = BackgroundWriter(slow(), thread)
    behind.send("a")  # comes back, and nothing is taken yet
    assert seen == []
    with ThreadPoolExecutor(max_workers=1) as sender:
        second = sender.submit(behind.send, "b")
        with pytest.raises(TimeoutError):
            second.result(0.05)
        may_take.set()
        second.result(PATIENCE_S)
    assert behind.end().result(PATIENCE_S) == "ab"


@pytest.mark.parametrize("num_after", [0, 1])
def test_what_the_taker_raises_is_raised_here(thread: ThreadPoolExecutor, num_after: int) -> None:
    """By the next item, and by the end, also when it failed at the last one."""
    behind = BackgroundWriter(joined([]), thread)
    behind.send("a")
    behind.send("bad")
    for _ in range(num_after):
        with pytest.raises(OSError, match="full"):
            behind.send("c")
    with pytest.raises(OSError, match="full"):
        behind.end().result(PATIENCE_S)


def test_an_error_of_the_sender_leaves_the_taker(thread: ThreadPoolExecutor) -> None:
    seen: list[str] = []
    behind = BackgroundWriter(joined(seen), thread)
    behind.send("a")
    with pytest.raises(ValueError, match="mine"):
        behind.throw(ValueError("mine")).result(PATIENCE_S)
    assert seen == ["a"]


def test_what_the_taker_raised_before_is_not_lost_to_an_error_of_the_sender(
    thread: ThreadPoolExecutor,
) -> None:
    """A full disk is not to be told as a damaged video."""
    behind = BackgroundWriter(joined([]), thread)
    behind.send("bad")
    with pytest.raises(OSError, match="full"):
        behind.throw(ValueError("mine")).result(PATIENCE_S)


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def four_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode_file, "PIECE_PICTURES", 4)


def file_in(root: Path, *, length: int = 36, episode_index: int = 0) -> PlannedLatentFile:
    """12 pictures, three pieces."""
    return planned_file(length, root=root, episode_index=episode_index)


def pictures(num_pieces: int = 3) -> Iterator[Decoded]:
    rng = np.random.default_rng(0)
    for _ in range(num_pieces):
        yield Decoded(pictures=rng.integers(0, 256, (4, 64, 64, 3), np.uint8))


def all_files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


class SlowDisk(LocalStorage):
    """Files are whole, and not there yet, until they may be."""

    def __init__(self) -> None:
        super().__init__()
        self.may_end, self.is_full = Event(), Event()

    @contextmanager
    def atomic_writer(self, path: Path, **how: bool) -> Iterator[BufferedRandom]:
        with super().atomic_writer(path) as file:
            yield file
            self.is_full.set()
            assert self.may_end.wait(PATIENCE_S)


@pytest.mark.usefixtures("four_each")
def test_a_file_is_there_when_it_is_whole_and_not_before(
    tiny: ImageEncoder, tmp_path: Path
) -> None:
    disk = SlowDisk()
    maker = LatentMaker(encoder=tiny, monotonic_s=float, disk=disk)
    file = file_in(tmp_path)
    path = tmp_path / file.target(tiny.id)
    with ThreadPoolExecutor(max_workers=1) as writer:
        begun = maker.begin(alone(file), paired(alone(file), pictures()), writer)
        assert disk.is_full.wait(PATIENCE_S)
        assert not begun.written.done()
        assert all_files(tmp_path) == [path.with_name(f".{path.name}.part")]
        disk.may_end.set()
        made = maker.finished(begun)
    assert made.files[0].row is not None
    assert all_files(tmp_path) == [path]
    assert path.stat().st_size == made.files[0].num_bytes


def test_the_next_file_is_encoded_while_one_is_written(
    tiny: ImageEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most files are one piece long. The disk ends the first one only when pictures of the second are at the encoder."""
    disk, num_encoded = SlowDisk(), 0
    good = tiny.encode

    def watched(given: Any, **how: bool) -> Any:
        nonlocal num_encoded
        num_encoded += 1
        if num_encoded == 2:
            assert disk.is_full.wait(PATIENCE_S)
            assert not list(tmp_path.rglob("*.safetensors"))
            disk.may_end.set()
        return good(given, **how)

    monkeypatch.setattr(tiny, "encode", watched)
    body = lambda piece, disk: next(pictures())  # noqa: E731
    monkeypatch.setattr("ingest.latents.backends.decode_chunk", body)
    local = LocalBackend(LatentMaker(encoder=tiny, monotonic_s=float, disk=disk), InlineExecutor())
    files = [file_in(tmp_path, length=12, episode_index=index) for index in range(3)]
    found = list(local.make(map(alone, files)))
    assert [unit.files for unit, _ in found] == [(file,) for file in files]
    rows = [made.files[0].row for _, made in found]
    assert [row and row.uid for row in rows] == ["u0", "u1", "u2"]


def test_a_file_that_is_whole_is_told_before_what_stops_the_next(
    tiny: ImageEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would lie there without a row, and be encoded again."""
    good, num_encoded = tiny.encode, 0

    def stopped(given: Any, **how: bool) -> Any:
        nonlocal num_encoded
        num_encoded += 1
        if num_encoded == 2:
            raise ConfigError("no memory for a batch")
        return good(given, **how)

    monkeypatch.setattr(tiny, "encode", stopped)
    monkeypatch.setattr(
        "ingest.latents.backends.decode_chunk", lambda piece, disk: next(pictures())
    )
    local = LocalBackend(LatentMaker(encoder=tiny, monotonic_s=float), InlineExecutor())
    found = local.make(alone(file_in(tmp_path, length=12, episode_index=k)) for k in range(3))
    assert next(found)[1].files[0].row is not None
    with pytest.raises(ConfigError):
        next(found)
    assert len(all_files(tmp_path)) == 1


@pytest.mark.usefixtures("four_each")
def test_a_full_disk_is_told_with_the_file_and_stops_the_encoder(
    tiny: ImageEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: TokenFile, piece: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(TokenFile, "add", full)
    asked = 0

    def counted() -> Iterator[Decoded]:
        nonlocal asked
        for each in pictures(9):
            asked += 1
            yield each

    file = file_in(tmp_path, length=108)
    maker = LatentMaker(encoder=tiny, monotonic_s=float)
    with pytest.raises(OSError, match=r"No space left on device: .*episode_000000") as caught:
        maker.make(alone(file), paired(alone(file), counted()))
    assert caught.value.errno == errno.ENOSPC
    assert asked == 2  # the one that did not fit, and the one that was encoded meanwhile
    assert all_files(tmp_path) == []


@pytest.mark.usefixtures("four_each")
@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_whatever_stops_the_encoder_leaves_nothing_half(
    tiny: ImageEncoder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stop: Callable[[], BaseException],
) -> None:
    """And nobody writes any more when it is told."""

    def stopped() -> Iterator[Decoded]:
        yield from pictures(2)
        raise stop()

    maker = LatentMaker(encoder=tiny, monotonic_s=float)
    with pytest.raises(type(stop())):
        maker.make(alone(file_in(tmp_path)), paired(alone(file_in(tmp_path)), stopped()))
    assert all_files(tmp_path) == []


@pytest.mark.usefixtures("four_each")
def test_time_of_the_disk_is_told_apart_from_the_encoders(
    tiny: ImageEncoder, tmp_path: Path
) -> None:
    """By a clock that only looks move: two looks a piece for either, and two for the end."""
    now = iter(range(1000))
    made = LatentMaker(encoder=tiny, monotonic_s=lambda: float(next(now))).make(
        alone(file_in(tmp_path)), paired(alone(file_in(tmp_path)), pictures())
    )
    assert (made.busy_s, made.write_wait_s) == (3.0, 3.0 + 1.0)
    broken = [*pictures(1), Decoded(error="corrupt_video: x")]
    made = LatentMaker(encoder=tiny, monotonic_s=lambda: float(next(now))).make(
        alone(file_in(tmp_path)), paired(alone(file_in(tmp_path)), broken)
    )
    assert (made.files[0].row, made.files[0].error) == (None, "corrupt_video: x")
    assert (made.busy_s, made.write_wait_s) == (1.0, 1.0 + 1.0)  # a piece, and that it is given up
