"""The power goes after the n-th I/O operation, for EVERY n: the next run must end where an undisturbed one does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from ingest.disk import Disk
from tests.faults.runs import facts, run, tree
from tests.faults.toy import write_toy

KINDS = {
    "a": "good",
    "b": "quarantine",
    "c": "good",
    "d": "short",
    "e": "good",
}
CHANGING = (
    "make_dir",
    "write",
    "create",
    "append",
    "place",
    "publish",
    "publish_dir",
    "truncate",
    "remove",
    "remove_tree",
    "sync",
)


class PowerCut(BaseException):
    """Not an Exception: no handler of the pipeline may survive it, as none survives a real one."""


class CuttingDisk(Disk):
    """Does `allowed` operations, half of the next one, and then nothing ever again.

    Faithful to a kill: after the cut even clean-up code changes nothing any more.
    """

    def __init__(self, allowed: int) -> None:
        self.allowed = allowed
        self.done = 0

    def _count(self, torn: Callable[[], Any] | None = None) -> None:
        if self.done == self.allowed and torn is not None:
            torn()
        if self.done >= self.allowed:
            self.done = self.allowed + 1
            raise PowerCut
        self.done += 1

    def write(self, path: Path, data: bytes, **how: bool) -> None:
        part = path.with_name(f".{path.name}.part")
        self._count(lambda: part.write_bytes(data[: len(data) // 2]))
        super().write(path, data, **how)

    def create(self, path: Path, data: bytes) -> None:
        self._count(lambda: path.write_bytes(data[: len(data) // 2]))
        super().create(path, data)

    def append(self, path: Path, data: bytes) -> None:
        self._count(lambda: Disk().append(path, data[: len(data) // 2]))
        super().append(path, data)

    def publish(self, path: Path, data: bytes) -> bool:
        part = path.with_name(f".{path.name}.0.part")
        self._count(lambda: part.write_bytes(data[: len(data) // 2]))
        return super().publish(path, data)

    def publish_dir(self, path: Path, files: Mapping[str, bytes]) -> bool:
        self._count()  # before its name appears; the files in it are counted one by one
        return super().publish_dir(path, files)

    def remove_tree(self, path: Path) -> None:
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.exists() else []
        self._count(lambda: files and files[0].unlink())
        super().remove_tree(path)

    def make_dir(self, path: Path) -> None:
        self._count()
        super().make_dir(path)

    def place(self, source: Path, target: Path) -> None:
        self._count()
        super().place(source, target)

    def remove(self, path: Path) -> None:
        self._count()
        super().remove(path)

    def sync(self) -> None:
        self._count()


def test_the_cutting_disk_covers_every_operation() -> None:
    mutating = {name for name in vars(Disk) if not name.startswith("_")}
    assert mutating == set(CHANGING)
    assert mutating - set(vars(CuttingDisk)) == {"truncate"}  # unused by ingest


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, int]:
    """(raw, corpus, number of I/O operations) of a run that nothing stopped."""
    folder = tmp_path_factory.mktemp("undisturbed")
    raw = write_toy(folder / "raw", KINDS)
    disk = CuttingDisk(allowed=10**6)
    tally = run(raw, folder / "corpus", disk=disk)
    assert (tally.committed, tally.quarantined, tally.filtered) == (3, 1, 1)
    return raw, folder / "corpus", disk.done


def cut_at(raw: Path, out: Path, allowed: int, run_id: str) -> bool:
    """Run until the cut; False when the run was over before."""
    try:
        run(raw, out, disk=CuttingDisk(allowed), run_id=run_id)
    except PowerCut:
        return True
    return False


def assert_same(corpus: Path, wanted: Path) -> None:
    assert tree(corpus / "datasets") == tree(wanted / "datasets")
    for table in ("episodes", "segments", "measurements", "artifacts"):
        assert facts(corpus, table) == facts(wanted, table), table
    leftovers = [*corpus.rglob("*.part"), *(corpus / "staging").glob("*")]
    assert leftovers == []


@pytest.mark.slow
def test_every_single_cut_is_recovered_from(
    undisturbed: tuple[Path, Path, int], tmp_path: Path
) -> None:
    raw, wanted, operations = undisturbed
    assert operations > 50  # the run is long enough to mean something
    for allowed in range(operations):
        out = tmp_path / f"c{allowed}"
        assert cut_at(raw, out, allowed, "first"), f"run ended before operation {allowed}"
        tally = run(raw, out, run_id="second")
        assert (tally.committed, tally.quarantined, tally.filtered) == (3, 1, 1), allowed
        assert_same(out, wanted)


@pytest.mark.slow
def test_cuts_in_a_row_make_progress_and_lose_nothing(
    undisturbed: tuple[Path, Path, int], tmp_path: Path
) -> None:
    """Every run gets 23 operations before it is cut: it must get there all the same."""
    raw, wanted, _ = undisturbed
    out = tmp_path / "corpus"
    cuts = 0
    while cut_at(raw, out, 23 + cuts, f"run{cuts:03d}"):
        cuts += 1
        assert cuts < 60, "no progress"
    assert cuts > 2
    run(raw, out, run_id="last")
    assert_same(out, wanted)


class InterruptingDisk(CuttingDisk):
    """Ctrl-C arrives during the n-th operation, once; unlike a cut, whatever handles it goes on working."""

    def _count(self, torn: Callable[[], Any] | None = None) -> None:
        self.done += 1
        if self.done == self.allowed + 1:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_an_interrupt_at_every_operation_leaves_a_sound_corpus(
    undisturbed: tuple[Path, Path, int], tmp_path: Path
) -> None:
    """A flush that was broken off must not be flushed again: its numbering is ahead of what is committed."""
    raw, wanted, operations = undisturbed
    for allowed in range(operations):
        out = tmp_path / f"c{allowed}"
        with pytest.raises(KeyboardInterrupt):
            run(raw, out, disk=InterruptingDisk(allowed), run_id="first")
        tally = run(raw, out, run_id="second")
        assert (tally.committed, tally.quarantined, tally.filtered) == (3, 1, 1), allowed
        assert_same(out, wanted)


def test_a_second_run_changes_nothing(undisturbed: tuple[Path, Path, int]) -> None:
    raw, corpus, _ = undisturbed
    before = tree(corpus / "datasets")
    tally = run(raw, corpus, run_id="again")
    assert tally.committed_before == 3
    assert tally.adds_up
    assert tree(corpus / "datasets") == before
