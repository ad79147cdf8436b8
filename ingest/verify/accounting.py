"""Checks that every committed uid has exactly one row, that no other rows or files exist, and that the counts of runs add up."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from ingest.corpus.committed_episodes import uids_of
from ingest.corpus.known_files import OWN_CHECK, is_known, is_let_be
from ingest.corpus.layout import BUILD
from ingest.corpus.snapshot import Snapshot
from ingest.corpus.tombstones import tombstones
from ingest.storage.file_tree import entries_below
from ingest.storage.local import HALF_SUFFIX
from ingest.verify.files import unreadable
from ingest.verify.finding import CheckCode, Finding, finding
from schemas.committed_rows import RunRow
from schemas.manifest import FOLDER as MANIFESTS
from schemas.outcome import State, ends_of, unaccounted


def foreign_files(corpus: Path) -> Iterator[Finding]:
    """One finding for each such file, and for each file that a run that was stopped left half-written."""
    refused: list[OSError] = []
    for entry in entries_below(corpus, _is_skipped, refused.append):
        if not entry.is_dir(follow_symlinks=False):
            yield from _problem(Path(entry.path).relative_to(corpus).as_posix())
    for error in refused:
        yield unreadable(os.path.relpath(error.filename or corpus, corpus), error)


def _is_skipped(folder: str) -> bool:
    return folder in OWN_CHECK or is_let_be(folder)


def _problem(path: str) -> Iterator[Finding]:
    name = path.rpartition("/")[2]
    # Half a file there may be of a process at work: there, writers take no writer lock and sweep themselves.
    if name.startswith(".") and name.endswith(HALF_SUFFIX):
        if not path.startswith((f"{MANIFESTS}/", f"{BUILD}/", "reviews/")):
            what = "an incomplete file of a stopped run"
            yield finding(CheckCode.FILE_UNFINISHED, path, what, "no unfinished run")
    elif not is_known(path):
        yield finding(
            CheckCode.FILE_EXTRA,
            path,
            "a file that eicorpus does not write",
            "only files of eicorpus",
        )


def accounting_findings(corpus: Path, current: Snapshot) -> Iterator[Finding]:
    """Compare the tables with each other. Only uids, states and counts are read."""
    uids = uids_of(corpus, current, "episodes", distinct=False).get_column("uid")
    yield from _unless_none("episodes", _repeated(uids), "more than one row for", "each uid once")
    verdicts = pl.DataFrame(current.read(corpus, "verdicts", ["uid", "state", "run_id"]))
    committed = verdicts.filter(pl.col("state") == State.COMMITTED).get_column("uid")
    once = "one verdict `committed` for each episode"
    yield from _unless_none("verdicts", _repeated(committed), "more than one for", once)
    yield from _unless_none("verdicts", _missing_uids(uids, committed), "none for", once)
    yield from _unless_none("episodes", _missing_uids(committed, uids), "no row for", once)
    for table in ("artifacts", "segments", "measurements", "reviews"):
        known = uids_of(corpus, current, table).get_column("uid")
        strangers = _missing_uids(known.filter(known != ""), uids)
        yield from _unless_none(table, strangers, "rows of", "rows of committed episodes only")
    yield from _run_findings(corpus, current, verdicts)


def _run_findings(corpus: Path, current: Snapshot, verdicts: pl.DataFrame) -> Iterator[Finding]:
    """Each run with a row: discovered is the sum of the ends and of what it did not reach, and its verdicts are those it counted.

    Committed and quarantined episodes of earlier runs are counted again without a new verdict, so these two may exceed
    the verdicts. A run that was killed has verdicts and no row.
    """
    by_run = Counter(verdicts.select("run_id", "state").iter_rows())
    for erased in tombstones(corpus, current):
        by_run.update((end["run_id"], end["state"]) for end in erased.ends)
    for row in current.rows(corpus, RunRow):
        ends = ends_of(row)
        path = f"catalog/runs: {row.run_id}"
        if unaccounted(row):
            discovered = f"discovered {row.discovered}"
            says = " + ".join(f"{count} {state.value}" for state, count in ends.items())
            yield finding(
                CheckCode.ACCOUNTING, path, discovered, f"{says} + {row.not_reached} not reached"
            )
        for state, count in ends.items():
            verdict_count = by_run[row.run_id, state.value]
            may_exceed = state in (State.COMMITTED, State.QUARANTINED)
            if verdict_count > count or (verdict_count != count and not may_exceed):
                discovered = f"{verdict_count} verdicts `{state.value}`"
                yield finding(
                    CheckCode.ACCOUNTING, path, discovered, f"{count}, the count of the run"
                )


def _repeated(uids: pl.Series) -> pl.Series:
    return uids.filter(uids.is_duplicated()).unique()


def _missing_uids(uids: pl.Series, others: pl.Series) -> pl.Series:
    """Those of `uids` that are not among `others`."""
    left, right = pl.DataFrame({"uid": uids}), pl.DataFrame({"uid": others})
    return left.unique().join(right, on="uid", how="anti").get_column("uid")


def _unless_none(table: str, uids: pl.Series, what: str, expected: str) -> Iterator[Finding]:
    if len(uids):
        some = ", ".join(uids.sort().head(3))
        more = f" and {len(uids) - 3} more" if len(uids) > 3 else ""
        yield finding(CheckCode.ACCOUNTING, f"catalog/{table}", f"{what} {some}{more}", expected)
