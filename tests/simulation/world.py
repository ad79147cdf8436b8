"""One schedule: jobs ingest the same episodes into one corpus, die, lose their machines, come back, and end."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any
from unittest import mock

from ingest.corpus import commit_log, publishing, snapshot, transfers
from ingest.corpus.bucket_copies import DamagedCopy
from ingest.corpus.commit_log import OtherHistory
from ingest.corpus.digest import corpus_digest
from ingest.corpus.remote_link import read_link
from ingest.corpus.working_copy import WorkingCopy, attach
from ingest.maintenance.sweep import sweep
from ingest.pipeline.plan import Request
from ingest.pipeline.process import Work
from ingest.pipeline.run import RunContext
from ingest.recipe import Limits, Recipe
from ingest.storage import open_store
from jobs.stages import ingest as stage
from schemas.catalog import TABLES
from schemas.errors import ConfigError, TransientError
from schemas.outcome import Outcome, WorkerFailure
from tests.simulation.curator import curate
from tests.simulation.episodes import ADAPTER, ORDER, staged
from tests.simulation.quick import quick_json, quick_paths
from tests.simulation.scheduler import Died, Process, Scheduler
from tests.simulation.store import Broken, Bucket, Faults, SimStore, rows_of
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
        return staged(work)


class UploadingWorkers(Distributed, Workers):
    """The same on machines that share nothing with the driver but the bucket."""

    def __init__(self, scheduler: Scheduler, slots: int, bucket: Bucket) -> None:
        super().__init__(scheduler, slots)
        self.uploads = Uploads(bucket, staged)

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
        slow=random.choice((0.02, 0.02, 0.2)),
        death=random.choice((0.0, 0.003, 0.02)),
        write_death=random.choice((0.0, 0.0, 0.08)),
        node_loss=random.choice((0.0, 0.3)),
    )


def play(seed: int) -> Played:
    """Play one schedule and judge what is left."""
    random = Random(seed)
    scheduler = Scheduler(random)
    bucket = Bucket(scheduler, faults_of(random))
    episodes, jobs = random.randint(2, 6), random.randint(2, 3)
    problem = ""
    world = _World(scheduler, bucket, uploads=seed % 2 == 1)
    with (
        _scratch() as folder,
        mock.patch.object(publishing, "store_of", world.store_of),
        mock.patch.object(transfers, "AT_ONCE", 1),
        mock.patch.object(commit_log, "AT_ONCE", 1),
        mock.patch.object(commit_log, "CHECKPOINT_EVERY", 3),
        mock.patch.object(stage, "IngestProgress", Quiet),
        mock.patch.object(stage, "random", random),
        _names_of(seed),
        quick_json(),
        quick_paths(),
    ):
        world.folder = folder
        for number in range(jobs):
            world.give(f"job-{number}", episodes, is_all=number == 0)
            scheduler.spawn(world.job(f"job-{number}"))
        scheduler.spawn(world.reader(folder / "job-0/0"))
        for number in range(random.choice((0, 0, 1, 2))):
            scheduler.spawn(world.curator(number))
        if random.random() < 0.2:
            scheduler.spawn(world.cleaner())
        if random.random() < 0.05:
            world.give("job-9", episodes, is_all=True)
            scheduler.spawn(world.operator())
        try:
            scheduler.run(until_s=LIMIT_S)
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
        deaths=world.deaths,
        digest=digest,
    )


@contextmanager
def _names_of(seed: int) -> Iterator[None]:
    """What is drawn by chance elsewhere: names are keys, and keys are listed in their order."""
    chance = Random(f"names of {seed}")

    def uuid4() -> uuid.UUID:
        return uuid.UUID(int=chance.getrandbits(128))

    def uid() -> str:
        return uuid4().hex

    with (
        mock.patch.object(commit_log, "uuid", SimpleNamespace(uuid4=uuid4)),
        mock.patch.object(stage, "new_corpus_uid", uid),
        mock.patch.object(open_store, "secrets", SimpleNamespace(token_hex=lambda n: uuid4().hex)),
    ):
        yield


class Quiet:
    """No progress line."""

    def __init__(self, plan: Any) -> None:
        self.plan = plan

    def __enter__(self) -> Quiet:
        return self

    def __exit__(self, *error: Any) -> None:
        return

    def update(self, tally: Any) -> None:
        return


@dataclass
class _World:
    """What runs in a schedule."""

    scheduler: Scheduler
    bucket: Bucket
    uploads: bool  # workers hand over in the bucket
    folder: Path = Path()
    deaths: int = 0
    stores: dict[int, SimStore] = field(default_factory=dict)  # by thread

    def _store(self, name: str) -> SimStore:
        """Of a new process, which this thread plays from now on."""
        self.stores[threading.get_ident()] = SimStore(self.bucket, Process(name))
        return self.store_of("")

    def store_of(self, uri: str) -> SimStore:
        """The bucket, as the process of this thread sees it."""
        return self.stores[threading.get_ident()]

    def give(self, name: str, episodes: int, *, is_all: bool) -> None:
        """The raw data of a job: all episodes or some of them, often in an order of its own."""
        random = self.scheduler.random
        order = list(range(episodes))
        if random.random() < 0.5:
            random.shuffle(order)
            order = order if is_all else order[: random.randint(1, episodes)]
        raw = self.folder / "raw" / name
        raw.mkdir(parents=True)
        (raw / ORDER).write_text(" ".join(map(str, order)))

    def job(self, name: str) -> Callable[[], None]:
        """A job: runs the command until it succeeds, on another machine where it has lost the one it had."""
        random, scheduler = self.scheduler.random, self.scheduler

        def body() -> None:
            machine = 0
            # before it ingests, it cleans up beside the others
            sweeps = [3] if not name.endswith("0") and random.random() < 0.3 else [0]
            while True:
                root = self.folder / name / str(machine)
                try:
                    if self._run(name, root, sweeps):
                        return
                except Died:
                    self.deaths += 1
                    if random.random() < self.bucket.faults.node_loss:
                        machine += 1
                        self._copied(root, self.folder / name / str(machine))
                except OtherHistory:  # as its remedy says
                    shutil.rmtree(root)
                except (TransientError, DamagedCopy):
                    pass
                except ConfigError as error:
                    _let_pass(error)
                scheduler.sleep(random.uniform(1, 20))

        return body

    def _run(self, name: str, root: Path, sweeps: list[int]) -> bool:
        """One process of a job. False where it waits for others to make the corpus. `sweeps`: how often it cleans up before."""
        random, scheduler, uri = self.scheduler.random, self.scheduler, f"sim://{name}"
        store = self._store(name)
        copy = attach(root, uri, store, may_be_absent=True)
        if sweeps[0] and not copy.link.corpus_uid:
            shutil.rmtree(root)  # a command that cleans up makes no corpus
            return False
        while sweeps[0]:
            scheduler.sleep(random.uniform(1, 60))
            sweep(copy, stale_s=random.choice((20.0, 100.0)), run_id="sweep")
            sweeps[0] -= 1
        request = Request(
            source=ADAPTER,
            root=self.folder / "raw" / name,
            options={},
            recipe=Recipe(),
            has_moved=True,
        )

        def context(progress: Any) -> RunContext:
            return RunContext(
                run_id=f"{name}-{scheduler.steps}",
                command="simulation",
                now=lambda: START + timedelta(seconds=scheduler.now_s),
                monotonic_s=lambda: scheduler.now_s,
            )

        done = stage.run_ingest(
            request,
            root,
            self._workers(random.randint(1, 3)),
            Limits(),
            new_context=context,
            pause=scheduler.sleep,
        )
        if done.failure or not done.tally.adds_up:
            raise Broken(f"{name} ends with {done.failure or 'a tally that does not add up'}")
        return True

    def _workers(self, slots: int) -> Workers:
        if self.uploads:
            return UploadingWorkers(self.scheduler, slots, self.bucket)
        return Workers(self.scheduler, slots)

    def _copied(self, root: Path, new: Path) -> None:
        """The folder of a lost machine may come back on another one."""
        if root.exists() and self.scheduler.random.random() < 0.3:
            shutil.copytree(root, new)

    def reader(self, root: Path) -> Callable[[], None]:
        """Another process that brings the folder of a job up to date, for a query, say."""
        random = self.scheduler.random

        def body() -> None:
            for _ in range(4):
                self.scheduler.sleep(random.uniform(1, 40))
                link = read_link(root)
                if link is not None and link.corpus_uid:
                    with suppress(TransientError, DamagedCopy, OtherHistory, Died):
                        WorkingCopy(root, self._store("reader")).refresh()

        return body

    def curator(self, number: int) -> Callable[[], None]:
        """Commands that change the catalog without adding episodes, in a folder of their own or in that of a job."""
        random, name = self.scheduler.random, f"curator-{number}"

        def body() -> None:
            for turn in range(random.randint(2, 5)):
                self.scheduler.sleep(random.uniform(1, 50))
                root = self.folder / random.choice((f"{name}/{turn // 3}", "job-0/0"))
                uri = f"sim://{root.parent.name}"
                try:
                    copy = attach(root, uri, self._store(name))
                    if copy.link.corpus_uid:
                        curate(copy, random, f"{name}-{self.scheduler.steps}")
                except Died:
                    self.deaths += 1
                except (TransientError, DamagedCopy):
                    pass
                except ConfigError as error:
                    _let_pass(error)

        return body

    def cleaner(self) -> Callable[[], None]:
        """`gc` that runs far too often, and counts on lanes to be quick."""
        random, scheduler = self.scheduler.random, self.scheduler

        def body() -> None:
            for _ in range(12):
                scheduler.sleep(random.uniform(1, 20))
                try:
                    copy = attach(
                        self.folder / "cleaner/0", "sim://cleaner", self._store("cleaner")
                    )
                    sweep(copy, stale_s=random.choice((5.0, 20.0)), run_id="sweep")
                except Died:
                    self.deaths += 1
                except (TransientError, DamagedCopy):
                    pass
                except ConfigError as error:
                    _let_pass(error)

        return body

    def operator(self) -> Callable[[], None]:
        """Someone who restores the bucket from a copy while nothing runs, and then ingests what was lost."""
        random, scheduler, bucket = self.scheduler.random, self.scheduler, self.bucket

        def body() -> None:
            scheduler.sleep(random.uniform(20, 150))
            if "corpus.json" not in bucket.objects:
                return  # nothing to copy yet
            copied = dict(bucket.objects), dict(bucket.sha256_of)
            scheduler.sleep(random.uniform(5, 100))
            bucket.restore(*copied)
            self.job("job-9")()

        return body


def _let_pass(error: ConfigError) -> None:
    """What users of one folder, of no corpus yet, of a taken name or of a restored bucket are told."""
    expected = ("is writing to this corpus", "not a corpus", "manifest", "other objects")
    if isinstance(error, OtherHistory) or any(text in str(error) for text in expected):
        return
    raise error


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
    rows = _last_rows(bucket, entries, "episodes")
    _check_merged(bucket, entries)
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
        if sorted(used) != list(range(len(used))):
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


def _check_merged(bucket: Bucket, entries: list[dict[str, Any]]) -> None:
    """
    Raises:
        Broken: merging parts has lost, doubled or changed rows.
    """
    for table in TABLES if any(entry["replaced"] for entry in entries) else ():
        added = [row for entry in entries for row in _added(bucket, entry, table)]
        if sorted(map(repr, added)) != sorted(map(repr, _last_rows(bucket, entries, table))):
            raise Broken(f"{table} has other rows than were committed, after parts were merged")


def _added(bucket: Bucket, entry: dict[str, Any], table: str) -> list[dict[str, Any]]:
    """The rows that a commit adds to a table."""
    return [row for part in entry["added"].get(table, ()) for row in _rows(bucket, part)]


def _last_rows(bucket: Bucket, entries: list[dict[str, Any]], table: str) -> list[dict[str, Any]]:
    """The rows that a table has after all commits."""
    parts: list[dict[str, Any]] = []
    for entry in entries:
        if new := entry["replaced"].get(table):
            rest = [part for part in parts if part["path"] not in new["instead_of"]]
            parts = [*new["parts"], *rest]
        parts += entry["added"].get(table, ())
    return [row for part in parts for row in _rows(bucket, part)]


def _rows(bucket: Bucket, part: dict[str, Any]) -> list[dict[str, Any]]:
    data = bucket.objects[part["path"]].data
    if hashlib.sha256(data).hexdigest() != part["sha256"]:
        raise Broken(f"{part['path']} is not what was committed")
    return rows_of(data)
