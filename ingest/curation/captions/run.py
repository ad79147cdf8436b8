"""`eicorpus caption`: what has no caption of this backend, model and prompt gets one, in batches that are committed as they come.

A run that is stopped, or whose endpoint dies, keeps what it has; the next one does the rest, and asks for nothing that is in the cache.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

from ingest.corpus import publishing, snapshot
from ingest.corpus.layout import CorpusLayout
from ingest.corpus.snapshot import Snapshot
from ingest.curation.captions.checks import CheckResult, collapse, negative_controls
from ingest.curation.captions.describe_then_summarize import Captioned, CaptionWork, caption_segment
from ingest.curation.captions.negative_controls import false_captions
from ingest.curation.captions.protocol import Backend, CaptionOutcome, EndpointDown
from ingest.curation.captions.settings import CaptionSettings
from ingest.curation.captions.work import work_of
from ingest.storage.local import LocalStorage
from schemas.committed_rows import CaptionRow
from schemas.errors import ConfigError, PipelineError

MAX_REASONS = 20
TURN_S = 0.5
Work = TypeVar("Work")
Result = TypeVar("Result")
BATCH_SEEN, BATCH_RULES = (
    500,
    50_000,
)  # captions of a snapshot: seconds each to make, or microseconds


@dataclass(kw_only=True)
class CaptionTally:
    """reached = captioned + skipped + failed. `stopped` says why a run ended early."""

    reached: int = 0
    captioned: int = 0
    skipped: int = 0
    failed: int = 0
    cached: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    checks_failed: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)  # of what was skipped or failed
    stopped: str = ""
    false_captions: dict[str, tuple[int, int]] = field(default_factory=dict)
    texts: dict[str, Counter[str]] = field(default_factory=dict)  # source -> captions
    source_texts: dict[str, Counter[str]] = field(default_factory=dict)

    def run_checks(self) -> list[CheckResult]:
        """Checks 7 and 8: of the run as a whole, and of each source."""
        results = [negative_controls(self.false_captions)] if self.false_captions else []
        for source, texts in sorted(self.texts.items()):
            check = collapse(texts, self.source_texts[source])
            results.append(
                CheckResult(name=f"collapse {source}", verdict=check.verdict, why=check.why)
            )
        return results


def caption_corpus(
    corpus: CorpusLayout,
    current: Snapshot,
    backend: Backend,
    settings: CaptionSettings,
    *,
    run_id: str,
    disk: LocalStorage,
    limit: int | None = None,
    progress: Callable[[CaptionTally], None] = lambda tally: None,
) -> tuple[CaptionTally, Snapshot]:
    """Caption what is missing. The caller holds the writer lock.

    Raises:
        ConfigError: the endpoint refuses for good; what was captioned before is committed.
        TransientError: another writer was first; what is committed stays, run again.
    """
    tally = CaptionTally()
    batch: list[CaptionRow] = []
    size = BATCH_SEEN if backend.needs_pictures else BATCH_RULES
    first: list[CaptionWork] = []

    def flush(parent: Snapshot) -> Snapshot:
        if not batch:
            return parent
        rows = sorted(batch, key=lambda r: (r.uid, r.start, r.end))
        part = snapshot.write_part(disk, corpus.root, CaptionRow, rows)
        batch.clear()
        return publishing.publish(disk, corpus.root, parent, {"captions": part}, run_id)

    works = islice(work_of(corpus, current, backend, settings), limit)
    # twice a batch: some segments are at their first pass, others at their second
    local = 2 * settings.batch if settings.batch > 1 else 1
    count = {"openai": settings.endpoint.concurrency, "transformers": local}.get(backend.id, 1)
    try:
        for work, captioned in _results(
            works, lambda w: caption_segment(w, backend, settings, run_id), count, backend.stop
        ):
            _count(tally, work, captioned)
            if captioned.row is not None:
                batch.append(captioned.row)
                first += [work] if len(first) < settings.controls else []
            if len(batch) >= size:
                current = flush(current)
            progress(tally)
        if backend.needs_pictures and first:
            tally.false_captions = false_captions(first, backend, settings)
    except EndpointDown as error:
        tally.stopped = str(error)
    finally:
        current = flush(current)
    return tally, current


def _results(
    works: Iterator[Work], body: Callable[[Work], Result], count: int, stop: Callable[[], None]
) -> Generator[tuple[Work, Result], None, None]:
    """Results as they come, from `count` threads: the time goes into waiting for a server. What stops the run is raised last, after
    everything that was in flight has come in; only an interrupt does not wait for that (`stop`)."""
    if count == 1:
        yield from ((work, body(work)) for work in works)
        return
    stopping: PipelineError | None = None
    flying: dict[Future[Result], Work] = {}
    pool = ThreadPoolExecutor(count, thread_name_prefix="caption")
    has_ended = False
    try:
        while True:
            room = 2 * count - len(flying) if stopping is None else 0
            flying |= {pool.submit(body, work): work for work in islice(works, room)}
            if not flying:
                has_ended = True
                break
            # by turns: a signal that another thread gets is seen only when this one runs
            for future in wait(flying, timeout=TURN_S, return_when=FIRST_COMPLETED).done:
                work = flying.pop(future)
                error = future.exception()
                if isinstance(error, EndpointDown | ConfigError):
                    stopping = stopping or error
                else:
                    yield work, future.result()
    finally:
        if not has_ended:
            stop()
        pool.shutdown(wait=True, cancel_futures=True)
    if stopping is not None:
        raise stopping


def _count(tally: CaptionTally, work: CaptionWork, captioned: Captioned) -> None:
    tally.reached += 1
    tally.outcomes[captioned.outcome.value] += 1
    if captioned.row is None:
        has_failed = captioned.outcome is CaptionOutcome.TRANSPORT_ERROR
        tally.failed += has_failed
        tally.skipped += not has_failed
        tally.reasons[_reason(captioned.detail, tally.reasons)] += 1
        return
    tally.captioned += 1
    tally.cached += captioned.was_cached
    tally.checks_failed.update(captioned.row.checks_failed)
    if captioned.outcome is CaptionOutcome.OK:
        source = work.row["source"]
        tally.texts.setdefault(source, Counter())[captioned.row.text] += 1
        tally.source_texts.setdefault(source, Counter())
        if captioned.row.source_text:
            tally.source_texts[source][captioned.row.source_text] += 1


def _reason(detail: str, known: Mapping[str, int]) -> str:
    """What it is counted under: a place in a video is of one segment only, and so may be what a server says."""
    if detail.startswith("video:") or (detail[:120] not in known and len(known) >= MAX_REASONS):
        return detail.split(":")[0][:80]
    return detail[:120]
