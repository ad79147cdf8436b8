"""One ingest run: recover, plan, execute, commit in plan order, account for every episode.

Outcomes are committed in the order of the plan whatever order they end in, so a run on Ray numbers episodes as a local one
does and the two corpora are equal to the byte.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from ingest.corpus import publishing
from ingest.corpus.commit import Committer, datasets_of
from ingest.corpus.layout import CorpusLayout
from ingest.corpus.ledger import EndFacts, Ledger
from ingest.corpus.remote_link import lane_of, read_link
from ingest.corpus.snapshot import Snapshot
from ingest.corpus.staging import keep_outcome, kept_outcome, staged_before
from ingest.corpus.tombstones import FORGOTTEN
from ingest.corpus.writer import recover
from ingest.executors.inline import DRIVER, Executor, Located, Monitored, Placement
from ingest.executors.node_proof import Distributed, shared
from ingest.pipeline.node_rates import NodeRates
from ingest.pipeline.plan import Plan, Request, files_of
from ingest.pipeline.process import DISK_FULL, Work, guarded, is_doubtful
from ingest.pipeline.tally import ABSENT, Tally, tally_of
from ingest.raw_data.bucket_source import let_go
from ingest.recipe import Limits
from ingest.storage.local import LocalStorage
from schemas.committed_rows import RunRow, SourceRow, VerdictRow
from schemas.episode import EpisodeRef
from schemas.errors import InvariantError, TransientError
from schemas.outcome import Outcome, State, WorkerFailure

STAGING_LOST = "staging_lost"
# Outcomes that wait for their turn: an episode that takes its limit of 1800 s lets 256 workers end 920,000 others of half a second.
MAX_WAITING = 1_000_000
MAX_IN_MEMORY = 1_000  # of those; others that are staged are read from their staging folders again
MAX_ATTEMPTS = 20  # of one episode in one run, machines that went away included
# Attempts are in the ledger before the work begins, some at a time. Of a run that is stopped a few have not begun; without an end they
# say nothing of their episode.
RECORDED_AHEAD = 32
BATCH_EPISODES = 1000  # to a snapshot, until a run has committed fifty times that


Progress = Callable[[Tally], None]


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """What `jobs/` knows and the library must not ask for: identity, clock, and whom to tell."""

    run_id: str
    command: str
    now: Callable[[], Any]  # timezone-aware datetime
    monotonic_s: Callable[[], float]
    progress: Progress = lambda tally: None
    warn: Callable[[str], None] = lambda message: None
    flush_every_s: float = 15.0


def ingest(
    request: Request,
    plan: Plan,
    *,
    corpus: CorpusLayout,
    current: Snapshot,
    executor: Executor,
    limits: Limits,
    context: RunContext,
    disk: LocalStorage,
) -> Tally:
    """Run a plan against a corpus that this process holds the writer lock of.

    Raises:
        TransientError: the disk is full or another writer was first; what is committed stays, run again.
    """
    started_at = context.now()
    datasets = datasets_of(corpus.root, current)
    recover(corpus, disk, current, datasets)
    link = read_link(corpus.root)
    upload_to = link.uri if link is not None and isinstance(executor, Distributed) else ""
    committer = Committer(
        corpus=corpus,
        disk=disk,
        run_id=context.run_id,
        parent=current,
        datasets=datasets,
        lane=lane_of(corpus.root),
        staged_in=publishing.store_of(upload_to) if upload_to else None,
    )
    run = _Run(request, plan, corpus, committer, limits, context, disk, upload_to)

    def finish() -> Tally:
        run.flush()
        # Not `run.tally`: an interrupt may fall between handing an episode to the committer and counting it.
        lasting = tally_of(plan, committer.ends)
        is_known = _is_known(corpus, current, plan)
        sources = [] if is_known else [_source_row(request, plan, context)]
        suspects = sorted(run.tally.suspect_nodes.values())
        committer.flush(
            [*sources, _run_row(request, executor, lasting, context, started_at, suspects)]
        )
        return lasting

    try:
        run.leave_out()
        run.observed = executor if isinstance(executor, Monitored) else None
        with shared(
            executor,
            corpus,
            disk,
            files=partial(files_of, request, plan.todo),
            adapter=request.source,
            is_doubtful=is_doubtful,
            num_work=len(plan.todo),
            bucket=upload_to,
        ):
            let_go(request.bucket)  # what planning has opened would fill the cache of the workers
            # Asked once: whether an object fits a protocol takes longer than to count its outcome.
            located = executor if isinstance(executor, Located) else None
            for work, result in executor.run(run.next_work, guarded):
                run.take(work, result, None if located is None else located.latest)
            run.hand_over_all()
    except KeyboardInterrupt:
        # Stopped in the middle of a flush, the numbering is ahead of what is committed: leave that to recovery.
        if not committer.is_broken_off:
            finish()
        raise
    if not run.tally.adds_up:
        raise InvariantError(
            f"discovered {run.tally.discovered} episodes, but only {run.tally.ended} have a result"
        )
    lasting = finish()
    if lasting.ended != run.tally.ended:
        raise InvariantError(f"counted {run.tally.ended} results, but committed {lasting.ended}")
    return run.tally


class _Run:
    """The moving parts of one run: what to hand out next, what came back, what waits for its turn."""

    def __init__(
        self,
        request: Request,
        plan: Plan,
        corpus: CorpusLayout,
        committer: Committer,
        limits: Limits,
        context: RunContext,
        disk: LocalStorage,
        upload_to: str = "",
    ) -> None:
        self.request, self.plan, self.corpus = request, plan, corpus
        self.committer, self.limits, self.context = committer, limits, context
        self.disk, self.upload_to = disk, upload_to
        self.ledger = Ledger(disk, corpus.ledger, context.run_id)
        self.fresh = iter(plan.todo)
        self.recorded: deque[EpisodeRef] = (
            deque()
        )  # the next of `fresh`: their attempts are in the ledger
        self.again: deque[Work] = deque()
        self.deaths: Counter[str] = Counter()
        self.attempts: Counter[str] = Counter()
        self.order: deque[str] = (
            deque()
        )  # of those that were recorded, not yet handed to the committer
        self.ready: dict[str, tuple[EpisodeRef, Outcome | None]] = {}  # None: it is staged
        self.num_in_memory = 0
        self.placements: dict[str, Placement] = {}  # of results that wait
        self.end_facts: dict[str, EndFacts] = {}  # of episodes that are not yet flushed
        self.node_rates = NodeRates()
        self.observed: Monitored | None = None
        self.started_s = self.last_flush_s = self.handed_over_s = context.monotonic_s()
        self.tally = tally_of(plan, {})

    def leave_out(self) -> None:
        """What was forgotten counts as filtered, run after run: nothing vanishes without a word."""
        for ref in self.plan.forgotten:
            outcome = Outcome(
                uid=ref.uid,
                state=State.FILTERED,
                code=FORGOTTEN,
                message="erased by `eicorpus forget`; use `ingest --restore` to ingest it again",
            )
            work = self._work(ref)
            verdict = self._verdict(work, outcome, State.FILTERED)
            self.committer.add(outcome, verdict, Path(work.staging), episodes=ref.stands_for)
            self.tally.count(outcome, State.FILTERED, ref.stands_for)

    def next_work(self) -> Work | None:
        if not self.again:
            return self._fresh_work()
        work = self.again.popleft()
        self.attempts[work.ref.uid] += 1
        self.ledger.attempts({work.ref.uid: self.attempts[work.ref.uid]})
        return work

    def _fresh_work(self) -> Work | None:
        # Outcomes wait for the first of the plan; a hanging one must not let them pile up without bound.
        if len(self.ready) >= MAX_WAITING:
            return None
        if not self.recorded:
            self.recorded += islice(self.fresh, RECORDED_AHEAD)
            self.order += (ref.uid for ref in self.recorded)
            self.ledger.attempts({ref.uid: 1 for ref in self.recorded})
        if not self.recorded:
            return None
        ref = self.recorded.popleft()
        self.attempts[ref.uid] = 1
        return self._work(ref)

    def _work(self, ref: EpisodeRef) -> Work:
        return Work(
            ref=ref,
            adapter=self.request.source,
            recipe=self.request.recipe,
            staging=str(self.corpus.staging_dir(ref.uid, self.plan.digest)),
            options_digest=self.plan.options_digest,
            assets=self.plan.assets,
            bucket=self.request.bucket,
            num_threads=self.limits.threads_per_episode,
            upload_to=self.upload_to,
        )

    def take(
        self, work: Work, result: Outcome | WorkerFailure, placement: Placement | None = None
    ) -> None:
        """One result: a death may be tried again, an outcome waits for its turn in plan order."""
        uid, placement = work.ref.uid, placement or Placement()
        if isinstance(result, WorkerFailure):
            self.deaths[uid] += not result.node_lost
            self.ledger.death(uid, result)
            is_hopeless = self.attempts[uid] >= MAX_ATTEMPTS
            if self.deaths[uid] < self.limits.deaths_to_quarantine and not is_hopeless:
                self.again.append(work)
                return
            result = Outcome(
                uid=uid, state=State.QUARANTINED, code=result.code.value, message=result.how
            )
        self.placements[uid] = placement
        self._watch_nodes(placement.node, result)
        self._observe(work.ref, result, placement)
        self._keep(work, result)
        self._hand_over()
        self.context.progress(self.tally)
        if result.code == DISK_FULL:
            self.flush()
            raise TransientError(
                f"the disk is full ({result.message})",
                remedy="free disk space and run the same command again",
                where=str(self.corpus.root),
            )

    def _observe(self, ref: EpisodeRef, result: Outcome, placement: Placement) -> None:
        if self.observed is None:
            return
        tags = {
            "state": _ended(result).value,
            "code": result.code,
            "source": ref.source,
            "node": placement.node,
        }
        self.observed.observe(tags, placement.seconds, len(self.ready))

    def _watch_nodes(self, node: str, result: Outcome) -> None:
        """Name a node once that quarantines far more than the others. What is absent says nothing of one, nor does an unknown place."""
        if node in ("", DRIVER) or result.code in ABSENT:
            return
        is_quarantined = result.state is State.QUARANTINED
        self.node_rates.count(node, is_quarantined=is_quarantined)
        if not is_quarantined or node in self.tally.suspect_nodes:
            return
        text = self.node_rates.suspects().get(node)
        if text is not None:
            self.tally.suspect_nodes[node] = text
            self.context.warn(f"{text}; check its disk, memory and libraries, or remove it")

    def _keep(self, work: Work, outcome: Outcome) -> None:
        is_kept = outcome.state is not State.STAGED or self.num_in_memory < MAX_IN_MEMORY
        self.num_in_memory += is_kept
        if not is_kept and self.upload_to:
            keep_outcome(Path(work.staging), outcome, self.disk)
        self.ready[work.ref.uid] = (work.ref, outcome if is_kept else None)

    def _kept(self, uid: str) -> tuple[Work, Outcome]:
        """The next outcome, of which its staging folder may have the only copy."""
        ref, outcome = self.ready.pop(uid)
        self.num_in_memory -= outcome is not None
        work = self._work(ref)
        if outcome is None:
            kept = kept_outcome if self.upload_to else staged_before
            outcome = kept(Path(work.staging)) or Outcome(
                uid=uid,
                state=State.FAILED,
                code=STAGING_LOST,
                message="its staging folder was removed or changed while the episode waited for earlier ones; run again",
            )
        return work, outcome

    def hand_over_all(self) -> None:
        """When all episodes have ended: those that still wait, in order."""
        while self._is_next_ready():
            self._hand_over_one()

    def _hand_over(self) -> None:
        """One outcome for each that came. Where more wait, half of the time that was spent waiting for this one: workers get new work first."""
        began_s = self.context.monotonic_s()
        spare_s = (began_s - self.handed_over_s) / 2
        while self._is_next_ready():
            self._hand_over_one()
            if self.context.monotonic_s() - began_s >= spare_s:
                break
        self.handed_over_s = self.context.monotonic_s()

    def _is_next_ready(self) -> bool:
        return bool(self.order) and self.order[0] in self.ready

    def _hand_over_one(self) -> None:
        work, outcome = self._kept(self.order.popleft())
        state = _ended(outcome)
        verdict, folder = self._verdict(work, outcome, state), Path(work.staging)
        self.committer.add(outcome, verdict, folder, episodes=work.ref.stands_for)
        self.tally.count(outcome, state, work.ref.stands_for)
        self.end_facts[outcome.uid] = self._facts(work.ref, outcome)
        if self.committer.pending and self._is_due():
            self.flush()

    def _is_due(self) -> bool:
        """A batch is a 50th of what this run has done so far, so that snapshots grow with the logarithm of its length.

        A stop costs little however large the batch is: what is staged stays staged.
        """
        now_s = self.context.monotonic_s()
        is_full = len(self.committer.pending) >= max(BATCH_EPISODES, self.tally.committed // 50)
        patience_s = max(self.context.flush_every_s, (now_s - self.started_s) / 50)
        return is_full or now_s - self.last_flush_s >= patience_s

    def flush(self) -> None:
        ends = ((outcome, _ended(outcome)) for outcome in self.committer.flush())
        self.ledger.ends(ends, self.end_facts)
        self.end_facts.clear()
        self.last_flush_s = self.context.monotonic_s()

    def _facts(self, ref: EpisodeRef, outcome: Outcome) -> EndFacts:
        placement = self.placements.pop(ref.uid, Placement())
        videos = outcome.staged.videos if outcome.staged is not None else ()
        return EndFacts(
            source=ref.source,
            dataset=ref.dataset,
            node=placement.node,
            seconds=round(placement.seconds, 3),
            attempt=self.attempts[ref.uid],
            video_bytes=sum(video["num_bytes"] for video in videos),
        )

    def _verdict(self, work: Work, outcome: Outcome, state: State) -> VerdictRow:
        ref = work.ref
        return VerdictRow(
            uid=ref.uid,
            source=ref.source,
            dataset=ref.dataset,
            episode_id=ref.episode_id,
            state=state.value,
            code=outcome.code,
            message=outcome.message,
            attempts=self.attempts[ref.uid],
            run_id=self.context.run_id,
            snapshot=0,  # the committer's to say
        )


def _ended(outcome: Outcome) -> State:
    return State.COMMITTED if outcome.state is State.STAGED else outcome.state


def _is_known(corpus: CorpusLayout, current: Snapshot, plan: Plan) -> bool:
    """Whether the sources table already says all this."""
    rows = current.rows(corpus.root, SourceRow)
    facts = [fact.as_row() for fact in plan.info.facts]
    return any(
        row.source == plan.info.source
        and row.dataset == plan.info.dataset
        and row.adapter_version == plan.adapter_version
        and row.facts == facts
        for row in rows
    )


def _source_row(request: Request, plan: Plan, context: RunContext) -> SourceRow:
    info = plan.info
    return SourceRow(
        source=info.source,
        dataset=info.dataset,
        root=request.place,
        adapter_version=plan.adapter_version,
        licence=info.licence.name,
        licence_class=info.licence.licence_class,
        facts=[fact.as_row() for fact in info.facts],
        notes=list(info.notes),
        run_id=context.run_id,
    )


def _run_row(
    request: Request,
    executor: Executor,
    tally: Tally,
    context: RunContext,
    started_at: Any,
    suspects: list[str],
) -> RunRow:
    return RunRow(
        run_id=context.run_id,
        command=context.command,
        started_at=started_at,
        finished_at=context.now(),
        executor=executor.name,
        recipe_digest=request.recipe.digest,
        recipe_json=request.recipe.canonical_json(),
        discovered=tally.discovered,
        committed=tally.committed,
        filtered=tally.filtered,
        quarantined=tally.quarantined,
        failed=tally.failed,
        not_reached=tally.not_reached,
        suspect_nodes=suspects,
    )
