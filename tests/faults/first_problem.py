"""Is what a power cut left of something that is not a corpus what its code promises? Of a corpus: `power_check`."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.faults.journal import Journal, unwatched
from tests.faults.power import FATES, Disk, Fate, materialise

Problems = Callable[[Path, list[str]], Iterator[str]]


def few(disk: Disk, cut: int) -> list[Fate]:
    """The fates that do harm most often."""
    return [*FATES, *disk.fates_of_one()]


def first_problem(
    journal: Journal, problems: Problems, fates: Callable[[Disk, int], list[Fate]]
) -> tuple[int, str]:
    """How many states were looked at, and what was wrong with the last of them.

    Args:
        problems: from the folder that a cut left and what was reported as done before it.
    """
    disk, seen = Disk(journal), set[str]()
    for cut in range(len(journal.events) + 1):
        for fate in fates(disk, cut):
            left = disk.cut(fate)
            if (key := repr((sorted(left.items()), disk.acknowledged[-1:]))) in seen:
                continue
            seen.add(key)
            shutil.rmtree(journal.home, ignore_errors=True)
            materialise(left, journal.home)
            try:
                with unwatched():
                    problem = next(problems(journal.home, disk.acknowledged), "")
            except Exception as error:  # noqa: BLE001  what cannot go on is a problem too
                problem = repr(error)
            if problem:
                return len(seen), f"cut {cut}, {fate.name}: {problem}"
        if cut < len(journal.events):
            disk.do(journal.events[cut])
    return len(seen), ""
