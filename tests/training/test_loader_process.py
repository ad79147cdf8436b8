"""Batches that another process makes: those of threads in the same order, errors as they were raised, and nothing left when either process ends."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import fields, is_dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from torch import Tensor

from schemas.errors import Code, ConfigError, SourceError, TransientError
from schemas.manifest import Manifest, load
from tests.training.corpus import Trainable
from tests.training.image_text_file import write_pairs
from tests.training.loader_cases import recipe
from tests.training.running import ROOT, batches, global_batch
from tests.training.test_replaced import bad_recipe
from tests.training.tiny import batch
from training.batch import Batch
from training.conditioning.hashed_words import WordsReader
from training.data import loader_process
from training.data.image_text import ImageTextSource, open_image_text
from training.data.loader import Loader
from training.data.loader_process import NUM_SLOTS, LoaderProcess, process_batches
from training.data.stored_latents import FolderStore, LatentPlace
from training.recipe import ImageTextSettings

spoiled_file = pytest.importorskip("tests.training.test_replaced").spoiled_file  # a fixture


def assert_same(one: Any, two: Any, where: str = "batch") -> None:
    """To the bit, in every tensor, array and number."""
    if isinstance(one, Tensor):
        assert one.dtype == two.dtype, where
        assert torch.equal(one, two), where
    elif isinstance(one, np.ndarray):
        assert one.dtype == two.dtype, where
        assert np.array_equal(one, two), where
    elif isinstance(one, dict):
        assert one.keys() == two.keys(), where
        for key in one:
            assert_same(one[key], two[key], f"{where}.{key}")
    elif is_dataclass(one):
        assert type(one) is type(two), where
        for each in fields(one):
            assert_same(getattr(one, each.name), getattr(two, each.name), f"{where}.{each.name}")
    else:
        assert one == two, where


def assert_all_same(one: Iterator[Batch], two: Iterator[Batch], num: int) -> None:
    pairs = zip(islice(one, num), islice(two, num), strict=True)
    assert [assert_same(*pair) for pair in pairs] == [None] * num
    for each in (one, two):
        each.close()  # type: ignore[attr-defined]


def loader(manifest: Manifest, how: str, made: Any = None, **given: Any) -> Loader:
    made = recipe(run={"num_workers": 2}) if made is None else made
    run = made.run.model_copy(update={"loader": how})
    reader = WordsReader(num_buckets=64, num_words=8)
    return Loader(manifest, made.model_copy(update={"run": run}), reader=reader, **given)


def children() -> list[psutil.Process]:
    """Those that make batches."""
    mine = psutil.Process().children()
    return [each for each in mine if "spawn_main" in " ".join(each.cmdline())]


def growing(first: int) -> Iterator[Batch]:
    """Of more samples from step to step, and without any text in the first."""
    for step in range(first, 10**9):
        yield batch([0, 1, 2, 3] * (1 + step), seed=step, num_text=step)


# --- the same batches ------------------------------------------------------------------------------------------------


def test_batches_are_those_of_threads_and_nothing_is_left(manifest: Manifest) -> None:
    """From a later step on, as a run that goes on asks for them."""
    files, mapped = len(os.listdir("/proc/self/fd")), mapped_files(os.getpid())
    wanted = loader(manifest, "threads").batches(5)
    first = next(wanted)
    process = loader(manifest, "process").batches(5)
    assert_same(next(process), first)
    (child,) = children()
    for more in (mapped_files(os.getpid()) - mapped, mapped_files(child.pid)):
        assert any("memfd:eicorpus-loader" in each for each in more)
        assert not any("/dev/shm" in each for each in more)
    assert_all_same(process, wanted, 10)
    assert not child.is_running()
    assert not any("memfd:eicorpus-loader" in each for each in mapped_files(os.getpid()))
    assert len(os.listdir("/proc/self/fd")) <= files + len({"resource tracker"})


def mapped_files(pid: int) -> set[str]:
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return {" ".join(line.split()[5:]) for line in lines}


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [0, 3])
def test_ranks_have_their_share(manifest: Manifest, num_workers: int) -> None:
    made = recipe(run={"num_workers": num_workers}, data={"with_state": True})
    given = {"rank": 1, "world_size": 3}
    one, two = (loader(manifest, how, made, **given) for how in ("process", "threads"))
    assert_all_same(one.batches(), two.batches(), 6)


@pytest.mark.slow
def test_samples_that_were_replaced_are_recorded_here(
    spoiled_file: tuple[Manifest, Path],
) -> None:
    manifest, _ = spoiled_file
    made = bad_recipe(num_workers=2)
    given = {"was_replaced": {(0, 3): 1}}
    one, two = (loader(manifest, how, made, **given) for how in ("process", "threads"))
    num = sum(len(two.batch(step).replaced) for step in range(12))
    assert num > 2
    assert_all_same(one.batches(), two.batches(), 12)


@pytest.mark.slow
def test_processes_share_one_bounded_cache_of_latents(manifest: Manifest, tmp_path: Path) -> None:
    keys = {"max_gb": 0.02, "ahead_steps": 3, "folder": str(tmp_path)}
    made = recipe(data={"latent_cache": keys}, run={"num_workers": 2})
    place = LatentPlace(store=FolderStore(manifest.corpus), name="bucket")
    both = [loader(manifest, how, made, place=place) for how in ("process", "threads")]
    assert_all_same(both[0].batches(), both[1].batches(), 8)
    (blocks,) = tmp_path.glob("blocks-*")
    assert 0 < blocks.stat().st_size <= 0.02e9


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_pairs_come_beside_the_samples(
    manifest: Manifest, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    pytest.importorskip("transformers", reason="NOT RUN: the vlm extra is not installed")
    from tests.curation.caption.tiny_qwen import write_tiny_qwen

    folder = write_tiny_qwen(tmp_path_factory.mktemp("tiny_qwen"))
    settings = ImageTextSettings(data=str(write_pairs(tmp_path, 6)), batch_size=4, every=2)
    pairs = ImageTextSource(
        file=open_image_text(settings), settings=settings, folder=folder, seed=3, batch_size=12
    )
    both = [loader(manifest, how, image_text=pairs).batches() for how in ("process", "threads")]
    assert_all_same(both[0], both[1], 4)


def test_slots_grow_and_hold_whatever_a_batch_is_made_of() -> None:
    """Also where a thread copies out of them, as into pinned memory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tensor, "pin_memory", Tensor.clone)
        pinned = process_batches(growing, 0, pin_memory=True)
        kept = list(islice(pinned, 7))  # of more batches than there are slots
        pinned.close()  # type: ignore[attr-defined]
    for step, each in enumerate(kept):
        assert_same(each, next(growing(step)))


# --- what is ahead ---------------------------------------------------------------------------------------------------


def counting(path: Path, first: int) -> Iterator[Batch]:
    for step, each in enumerate(batches(first), first):
        with path.open("a") as file:
            file.write(f"{step}\n")
        yield each


class Counting:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, first: int) -> Iterator[Batch]:
        return counting(self.path, first)


@pytest.mark.slow
def test_no_more_is_made_than_there_are_slots_for(tmp_path: Path) -> None:
    """One is in hand until a slot is free."""
    made = process_batches(Counting(tmp_path / "steps"), 0)
    with closing(made):  # type: ignore[type-var]
        for taken in range(1, 4):
            next(made)
            wait_for(lambda n=taken: len(steps_in(tmp_path)) == n + NUM_SLOTS + 1)  # type: ignore[misc]
        time.sleep(0.5)
        assert len(steps_in(tmp_path)) == 3 + NUM_SLOTS + 1


def steps_in(folder: Path) -> list[str]:
    path = folder / "steps"
    return path.read_text().split() if path.exists() else []


def wait_for(condition: Any, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


# --- errors ----------------------------------------------------------------------------------------------------------


def torn(first: int) -> Iterator[Batch]:
    yield from islice(batches(first), 3)
    raise SourceError(Code.TRUNCATED, "torn", where="file 7")


def test_an_error_is_the_one_that_was_raised_when_its_batch_is_due() -> None:
    made = process_batches(torn, 0)
    assert len(list(islice(made, 3))) == 3
    with pytest.raises(SourceError) as caught:
        next(made)
    error = caught.value
    assert (error.code, error.message, error.where) == (Code.TRUNCATED, "torn", "file 7")
    assert 'raise SourceError(Code.TRUNCATED, "torn"' in error.__notes__[0]
    assert not children()


class NotPickled(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConfigError("no", remedy="yes", where="here"), ConfigError),
        (KeyError("x"), KeyError),
        (NotPickled(1, 2), RuntimeError),
    ],
)
def test_errors_of_every_kind_get_through(error: Exception, kind: type[Exception]) -> None:
    sent = loader_process._failed(error)
    assert type(sent.error) is kind
    assert str(error) in str(sent.error)
    assert type(error).__name__ in sent.trace


class Unopened:
    """Stands for tables that are gone when the process opens them."""

    def __reduce__(self) -> tuple[Any, ...]:
        return open_tables, ()


def open_tables() -> None:
    raise ConfigError("damaged tables", remedy="remove them", where="segments.npy")


@pytest.mark.slow
def test_an_error_of_what_the_process_opens_first_is_its_own() -> None:
    with pytest.raises(ConfigError, match=r"segments.npy: damaged tables; remove them"):
        next(process_batches(Unopened(), 0))  # type: ignore[arg-type]


def test_too_little_memory_is_an_error_before_it_is_touched() -> None:
    """Not a SIGBUS. A limit of file sizes stands for memory that is used up."""
    slot = loader_process._SharedSlot(os.memfd_create("test"))
    slot.grow(5000)
    assert os.fstat(slot.file).st_blocks * 512 >= 5000
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        with pytest.raises(ConfigError, match=r"2,097,152 bytes.*run.loader=threads"):
            slot.grow(2 << 20)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        slot.close()


# --- the end of a process --------------------------------------------------------------------------------------------


def killed_at_9(first: int) -> Iterator[Batch]:
    for step, each in enumerate(batches(first), first):
        if step == 9:
            os.kill(os.getpid(), signal.SIGKILL)
        yield each


@pytest.mark.slow
def test_a_process_that_ends_is_started_again_unless_it_gave_nothing() -> None:
    warnings: list[str] = []
    made = process_batches(killed_at_9, 0, warn=warnings.append)
    for step in range(3):
        assert_same(next(made), global_batch(step))
    (child,) = children()
    for ignored in (signal.SIGINT, signal.SIGTERM):  # what is sent to all of a terminal or a job
        child.send_signal(ignored)
    for step in range(3, 5):
        assert_same(next(made), global_batch(step))
    assert (warnings, children()) == ([], [child])
    child.kill()
    for step in range(5, 9):  # in a slot already, or made again
        assert_same(next(made), global_batch(step))
    with pytest.raises(TransientError) as caught:
        next(made)
    expected = r"step 9: the loader process was ended by SIGKILL before it gave a batch; .*dmesg"
    assert re.match(expected, str(caught.value))
    assert caught.value.exit_code == 1
    assert len(warnings) == 2
    assert warnings[1] == "the loader process was ended by SIGKILL; it is started again at step 9"
    assert not children()


def slow(first: int) -> Iterator[Batch]:
    yield from islice(batches(first), 2)
    time.sleep(3600)


PROGRAM = """
import sys, time
from itertools import islice
from tests.training.test_loader_process import slow
from training.data.loader_process import process_batches
if __name__ == "__main__":
    made = process_batches(slow, 0)
    list(islice(made, 2))
    print("begun", flush=True)
    {then}
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "then", ["time.sleep(60)", "sys.exit('left open')", "raise KeyboardInterrupt"]
)
def test_the_process_ends_with_this_one(tmp_path: Path, then: str) -> None:
    """Killed, or at an end at which nobody closed anything; while the other one reads, and does not look whether anybody waits."""
    (tmp_path / "program.py").write_text(PROGRAM.format(then=then))
    program = subprocess.Popen(
        [sys.executable, str(tmp_path / "program.py")],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    family: list[psutil.Process] = []
    try:
        assert program.stdout.readline() == "begun\n"
        if "sleep" in then:
            family = psutil.Process(program.pid).children(recursive=True)
            assert any("spawn_main" in " ".join(each.cmdline()) for each in family)
            program.kill()
        _, said = program.communicate(timeout=60)  # which ends when nobody holds the pipe
    finally:
        program.kill()
        remaining = psutil.wait_procs(family, timeout=20)[1]
        for each in remaining:  # what this test is against
            each.kill()
    assert remaining == []
    assert "loader_process.py" not in said


@pytest.mark.slow
def test_nothing_waits_for_a_read_that_hangs() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tensor, "pin_memory", Tensor.clone)
        made = process_batches(slow, 0, pin_memory=True)
        assert len(list(islice(made, 2))) == 2
        began_s = time.monotonic()
        made.close()  # type: ignore[attr-defined]
    assert time.monotonic() - began_s < 60
    assert not children()


@pytest.mark.slow
def test_a_process_may_be_closed_twice() -> None:
    """And gives nothing then, although a batch waits."""
    process = LoaderProcess(batches, 4)
    assert_same(process.take(4), global_batch(4))
    assert process._connection.poll(60)
    process.close()
    process.close()
    with pytest.raises(EOFError):
        process.take(5)
    process.release()
    assert not psutil.pid_exists(process.pid)


def test_a_loader_travels_without_its_manifest(trainable: Trainable) -> None:
    """By folders and settings: tables are as long as a manifest, and tensors would go through /dev/shm."""
    made = loader(load(trainable.manifest), "process")
    from multiprocessing.reduction import ForkingPickler

    pickled = bytes(ForkingPickler.dumps(made.steps))
    assert b"torch" not in pickled
    assert len(pickled) < 10_000
    again = ForkingPickler.loads(pickled)
    assert_same(again.batch(3), made.batch(3))
