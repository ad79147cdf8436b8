"""One schedule: jobs ingest the same episodes into one corpus, die, lose their machines, come back, and end."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.overhead import Instant
from ingest.corpus import commit_log, publishing, snapshot, working_copy
from ingest.corpus.digest import corpus_digest
from ingest.corpus.remote_link import read_link
from ingest.corpus.working_copy import DamagedCopy, WorkingCopy, attach
from ingest.maintenance.sweep import sweep
from ingest.pipeline.plan import Request
from ingest.pipeline.process import Work
from ingest.pipeline.run import RunContext
from ingest.recipe import Limits, Recipe
from jobs.stages import ingest as stage
from schemas.catalog import TABLES
from schemas.errors import TransientError
from schemas.outcome import Outcome, WorkerFailure
from tests.simulation.scheduler import Died, Process, Scheduler
from tests.simulation.store import Broken, Bucket, Faults, SimStore
from tests.simulation.uploading import Distributed, Uploads, attempt_of

LIMIT_S = (
    20_000.0  # of the virtual clock: faults end after 300 s, and work goes on until it is done
)
START = datetime(2026, 1, 1, tzinfo=UTC)
SHM = Path("/dev/shm")


@dataclass(frozen=True, kw_only=True)
class Played:
    """What came of a schedule. `problem`: "" where everything held."""

    seed: int
    problem: str
    episodes: int
    steps: int
    virtual_s: float
    commits: int
    lanes: int
    deaths: int
    digest: str


@cache
def _template() -> Instant:
    """What a worker leaves of a tiny episode."""
    folder = Path(tempfile.mkdtemp(prefix="eicorpus-template-"))
    try:
        return Instant(folder)
    finally:
        shutil.rmtree(folder)


class Workers:
    """An executor whose workers take some time, and end in another order than they began."""

    name = "played"

    def __init__(self, scheduler: Scheduler, slots: int) -> None:
        self.scheduler, self.slots = scheduler, slots

    def run(
        self, next_work: Callable[[], Work | None], body: Any
    ) -> Iterator[tuple[Work, Outcome | WorkerFailure]]:
        under_way: list[Work] = []
        while True:
            while len(under_way) < self.slots and (work := next_work()) is not None:
                under_way.append(work)
            if not under_way:
                return
            self.scheduler.sleep(self.scheduler.random.expovariate(1 / 5))
            work = under_way.pop(self.scheduler.random.randrange(len(under_way)))
            yield work, self._ended(work)

    def _ended(self, work: Work) -> Outcome | WorkerFailure:
        shutil.rmtree(work.staging, ignore_errors=True)
        return _template()._staged(work)


class UploadingWorkers(Distributed, Workers):
    """The same on machines that share nothing with the driver but the bucket."""

    def __init__(self, scheduler: Scheduler, slots: int, bucket: Bucket) -> None:
        super().__init__(scheduler, slots)
        self.uploads = Uploads(bucket, _template()._staged)

    def _ended(self, work: Work) -> Outcome | WorkerFailure:
        return self.uploads.ended(work)


@contextmanager
def _scratch() -> Iterator[Path]:
    folder = tempfile.mkdtemp(prefix="eicorpus-sim-", dir=SHM if SHM.is_dir() else None)
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def faults_of(random: Random) -> Faults:
    """From none to a bad day."""
    worst = random.choice((0.0, 0.02, 0.1, 0.3))
    return Faults(
        lost_request=random.uniform(0, worst),
        lost_answer=random.uniform(0, worst),
        late=random.uniform(0, worst / 2),
        read_error=random.uniform(0, worst / 4),
        torn_read=random.uniform(0, worst / 10),
        listing_lag_s=random.choice((0.0, 10.0)),
        death=random.choice((0.0, 0.003, 0.02)),
        node_loss=random.choice((0.0, 0.3)),
    )


def play(seed: int) -> Played:
    """Play one schedule and judge what is left."""
    random = Random(seed)
    scheduler = Scheduler(random)
    bucket = Bucket(scheduler, faults_of(random))
    episodes, jobs = random.randint(2, 6), random.randint(2, 3)
    counts = {"deaths": 0}
    problem = ""
    stores: dict[str, SimStore] = {}
    with (
        _scratch() as folder,
        mock.patch.object(publishing, "store_of", lambda uri: stores[uri]),
        mock.patch.object(working_copy, "AT_ONCE", 1),
        mock.patch.object(commit_log, "AT_ONCE", 1),
        mock.patch.object(commit_log, "CHECKPOINT_EVERY", 3),
        mock.patch.object(stage, "IngestProgress", _Quiet),
    ):
        (folder / "count").write_text(str(episodes))
        for number in range(jobs):
            scheduler.spawn(
                _job(seed, folder, f"sim://job-{number}", scheduler, bucket, stores, counts)
            )
        scheduler.spawn(_reader(folder / "job-0/0", scheduler, bucket))
        try:
            scheduler.run(until_s=LIMIT_S)
            if scheduler.problems:
                raise scheduler.problems[0]
            digest = judged(bucket, episodes)
            for root in folder.glob("job-*/*"):
                _check_whole(root)
        except (Exception, Died) as error:  # noqa: BLE001 - whatever it is, the schedule has found it
            problem, digest = f"{type(error).__name__}: {error}", ""
    entries = [key for key in bucket.objects if key.startswith("catalog/_log/")]
    lanes = {json.loads(bucket.objects[key].data)["lane"] for key in entries} - {""}
    return Played(
        seed=seed,
        problem=problem,
        episodes=episodes,
        steps=scheduler.steps,
        virtual_s=scheduler.now_s,
        commits=len(entries),
        lanes=len(lanes),
        deaths=counts["deaths"],
        digest=digest,
    )


class _Quiet:
    """No progress line."""

    def __init__(self, plan: Any) -> None:
        self.plan = plan

    def __enter__(self) -> _Quiet:
        return self

    def __exit__(self, *error: Any) -> None:
        return

    def update(self, tally: Any) -> None:
        return


def _job(
    seed: int,
    folder: Path,
    uri: str,
    scheduler: Scheduler,
    bucket: Bucket,
    stores: dict[str, SimStore],
    counts: dict[str, int],
) -> Callable[[], None]:
    """One job: runs the command until it succeeds, on another machine where it has lost the one it had. Workers of odd schedules upload."""
    random = scheduler.random
    request = Request(source="benchmarks.overhead:Tiny", root=folder, options={}, recipe=Recipe())

    def context(progress: Any) -> RunContext:
        return RunContext(
            run_id=f"{uri[-5:]}-{scheduler.steps}",
            command="simulation",
            now=lambda: START + timedelta(seconds=scheduler.now_s),
            monotonic_s=lambda: scheduler.now_s,
        )

    def body() -> None:
        machine, uploads = 0, seed % 2 == 1
        sweeps = (
            not uri.endswith("0") and random.random() < 0.3
        )  # before it ingests, it cleans up beside the others

        while True:
            process = Process(uri)
            stores[uri] = SimStore(bucket, process)
            root = folder / uri[-5:] / str(machine)
            try:
                copy = attach(root, uri, stores[uri], may_be_absent=True)
                if sweeps and not copy.link.corpus_uid:
                    shutil.rmtree(root)  # a command that cleans up makes no corpus
                    scheduler.sleep(random.uniform(1, 20))
                    continue
                for _ in range(3 * sweeps):
                    scheduler.sleep(random.uniform(1, 60))
                    sweep(copy, stale_s=random.choice((20.0, 100.0)), run_id="sweep")
                sweeps = False
                slots = random.randint(1, 3)
                workers = (
                    UploadingWorkers(scheduler, slots, bucket)
                    if uploads
                    else Workers(scheduler, slots)
                )
                done = stage.run_ingest(
                    request,
                    root,
                    workers,
                    Limits(),
                    new_context=context,
                    pause=scheduler.sleep,
                )
                if not done.failure and done.tally.adds_up:
                    return
                raise Broken(f"{uri} ends with {done.failure or 'a tally that does not add up'}")
            except Died:
                counts["deaths"] += 1
                machine += random.random() < bucket.faults.node_loss
            except (TransientError, DamagedCopy):
                pass
            scheduler.sleep(random.uniform(1, 20))

    return body


def _reader(root: Path, scheduler: Scheduler, bucket: Bucket) -> Callable[[], None]:
    """Another process that brings the folder of a job up to date, for a query, say."""
    random = scheduler.random

    def body() -> None:
        for _ in range(4):
            scheduler.sleep(random.uniform(1, 40))
            link = read_link(root)
            if link is not None and link.corpus_uid:
                with suppress(TransientError, DamagedCopy, Died):
                    WorkingCopy(root, SimStore(bucket, Process("reader"))).refresh()

    return body


def _check_whole(root: Path) -> None:
    """
    Raises:
        Broken: a working copy lacks catalog files of its state.
    """
    current = snapshot.load(root)
    parts = [part for table in TABLES for part in current.parts(table)]
    missing = [part.path for part in parts if not (root / part.path).is_file()]
    if missing:
        raise Broken(f"{root.parent.name} lacks {len(missing)} of {len(parts)} catalog files")


def judged(bucket: Bucket, episodes: int) -> str:
    """The content digest of what the bucket holds, read without any code of ours but the digest's sum.

    Raises:
        Broken: an episode is lost, there twice or wrongly numbered, or the log has a hole.
    """
    log = sorted(key for key in bucket.objects if key.startswith("catalog/_log/"))
    if [int(key[-13:-5]) for key in log] != list(range(1, len(log) + 1)):
        raise Broken(f"the log is not numbered from 1 without a hole: {log}")
    entries = [json.loads(bucket.objects[key].data) for key in log]
    rows = [row for entry in entries for row in _added(bucket, entry, "episodes")]
    for entry in entries:
        if any(row["snapshot"] != entry["number"] for row in _added(bucket, entry, "verdicts")):
            raise Broken(f"verdicts of commit {entry['number']} have another number")
    uids = [row["uid"] for row in rows]
    if len(uids) != len(set(uids)):
        raise Broken(f"{len(uids) - len(set(uids))} episodes were committed twice")
    if len(uids) != episodes:
        raise Broken(f"{episodes - len(uids)} of {episodes} episodes are lost")
    _check_attempts(
        bucket, [row for entry in entries for row in _added(bucket, entry, "artifacts")]
    )
    numbers: dict[str, list[int]] = {}
    for row in rows:
        numbers.setdefault(row["dataset_path"], []).append(row["episode_index"])
    for path, used in numbers.items():
        if used != list(range(len(used))):
            raise Broken(f"{path} is numbered {used}")
    return corpus_digest((row["uid"], row["content_sha256"]) for row in rows)


def _check_attempts(bucket: Bucket, files: list[dict[str, Any]]) -> None:
    """
    Raises:
        Broken: rows of an episode are of one attempt of a worker, and its video is of another.
    """
    stored = {
        (row["uid"], row["kind"]): bucket.objects[row["path"]].data
        for row in files
        if row["kind"] in ("data", "video")
    }
    for (uid, kind), data in stored.items():
        if kind == "video" and data != attempt_of(stored[uid, "data"]):
            raise Broken(f"the video of {uid} is of another attempt than its rows")


def _added(bucket: Bucket, entry: dict[str, Any], table: str) -> list[dict[str, Any]]:
    """The rows that a commit adds to a table."""
    rows: list[dict[str, Any]] = []
    for part in entry["added"].get(table, ()):
        data = bucket.objects[part["path"]].data
        if hashlib.sha256(data).hexdigest() != part["sha256"]:
            raise Broken(f"{part['path']} is not what was committed")
        rows += pq.read_table(pa.BufferReader(data)).to_pylist()
    return rows
