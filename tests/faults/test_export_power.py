"""The power is cut at the commits of `eicorpus export --to iceberg`: a table that says it holds a snapshot does, and the same export goes on.

SQLite synchronises its own file, by calls that no journal sees: after a cut it is as its last commit left it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from ingest.corpus import snapshot
from ingest.export import iceberg
from ingest.export.iceberg import Exported, export, exported_name
from ingest.export.warehouse import FILE, ExportStep, Mark, Warehouse, open_folder
from schemas.catalog import TABLES
from tests.curation.lifecycle_corpus import rows_of
from tests.faults.call_sites import CallSite, asked_at, call_sites
from tests.faults.journal import Journal, journal_of, unwatched
from tests.faults.power import FATES, KEPT, Disk, Fate, Tree, by_chance, materialise
from tests.generators import corpus as synthetic

pytest.importorskip("pyiceberg.catalog.sql", reason="NOT RUN: the extra `iceberg` is not installed")
from pyiceberg.table import Table
from sqlalchemy import event

FEW = ("episodes", "verdicts", "measurements")
DROPPED = next(fate for fate in FATES if fate.name == "dropped")


def opened(home: Path) -> Warehouse:
    return open_folder(home / "warehouse", "eicorpus", "corpus")


def exported(corpus: Path, to: Warehouse) -> list[Exported]:
    return export(corpus, "synthetic", snapshot.load(corpus), to)


@dataclass(frozen=True, kw_only=True)
class Run:
    """An export, watched. `catalogs`: SQLite's file before each of its commits, and at the end."""

    corpus: Path
    home: Path
    journal: Journal
    catalogs: list[bytes]


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iceberg, "TABLES", {name: TABLES[name] for name in FEW})


def recorded(tmp_path: Path, is_left_out: Callable[[CallSite], bool] = lambda site: False) -> Run:
    corpus, home = tmp_path / "corpus", tmp_path / "home"
    corpus.mkdir()
    home.mkdir()
    synthetic.commit(corpus, synthetic.rows_of(4, 1))
    catalogs: list[bytes] = []
    to = opened(home)
    engine = to.catalog.engine  # type: ignore[attr-defined]
    with engine.connect() as connection:
        # It removes no file: a journal would not see that, and takes the next with its number for it.
        connection.exec_driver_sql("PRAGMA journal_mode=PERSIST")
    with journal_of(home) as journal, asked_at(is_left_out):

        def commits(connection: Any) -> None:
            journal.notice_all()
            catalogs.append((home / "warehouse" / FILE).read_bytes())
            journal.note(str(len(catalogs)))

        event.listen(engine, "commit", commits)
        exported(corpus, to)
    engine.dispose()
    catalogs.append((home / "warehouse" / FILE).read_bytes())
    return Run(corpus=corpus, home=home, journal=journal, catalogs=catalogs)


def says_whole(corpus: Path, to: Warehouse) -> set[str]:
    """The tables that name the latest snapshot."""
    current = snapshot.load(corpus)
    there = {name for name in FEW if to.catalog.table_exists(("corpus", exported_name(name)))}
    return {
        name
        for name in there
        if Mark.read(table(to, name).properties, name) == Mark.of("synthetic", current, name)
    }


def table(to: Warehouse, name: str) -> Table:
    return to.catalog.load_table(("corpus", exported_name(name)))


def read(to: Warehouse, name: str) -> list[str]:
    files = [task.file.file_path for task in table(to, name).scan().plan_files()]
    rows = [row for file in files for row in pq.read_table(file, partitioning=None).to_pylist()]
    return sorted(map(repr, rows))


def tables_of(left: Tree) -> dict[str, bytes | None]:
    return {path: data for path, data in left.items() if not Path(path).name.startswith(FILE)}


def states(run: Run, moments: tuple[str, ...]) -> Iterator[tuple[str, Disk, bytes]]:
    """(moment, what is on the disk, SQLite's file): "before" SQLite is about to synchronise what it names, "commit" when it has."""
    disk = Disk(run.journal)
    for number, now in enumerate(run.journal.events):
        if now.is_sync and not run.journal.events[number - 1].is_sync and "before" in moments:
            yield "before", disk, run.catalogs[len(disk.acknowledged)]
        disk.do(now)
        if now.what == "acknowledged" and "commit" in moments:
            yield "commit", disk, run.catalogs[len(disk.acknowledged)]


def commits_before_their_files(run: Run) -> int:
    states_of_commits = (disk for _, disk, _ in states(run, ("commit",)))
    return sum(
        tables_of(disk.cut(DROPPED)) != tables_of(disk.cut(KEPT)) for disk in states_of_commits
    )


def test_what_a_commit_names_is_on_the_disk_before_it(tmp_path: Path) -> None:
    run = recorded(tmp_path)
    assert len(run.catalogs) - 1 >= 2 * len(FEW)
    assert commits_before_their_files(run) == 0


# `datasets/`: tests/faults/test_dataset_export_power.py.
TABLES_ONLY = (
    "ingest/export/iceberg.py",
    "ingest/export/warehouse.py",
    "ingest/export/data_file.py",
)
SITES = [site for site in call_sites() if site.file in TABLES_ONLY]


@pytest.mark.parametrize("site", SITES, ids=str)
def test_without_any_one_call_that_synchronises_it_would_not(
    site: CallSite, tmp_path: Path
) -> None:
    assert commits_before_their_files(recorded(tmp_path, site.__eq__)) > 0


@pytest.mark.slow
def test_an_export_that_a_power_cut_ended_is_told_from_a_whole_one_and_goes_on(
    tmp_path: Path,
) -> None:
    run = recorded(tmp_path)
    whole = {name: sorted(map(repr, rows_of(run.corpus, name))) for name in FEW}
    seen, ends = set[str](), set[int]()
    for number, (moment, disk, catalog) in enumerate(states(run, ("before", "commit"))):
        fates: tuple[Fate, ...] = (*FATES, by_chance(number)) if moment == "before" else (DROPPED,)
        for fate in fates:
            left = {**tables_of(disk.cut(fate)), f"warehouse/{FILE}": catalog}
            if (key := repr(sorted(left.items()))) in seen:
                continue
            seen.add(key)
            shutil.rmtree(run.home)
            with unwatched():
                materialise(left, run.home)
                to = opened(run.home)
                done = says_whole(run.corpus, to)
                for name in done:
                    assert read(to, name) == whole[name], (moment, fate.name)
                again = {each.table: each.step for each in exported(run.corpus, to)}
                assert {
                    name for name in FEW if again[exported_name(name)] is ExportStep.NOTHING
                } == done
                assert says_whole(run.corpus, to) == set(FEW)
                assert {name: read(to, name) for name in FEW} == whole, (moment, fate.name)
                to.catalog.engine.dispose()  # type: ignore[attr-defined]
            ends.add(len(done))
    assert ends == set(range(len(FEW) + 1))  # none, some and all of the tables were whole
