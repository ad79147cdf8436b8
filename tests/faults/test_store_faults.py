"""One fault at every n-th call of a store: after it and a rerun, the corpus in the bucket is that of an undisturbed run.

Ingest, tier and compact, as their commands do them in a working copy. One kind of fault at each call, on a store in memory; `make test-s3` does
the same on moto's S3.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from benchmarks.overhead import Instant
from ingest.corpus import commit_log, publishing, snapshot, transfers
from ingest.corpus.layout import CorpusLayout
from ingest.corpus.working_copy import WorkingCopy, attach
from ingest.corpus.writer import complete, writing
from ingest.curation.tiers.last_run import is_up_to_date
from ingest.curation.tiers.policy import load_policy
from ingest.curation.tiers.tier import commit, judge
from ingest.maintenance.compact import compact, plan_merges
from ingest.pipeline import run
from ingest.pipeline.plan import Request
from ingest.pipeline.process import Work
from ingest.recipe import Limits, Recipe
from ingest.storage.local import LocalStorage
from ingest.storage.object_store import ObjectStore
from ingest.verify.digest import digest
from jobs.stages import ingest as stage
from schemas.catalog import TABLES
from schemas.errors import TransientError, UnknownOutcome
from schemas.outcome import Outcome
from tests.s3_server import BUCKET
from tests.simulation.quick import quick_paths
from tests.simulation.world import Quiet

ON_S3 = bool(os.environ.get("EICORPUS_FAULTS_ON_S3"))
KINDS = ("lost request", "lost answer", "death after", "death before")
EPISODES = 2
NUMBERS = itertools.count()
# What differs between two runs that did the same.
OF_A_RUN = ("run_id", "snapshot", "attempts", "path", "reads_sha256")
OF_A_LANE = ("dataset_path", "episode_index", "index_from")  # another machine has another one
OF_A_FILE = ("num_bytes", "sha256")  # in which numbers of the lane stand; the digest knows them


class Killed(BaseException):
    """Not an Exception: nothing handles it, and no call of the store is answered any more."""


class FaultyStore(ObjectStore):
    """Fails at one call, in one way."""

    def __init__(self, uri: str, fails_at: int = -1, kind: str = "") -> None:
        super().__init__(uri)
        self.calls, self.fails_at, self.kind = 0, fails_at, kind
        self.is_dead = False

    def entries(self, *given: Any, **how: Any) -> Iterator[dict[str, Any]]:
        return iter(self._called("entries", *given, **how))

    def _called(self, name: str, *given: Any, **how: Any) -> Any:
        if self.is_dead:
            raise Killed
        number, self.calls = self.calls, self.calls + 1
        is_now = number == self.fails_at
        if is_now and self.kind == "death before":
            self._die()
        failure = (UnknownOutcome if name == "create" else TransientError)("no answer")
        if is_now and self.kind == "lost request":
            raise failure
        done = getattr(super(), name)(*given, **how)
        done = list(done) if name == "entries" else done
        if is_now and self.kind == "death after":
            self._die()
        if is_now:
            raise failure
        return done

    def _die(self) -> None:
        self.is_dead = True
        raise Killed


def _counted(name: str) -> Callable[..., Any]:
    def call(self: FaultyStore, *given: Any, **how: Any) -> Any:
        return self._called(name, *given, **how)

    return call


for each in ("get", "put", "create", "put_file", "get_file", "delete", "entry"):
    setattr(FaultyStore, each, _counted(each))


class Workers(Instant):
    """Clear what a stopped worker left, as real ones do."""

    def _staged(self, work: Work) -> Outcome:
        shutil.rmtree(work.staging, ignore_errors=True)
        return super()._staged(work)


@pytest.fixture(scope="module")
def template() -> Iterator[Instant]:
    folder = Path(tempfile.mkdtemp(prefix="eicorpus-template-"))
    yield Workers(folder)
    shutil.rmtree(folder)


@pytest.fixture
def new_uri(request: pytest.FixtureRequest) -> Callable[[], str]:
    """Of a place that nothing has been written to."""
    if ON_S3:
        request.getfixturevalue("s3_server")
    start = f"s3://{BUCKET}" if ON_S3 else "memory://faults"
    return lambda: f"{start}/store-faults-{next(NUMBERS)}"


def work(root: Path, store: FaultyStore, template: Instant) -> None:
    """Three commands, each of which looks first for what there is to do."""
    with (
        mock.patch.object(publishing, "store_of", return_value=store),
        mock.patch.object(transfers, "AT_ONCE", 1),
        mock.patch.object(commit_log, "AT_ONCE", 1),
        mock.patch.object(stage, "IngestProgress", Quiet),
        mock.patch.object(run, "BATCH_EPISODES", 1),  # so that there is something to merge
        quick_paths(),
    ):
        copy = attach(root, str(store.uri), store, may_be_absent=True)
        if copy.link.corpus_uid:
            copy.refresh()
        _ingest(root, template)
        copy = attach(root, str(store.uri), store)
        _tier(copy)
        _compact(copy)


def _ingest(root: Path, template: Instant) -> None:
    raw = root.parents[1] / "raw"
    raw.mkdir(exist_ok=True)
    (raw / "count").write_text(str(EPISODES))
    request = Request(source="benchmarks.overhead:Tiny", root=raw, options={}, recipe=Recipe())
    done = stage.run_ingest(request, root, template, Limits(), pause=lambda seconds: None)
    assert done.tally.adds_up
    assert not done.failure


def _tier(copy: WorkingCopy) -> None:
    corpus, disk = CorpusLayout(copy.root), LocalStorage(copy.root)
    policy, text = load_policy("ei30k")
    copy.refresh()
    with writing(corpus, disk):
        current = snapshot.load(copy.root)
        if not is_up_to_date(copy.root, current, policy):
            judged = judge(copy.root, current, policy, threads=1)
            commit(corpus, current, judged, text, run_id="tier", disk=disk)


def _compact(copy: WorkingCopy) -> None:
    corpus, disk = CorpusLayout(copy.root), LocalStorage(copy.root)
    copy.refresh()
    with writing(corpus, disk, always_recovers=True):
        current = snapshot.load(copy.root)
        compact(corpus, disk, current, plan_merges(copy.root, current), "compact")


def facts(root: Path, uri: str) -> dict[str, Any]:
    """The digest, and the rows of every table but `runs` without what tells one run from another. Every object is read."""
    store = ObjectStore(uri)
    copy = attach(root, str(store.uri), store)
    current = copy.refresh()
    complete(copy, current)
    left_out = OF_A_RUN + OF_A_LANE + OF_A_FILE
    rows = {
        table: Counter(
            repr({key: value for key, value in row.items() if key not in left_out})
            for row in current.read(root, table).to_pylist()
            if row.get("kind") != "features"  # of a lane, not of an episode
        )
        for table in TABLES
        if table != "runs"
    }
    return {"digest": digest(root).sha256, **rows}


@pytest.fixture
def undisturbed(
    tmp_path: Path, template: Instant, new_uri: Callable[[], str]
) -> tuple[int, dict[str, Any]]:
    """Calls of an undisturbed run, and what it leaves."""
    store = FaultyStore(new_uri())
    root = tmp_path / "undisturbed/copy"
    work(root, store, template)
    assert len(snapshot.load(root).parts("artifacts")) == 1, "compact had something to merge"
    return store.calls, facts(root, str(store.uri))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_after_a_fault_at_any_call_a_rerun_ends_where_an_undisturbed_run_does(
    kind: str,
    tmp_path: Path,
    template: Instant,
    new_uri: Callable[[], str],
    undisturbed: tuple[int, dict[str, Any]],
) -> None:
    num_calls, expected = undisturbed
    assert num_calls > 50
    for number in range(KINDS.index(kind), num_calls, len(KINDS)):
        uri = new_uri()
        home = tmp_path / f"{number}"
        broken = FaultyStore(uri, number, kind)
        with suppress(Killed, TransientError):
            work(home / "copy", broken, template)
        assert broken.calls > number, "the fault was met"
        # After every other death the machine is gone too.
        is_lost = kind.startswith("death") and number // len(KINDS) % 2
        root = home / ("other" if is_lost else "copy")
        work(root, FaultyStore(uri), template)
        assert facts(root, uri) == expected, f"{kind} at call {number}"
        shutil.rmtree(home)
