"""The power is cut while a manifest is exported: a page is there with all its files or not at all, and the same export goes on to the same digest."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.executors.inline import InlineExecutor
from ingest.export.datasets import format as units
from ingest.export.datasets.format import Format
from ingest.export.datasets.lerobot_shared_files import LeRobotV3
from ingest.export.datasets.run import PAGE, check_files, read_page, run_export
from ingest.export.datasets.webdataset import WebDataset
from schemas.errors import TransientError
from tests.faults.journal import Journal, journal_of, unwatched
from tests.faults.power import FATES, Disk, by_chance, materialise
from tests.ingest.export_cases import manifest_of, numbered_corpus, plan_of

SEGMENTS = [("a", 0, 37), ("b", 0, 24), ("c", 2, 12)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return numbered_corpus(tmp_path_factory.mktemp("numbered"))


@pytest.fixture(autouse=True)
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "UNIT_BYTES", 1)  # a unit for each segment


def exported(corpus: Path, to: Format, out: Path) -> str:
    plan = plan_of(corpus, manifest_of(corpus, SEGMENTS), to)
    return str(run_export(plan, to, out, InlineExecutor()).page["sha256"])


def resumed(corpus: Path, to: Format, out: Path) -> str:
    """The same command again, once more where it says so: a unit of which neither name of a moved file was left is written again."""
    for _ in range(len(SEGMENTS)):
        with contextlib.suppress(TransientError):
            return exported(corpus, to, out)
    return exported(corpus, to, out)


def cuts(journal: Journal) -> Iterator[tuple[int, Disk]]:
    """Before each call that synchronises, and at the end."""
    disk = Disk(journal)
    for number, now in enumerate(journal.events):
        if now.is_sync and not journal.events[number - 1].is_sync:
            yield number, disk
        disk.do(now)
    yield len(journal.events), disk


@pytest.mark.slow
@pytest.mark.parametrize("to", [LeRobotV3(), WebDataset()], ids=lambda to: to.name)
def test_a_cut_export_is_told_from_a_whole_one_and_goes_on(
    to: Format, corpus: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    out = home / "out"
    with journal_of(home) as journal:
        whole = exported(corpus, to, out)
        journal.notice_all()
    seen, ends = set[str](), set[bool]()
    for number, disk in cuts(journal):
        for fate in (*FATES, by_chance(number)):
            left = disk.cut(fate)
            if (key := repr(sorted(left.items()))) in seen:
                continue
            seen.add(key)
            shutil.rmtree(home)
            with unwatched():
                materialise(left, home)
                has_page = (out / PAGE).is_file()
                if has_page:
                    assert list(check_files(out, read_page(out))) == [], fate.name
                assert resumed(corpus, to, out) == whole, fate.name
                assert list(check_files(out, read_page(out))) == [], fate.name
                assert not list(out.rglob(".*")), fate.name
                ends.add(has_page)
    assert len(seen) > 20
    assert ends == {False, True}
