"""`eicorpus caption`: what has no caption of this backend, model and prompt gets one, in batches that are committed as they come.

A segment is every stretch that a source has a task or sub-task text for, and the rest of an episode in windows that fill one contact sheet.
A run that is stopped, or whose endpoint dies, keeps what it has; the next one does the rest, and asks for nothing that is in the cache.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ingest import snapshot
from ingest.corpus import Corpus
from ingest.curation.caption.checks import CheckResult, collapse, negative_controls
from ingest.curation.caption.controls import false_captions
from ingest.curation.caption.protocol import Backend, EndpointDown, Outcome, Segment
from ingest.curation.caption.settings import CaptionSettings
from ingest.curation.caption.two_pass import Captioned, CaptionWork, caption_segment, look
from ingest.curation.english import is_placeholder
from ingest.disk import Disk
from ingest.snapshot import Snapshot
from ingest.stages.segment import runs
from schemas.errors import ConfigError, PipelineError, SourceError

CHUNK_EPISODES = 5000
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
        found = [negative_controls(self.false_captions)] if self.false_captions else []
        for source, texts in sorted(self.texts.items()):
            check = collapse(texts, self.source_texts[source])
            found.append(
                CheckResult(name=f"collapse {source}", verdict=check.verdict, why=check.why)
            )
        return found


def segments_of(
    row: Mapping[str, Any],
    segments: Sequence[Mapping[str, Any]],
    rate_hz: float,
    settings: CaptionSettings,
) -> list[Segment]:
    """What to caption of an episode, by time: stretches with a text of the source, and the rest in windows."""
    length, uid = int(row["length"]), row["uid"]
    texts: dict[tuple[int, int], list[str]] = {}
    is_told = np.zeros(length, dtype=bool)
    for segment in segments:
        if segment["kind"] in ("task", "subtask"):
            span = segment["start"], segment["end"]
            is_told[slice(*span)] = True
            known = texts.setdefault(span, [])
            if not is_placeholder(segment["text"]):
                known.append(segment["text"])
    sheet = settings.sheet
    window = max(round(sheet.max_frames / sheet.rate_hz * rate_hz), 1)
    for start, end in runs(~is_told):
        if end - start >= settings.min_segment_s * rate_hz:
            count = -(-(end - start) // window)
            edges = np.linspace(start, end, count + 1).round().astype(int)
            texts |= {(int(a), int(b)): [] for a, b in pairwise(edges)}
    return [
        Segment(
            uid=uid,
            start=start,
            end=end,
            duration_s=(end - start) / rate_hz,
            texts=tuple(dict.fromkeys(known)),
        )
        for (start, end), known in sorted(texts.items())
    ]


def work_of(
    corpus: Corpus, current: Snapshot, backend: Backend, settings: CaptionSettings
) -> Iterator[CaptionWork]:
    """Segments without a caption of this backend, model and prompt version, a few thousand episodes in memory at a time."""
    infos: dict[str, Any] = {}
    uids = current.read(corpus.root, "episodes", ["uid"]).column("uid").combine_chunks()
    for at in range(0, len(uids), CHUNK_EPISODES):
        only = pc.field("uid").isin(uids[at : at + CHUNK_EPISODES])
        told: dict[str, list[dict[str, Any]]] = {}
        for segment in current.read(corpus.root, "segments", only=only).to_pylist():
            told.setdefault(segment["uid"], []).append(segment)
        have = _captioned(corpus, current, backend, only)
        for row in current.read(corpus.root, "episodes", only=only).to_pylist():
            path = row["dataset_path"]
            if path not in infos:
                infos[path] = json.loads((corpus.root / path / "meta/info.json").read_text())
            rate_hz = float(infos[path]["fps"])
            for segment in segments_of(row, told.get(row["uid"], ()), rate_hz, settings):
                if (segment.uid, segment.start, segment.end) not in have:
                    yield CaptionWork(
                        corpus=str(corpus.root),
                        row=row,
                        features=infos[path]["features"],
                        rate_hz=rate_hz,
                        segment=segment,
                    )


def _captioned(
    corpus: Corpus, current: Snapshot, backend: Backend, only: pc.Expression
) -> set[tuple[str, int, int]]:
    columns = ["uid", "start", "end", "backend", "model", "prompt_version"]
    # `only` is about `uid`, which every part has; an older part has no `model`
    rows = current.read(corpus.root, "captions", columns, only=only).to_pylist()
    mine = (backend.id, backend.model, backend.prompt_version)
    return {
        (row["uid"], row["start"], row["end"])
        for row in rows
        if (row["backend"], row["model"], row["prompt_version"]) == mine
    }


def sheets_of(
    corpus: Corpus,
    current: Snapshot,
    captions: Sequence[Mapping[str, Any]],
    settings: CaptionSettings,
) -> Iterator[bytes | None]:
    """The contact sheet of each caption's segment; None where its video cannot be shown."""
    only = pc.field("uid").isin(pa.array([row["uid"] for row in captions], pa.string()))
    rows = current.read(corpus.root, "episodes", only=only).to_pylist()
    episodes = {row["uid"]: row for row in rows}
    for caption in captions:
        row = episodes[caption["uid"]]
        info = json.loads((corpus.root / row["dataset_path"] / "meta/info.json").read_text())
        segment = Segment(
            uid=row["uid"], start=caption["start"], end=caption["end"], duration_s=0.0
        )
        work = CaptionWork(
            corpus=str(corpus.root), row=row, features={}, rate_hz=info["fps"], segment=segment
        )
        try:
            seen = look(work, settings)
        except (
            SourceError
        ):  # an audit of the others is still worth having, and verify tells of this one
            seen = None
        yield seen.sheet.jpeg if seen and seen.sheet else None


def caption_corpus(
    corpus: Corpus,
    current: Snapshot,
    backend: Backend,
    settings: CaptionSettings,
    *,
    run_id: str,
    disk: Disk,
    limit: int | None = None,
    progress: Callable[[CaptionTally], None] = lambda tally: None,
) -> tuple[CaptionTally, Snapshot]:
    """Caption what is missing. The caller holds the writer lock.

    Raises:
        ConfigError: the endpoint refuses for good; what was captioned before is committed.
        TransientError: another writer was first; what is committed stays, run again.
    """
    tally = CaptionTally()
    batch: list[dict[str, Any]] = []
    size = BATCH_SEEN if backend.needs_pictures else BATCH_RULES
    first: list[CaptionWork] = []

    def flush(parent: Snapshot) -> Snapshot:
        if not batch:
            return parent
        rows = sorted(batch, key=lambda r: (r["uid"], r["start"], r["end"]))
        part = snapshot.write_part(disk, corpus.root, "captions", rows)
        batch.clear()
        return snapshot.publish(disk, corpus.root, parent, {"captions": part}, run_id)

    works = islice(work_of(corpus, current, backend, settings), limit)
    count = settings.endpoint.concurrency if backend.id == "openai" else 1
    try:
        for work, made in _results(
            works, lambda w: caption_segment(w, backend, settings, run_id), count
        ):
            _count(tally, work, made)
            if made.row is not None:
                batch.append(made.row)
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
    works: Iterator[CaptionWork], body: Callable[[CaptionWork], Captioned], count: int
) -> Iterator[tuple[CaptionWork, Captioned]]:
    """Results as they come, from `count` threads: the time goes into waiting for a server. What stops the run is raised last, after
    everything that was in flight has come in."""
    if count == 1:
        yield from ((work, body(work)) for work in works)
        return
    stopping: PipelineError | None = None
    flying: dict[Future[Captioned], CaptionWork] = {}
    pool = ThreadPoolExecutor(count, thread_name_prefix="caption")
    try:
        while True:
            room = 2 * count - len(flying) if stopping is None else 0
            flying |= {pool.submit(body, work): work for work in islice(works, room)}
            if not flying:
                break
            for future in wait(flying, return_when=FIRST_COMPLETED).done:
                work = flying.pop(future)
                error = future.exception()
                if isinstance(error, EndpointDown | ConfigError):
                    stopping = stopping or error
                else:
                    yield work, future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    if stopping is not None:
        raise stopping


def _count(tally: CaptionTally, work: CaptionWork, made: Captioned) -> None:
    tally.reached += 1
    tally.outcomes[made.outcome.value] += 1
    if made.row is None:
        has_failed = made.outcome is Outcome.TRANSPORT_ERROR
        tally.failed += has_failed
        tally.skipped += not has_failed
        tally.reasons[made.detail.split(":")[0][:80]] += 1
        return
    tally.captioned += 1
    tally.cached += made.was_cached
    tally.checks_failed.update(made.row["checks_failed"])
    if made.outcome is Outcome.OK:
        source = work.row["source"]
        tally.texts.setdefault(source, Counter())[made.row["text"]] += 1
        tally.source_texts.setdefault(source, Counter())
        if made.row["source_text"]:
            tally.source_texts[source][made.row["source_text"]] += 1
