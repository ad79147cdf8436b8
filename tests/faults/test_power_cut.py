"""The power goes after the n-th I/O operation, for EVERY n: the next run must end where an undisturbed one does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ingest.storage.local import LocalStorage
from tests.faults.disks import CuttingDisk, PowerCut, QuickDisk
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
    "atomic_writer",
    "write_new",
    "append",
    "hard_link_or_copy",
    "put_if_absent",
    "put_dir_if_absent",
    "truncate",
    "remove",
    "remove_tree",
    "sync",
)


NOT_CHANGING = {"root", "at", "adopt", "reading", "read", "check", "holding_folders"}
BY_KEY = {"local_path", "get", "range", "list", "put", "create", "delete"}  # by the others
BY_KEY |= {"size", "copy", "put_file", "get_file"}


def test_the_cutting_disk_covers_every_operation() -> None:
    mutating = (
        {name for name in vars(LocalStorage) if not name.startswith("_")} - NOT_CHANGING - BY_KEY
    )
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
        tally = run(raw, out, disk=QuickDisk(), run_id="second")
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
    run(raw, out, disk=QuickDisk(), run_id="last")
    assert_same(out, wanted)


class InterruptingDisk(CuttingDisk):
    """Ctrl-C arrives during the n-th operation, once; unlike a cut, whatever handles it goes on working."""

    def _count(self, torn: Callable[[], Any] | None = None) -> None:
        self.count.done += 1
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
        tally = run(raw, out, disk=QuickDisk(), run_id="second")
        assert (tally.committed, tally.quarantined, tally.filtered) == (3, 1, 1), allowed
        assert_same(out, wanted)


def test_a_second_run_changes_nothing(undisturbed: tuple[Path, Path, int]) -> None:
    raw, corpus, _ = undisturbed
    before = tree(corpus / "datasets")
    tally = run(raw, corpus, run_id="again")
    assert tally.committed_before == 3
    assert tally.adds_up
    assert tree(corpus / "datasets") == before
