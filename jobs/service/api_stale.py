"""REST: what this version, the policy in force and today's reviews would make otherwise, and what was compared to know it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from typing import Literal

from fastapi import APIRouter, Request

from adapters.registry import ADAPTERS, adapter_for
from ingest.corpus import reviews, snapshot
from ingest.corpus.layout import CorpusLayout
from ingest.corpus.snapshot import Snapshot
from ingest.curation.measurements.registry import select_measures
from ingest.curation.measurements.runner import missing
from ingest.curation.tiers.explain import policy_in_force
from ingest.curation.tiers.last_run import is_up_to_date
from ingest.curation.tiers.policy import BUILT_IN
from jobs.service import models
from jobs.service.api import Number, current_of, keeper_of, newest_of, served_by
from jobs.service.limits import place
from jobs.service.snapshot_cache import SnapshotCache

router = APIRouter()

# What `_stale` compares; a duplicate, caption or export that is out of date is a matter of `eicorpus plan`.
COMPARED = (
    "adapter versions",
    "measurements with those of this version",
    "tiers with the policy in force and what it reads",
    "reviews that wait",
    "latents with their videos",
)
_comparing = threading.BoundedSemaphore(1)  # it reads every measurement of the corpus
_VERSIONS = (
    "SELECT source, adapter_version, count(*) AS episodes FROM episodes GROUP BY ALL ORDER BY ALL"
)
_OTHER_VIDEO = """SELECT l.encoder_id, count(*) AS files FROM latents l JOIN artifacts a
    ON a.episode = l.episode AND a.kind = 'video' AND a.camera = l.camera AND a.sha256 <> l.video_sha256 GROUP BY ALL ORDER BY ALL"""


class StaleAnswer(models.StrictModel):
    kind: Literal["adapter_versions", "measurements", "tiers", "reviews", "latents"]
    what: str
    count: int
    remedy: str


class StalenessAnswer(models.OfSnapshot):
    compared: list[str]
    stale: list[StaleAnswer]


@router.get("/stale")
def stale(request: Request, number: Number = None) -> StalenessAnswer:
    """What is out of date, and what was compared: nothing is known of the rest. The first answer of a snapshot reads every measurement."""
    served = served_by(request, number)
    current = current_of(request, served)
    with place(_comparing, "another comparison is running"):
        rows = list(_stale(CorpusLayout(keeper_of(request).corpus), current, served.cache))
    counts: Counter[str] = Counter()
    for each in rows:
        counts[each.kind] += each.count
    request.app.state.metrics.corpus.note_stale(served.cache, counts)
    return StalenessAnswer(
        **newest_of(request, served),
        compared=list(COMPARED),
        stale=[each for each in rows if each.count],
    )


def _stale(corpus: CorpusLayout, current: Snapshot, cache: SnapshotCache) -> Iterator[StaleAnswer]:
    for row in cache.ask(_VERSIONS):
        source, version = row["source"], row["adapter_version"]
        if source in ADAPTERS and (newest := adapter_for(source).version) != version:
            yield StaleAnswer(
                kind="adapter_versions",
                what=f"episodes of {source} by adapter version {version}, now {newest}",
                count=row["episodes"],
                remedy="ingest them into a new corpus",
            )
    yield from _of_curation(corpus, current, cache.key.folder)
    for row in cache.ask(_OTHER_VIDEO):
        yield StaleAnswer(
            kind="latents",
            what=f"latents of {row['encoder_id']} of videos that were replaced",
            count=row["files"],
            remedy="run eicorpus latents images",
        )


def _of_curation(corpus: CorpusLayout, current: Snapshot, key: str) -> Iterator[StaleAnswer]:
    unmeasured, unjudged = _unfinished(corpus, current.number, key)
    yield StaleAnswer(
        kind="measurements",
        what="episodes that lack a measurement, or have one of an earlier version",
        count=unmeasured,
        remedy="run eicorpus measure",
    )
    yield StaleAnswer(
        kind="tiers",
        what="episodes whose tiers are older than their measurements, their reviews or the policy, or missing",
        count=unjudged,
        remedy="run eicorpus tier",
    )
    yield StaleAnswer(
        kind="reviews",
        what="reviews that no command has published",
        count=reviews.num_pending(corpus, current),
        remedy="any command that writes to the corpus publishes them, such as eicorpus tier",
    )


@lru_cache(maxsize=1)
def _unfinished(corpus: CorpusLayout, number: int, _key: str) -> tuple[int, int]:
    """Episodes to measure and to judge. Of one snapshot it never changes; `_key` tells it from that of a corpus made anew at this path."""
    current = snapshot.load(corpus.root, number or None)
    policy = policy_in_force(corpus.root, current, BUILT_IN)
    is_judged = is_up_to_date(corpus.root, current, policy)
    unjudged = 0 if is_judged else current.read(corpus.root, "episodes", ["uid"]).num_rows
    return len(missing(corpus, current, select_measures(())).lacks), unjudged
