"""The power goes after the n-th I/O operation of a `forget`, a `compact`, a `gc`, for EVERY n; the next run finishes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ingest import snapshot
from ingest.commit import datasets_of
from ingest.corpus import Corpus
from ingest.disk import Disk
from ingest.life.collect import collect, rubbish
from ingest.life.compact import compact, planned
from ingest.life.forget import forget
from ingest.life.history import every
from ingest.recovery import recover
from ingest.verify.corpus import verify
from schemas.catalog import TABLES
from tests.curation.living import build, uids
from tests.faults.runs import facts, tree
from tests.faults.test_power_cut import CuttingDisk, PowerCut

Act = Callable[[Path, Disk, str], None]


def erase(corpus: Path, disk: Disk, run_id: str) -> None:
    at = datetime(2026, 2, 3, tzinfo=UTC)
    wanted = [NAMED["c"], NAMED["e"]]
    forget(Corpus(corpus), disk, wanted, reason="asked", run_id=run_id, erased_at=at)


def merge(corpus: Path, disk: Disk, run_id: str) -> None:
    current = snapshot.load(corpus)
    recover(Corpus(corpus), disk, current, datasets_of(corpus, current))
    compact(Corpus(corpus), disk, current, planned(corpus, current), run_id)


def sweep(corpus: Path, disk: Disk, run_id: str) -> None:
    current = snapshot.load(corpus)
    recover(Corpus(corpus), disk, current, datasets_of(corpus, current))
    collect(Corpus(corpus), disk, rubbish(Corpus(corpus), keep=1, older_than_s=0, now_s=1e12))


NAMED: dict[str, str] = {}
ACTS: dict[str, Act] = {"forget": erase, "compact": merge, "gc": sweep}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    corpus = build(tmp_path_factory.mktemp("cuts"))
    NAMED.update(uids(corpus))
    return corpus


def prepared(made: Path, to: Path, act: str) -> Path:
    corpus = shutil.copytree(made, to)
    if act == "gc":
        merge(corpus, Disk(), "before")
    return corpus


@pytest.mark.slow
@pytest.mark.parametrize("act", ACTS)
def test_every_single_cut_is_recovered_from(act: str, made: Path, tmp_path: Path) -> None:
    wanted = prepared(made, tmp_path / "wanted", act)
    counting = CuttingDisk(allowed=10**6)
    ACTS[act](wanted, counting, "undisturbed")
    assert verify(wanted) == []
    assert counting.done > 10
    start = prepared(made, tmp_path / "start", act)
    said: set[str] = set()
    for allowed in range(counting.done):
        corpus = shutil.copytree(start, tmp_path / "cut")
        with pytest.raises(PowerCut):
            ACTS[act](corpus, CuttingDisk(allowed), "first")
        assert_readable(corpus, allowed)
        said |= {found.check.value for found in verify(corpus)}
        ACTS[act](corpus, Disk(), "second")
        assert_same(corpus, wanted, allowed)
        shutil.rmtree(corpus)
    # In between nothing is called damage that is only unfinished.
    assert said <= {"catalog_extra", "erasure_unfinished", "meta_differs"}
    assert ("erasure_unfinished" in said) == (act == "forget")


def assert_readable(corpus: Path, allowed: int) -> None:
    """Every snapshot there is can be read whole at any moment: no consumer waits for the next run."""
    for each in every(corpus):
        for table in TABLES:
            assert each.read(corpus, table).num_rows >= 0, (allowed, each.number, table)


def assert_same(corpus: Path, wanted: Path, allowed: int) -> None:
    assert verify(corpus) == [], allowed
    assert tree(corpus / "datasets") == tree(wanted / "datasets"), allowed
    for table in TABLES:
        if table not in ("runs", "sources"):
            assert facts(corpus, table) == facts(wanted, table), (allowed, table)
    assert snapshot.numbers(corpus) == snapshot.numbers(wanted), allowed
    leftovers = [*corpus.rglob("*.part"), *(corpus / "staging").glob("*")]
    assert leftovers == [], allowed
    there, expected = (
        {
            p.relative_to(root).as_posix().split("/part-")[0]
            for p in (root / "catalog").rglob("*.parquet")
        }
        for root in (corpus, wanted)
    )
    assert there == expected, allowed
    for root in ("ledger", "quarantine", "cache", "manifests"):
        assert tree(corpus / root) == tree(wanted / root), (allowed, root)
