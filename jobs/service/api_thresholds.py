"""REST: the thresholds of the policy in force, and what the tiers would be under others. Nothing is stored."""

from __future__ import annotations

import threading
from typing import Annotated
from weakref import WeakKeyDictionary

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from ingest.curation.tiers.count import Count, judged_counts
from ingest.curation.tiers.explain import policy_in_force
from ingest.curation.tiers.policy import BUILT_IN, QualityPolicy
from ingest.curation.tiers.tier import Judged, judge
from jobs.service import models
from jobs.service.api import Number, current_of, keeper_of, newest_of, served_by
from jobs.service.cache_build import MEASUREMENT
from jobs.service.keeper import Served
from jobs.service.limits import place_within
from jobs.service.thresholds import changed, comparisons
from schemas.errors import ConfigError

router = APIRouter()

MAX_CHANGES = 50
THREADS = 1  # of one what-if
WAIT_S = 10.0  # for another one: dragging asks often
JUDGING = threading.BoundedSemaphore(1)  # it reads every measurement of the corpus
_kept = WeakKeyDictionary[Served, Judged]()


class ThresholdAnswer(models.StrictModel):
    name: str
    measurement: str
    word: str
    value: float
    rule: str
    tier: str | None
    text: str
    origin: str


class ThresholdsAnswer(models.OfSnapshot):
    policy: str
    policy_name: str = Field(description="The `base` of POST /policies.")
    policy_digest: str = Field(description="The `base_digest` of POST /policies.")
    thresholds: list[ThresholdAnswer]


class CountAnswer(models.StrictModel):
    source: str
    tier: str
    segments: int
    hours: float
    segments_before: int
    hours_before: float


class WhatIfAnswer(models.OfSnapshot):
    policy: str
    counts: list[CountAnswer]


def judged_in_force(request: Request, served: Served) -> Judged:
    """Every segment and what decides on it, gathered once for a snapshot: other thresholds need the same. The caller holds `JUDGING`.

    It goes with its snapshot, so that an erased episode does not stay here; one is kept.
    """
    if served not in _kept:
        corpus, current = keeper_of(request).corpus, current_of(request, served)
        policy = policy_in_force(corpus, current, BUILT_IN)
        _kept.clear()
        _kept[served] = judge(corpus, current, policy, threads=THREADS)
    return _kept[served]


def policy_of(request: Request, served: Served) -> QualityPolicy:
    return policy_in_force(keeper_of(request).corpus, current_of(request, served), BUILT_IN)


@router.get("/thresholds")
def thresholds(request: Request, number: Number = None) -> ThresholdsAnswer:
    """What the policy in force compares measurements of whole episodes with. Those that nothing has are left out."""
    served = served_by(request, number)
    policy = policy_of(request, served)
    answers = []
    for name, (way, word, condition) in comparisons(policy).items():
        rule = policy.rules[way[1]] if way[0] == "rules" and isinstance(way[1], int) else None
        if f"{MEASUREMENT}{condition.measurement}" not in served.cache.columns:
            continue
        answers.append(
            ThresholdAnswer(
                name=name,
                measurement=str(condition.measurement),
                word=word,
                value=condition.thresholds[word],
                rule=rule.code if rule else str(way[1]),
                tier=rule.tier.value if rule else None,
                text=rule.text if rule else "",
                origin=condition.origin or "",
            )
        )
    return ThresholdsAnswer(
        **newest_of(request, served),
        policy=policy.title,
        policy_name=policy.policy,
        policy_digest=policy.digest,
        thresholds=answers,
    )


@router.get("/what-if")
async def what_if(
    request: Request,
    changes: Annotated[
        list[str] | None,
        Query(alias="threshold", max_length=MAX_CHANGES, description="NAME:VALUE; repeatable."),
    ] = None,
    number: Number = None,
) -> WhatIfAnswer:
    """Segments and hours by source and tier, under the policy in force and with other thresholds. One at a time."""
    served = served_by(request, number)
    values = dict(map(_change, changes or ()))
    async with place_within(JUDGING, WAIT_S, "another what-if is running"):
        return await run_in_threadpool(_compared, request, served, values)


def _compared(request: Request, served: Served, values: dict[str, float]) -> WhatIfAnswer:
    base = judged_in_force(request, served)
    policy = changed(base.policy, values)
    before = judged_counts(base)
    after = judged_counts(base.under(policy))
    none = Count()
    counts = [
        CountAnswer(
            source=source,
            tier=tier,
            segments=after.get((source, tier), none).segments,
            hours=after.get((source, tier), none).hours,
            segments_before=before.get((source, tier), none).segments,
            hours_before=before.get((source, tier), none).hours,
        )
        for source, tier in sorted({*before, *after})
    ]
    return WhatIfAnswer(**newest_of(request, served), policy=base.policy.title, counts=counts)


def _change(text: str) -> tuple[str, float]:
    name, _, value = text.rpartition(":")
    try:
        return name, float(value)
    except ValueError as error:
        raise ConfigError(f"{text[:200]!r} is not NAME:VALUE", where="threshold") from error
