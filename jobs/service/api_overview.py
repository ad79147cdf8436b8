"""REST: how far the episodes of a corpus have come, and what hours they have by tier."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Query, Request

from ingest.corpus.manifest_folders import manifest_names, open_manifest_folder
from jobs.service import models
from jobs.service.api import Number, keeper_of, newest_of, served_by
from jobs.service.manifest_list import listed
from jobs.service.selection import column_of, hours_of
from jobs.service.snapshot_cache import SnapshotCache
from schemas.errors import ConfigError, PipelineError

router = APIRouter()

GROUPS = ("source", "embodiment", "licence_class")
TIERS = ("high", "low", "actionless", "excluded")
MAX_GROUPS = 50
ROUNDING = 1e-9  # of sums of hours
_STEPS = {  # step -> column of episodes
    "measured": "measured",
    "tier": "judged",
    "captioned": "captioned",
    "latents": "with_latents",
}
_DISCOVERED = "SELECT count(*) AS discovered FROM verdicts"


class StepAnswer(models.StrictModel):
    step: str
    episodes: int
    hours: float | None


class GroupAnswer(models.StrictModel):
    value: str | None
    episodes: int
    hours: dict[str, float]


class OverviewAnswer(models.OfSnapshot):
    funnel: list[StepAnswer]
    hours: dict[str, list[GroupAnswer]]


@router.get("/overview")
def overview(
    request: Request,
    by: Annotated[list[str] | None, Query(max_length=20, description="Coded columns.")] = None,
    number: Number = None,
) -> OverviewAnswer:
    """Episodes and hours of every step; hours by tier of each value of coded columns.

    Without an ETag: manifests come and go within a snapshot.
    """
    served = served_by(request, number)
    cache = served.cache
    (verdicts,) = cache.ask(_DISCOVERED)
    discovered = max(verdicts["discovered"], cache.num_episodes)
    return OverviewAnswer(
        **newest_of(request, served),
        funnel=[
            StepAnswer(step="discovered", episodes=discovered, hours=None),
            StepAnswer(
                step="committed", episodes=cache.num_episodes, hours=float(cache.hours.sum())
            ),
            *(_step(cache, name, column) for name, column in _STEPS.items()),
            *_manifests(request),
        ],
        hours={name: hours_by_tier(cache, name) for name in by or GROUPS},
    )


def _step(cache: SnapshotCache, step: str, column: str) -> StepAnswer:
    """Episodes that have come this far."""
    texts = cache.columns[column].texts
    mask = numbers_of(cache, column) == (texts.index("true") if "true" in texts else len(texts))
    return StepAnswer(step=step, episodes=int(mask.sum()), hours=hours_of(cache, mask))


def _manifests(request: Request) -> Iterator[StepAnswer]:
    """Those that can be read, of one with versions the newest; /manifests names the damaged ones."""
    corpus = keeper_of(request).corpus
    for name in dict.fromkeys(each.partition("/")[0] for each in manifest_names(corpus)):
        try:
            row = listed(open_manifest_folder(corpus, name))
        except PipelineError:
            continue
        yield StepAnswer(step=f"manifest {name}", episodes=row["num_episodes"], hours=None)


def hours_by_tier(cache: SnapshotCache, name: str) -> list[GroupAnswer]:
    """Of each value of a coded column, most hours first. What no policy has judged is under "none".

    Raises:
        ConfigError: no such column, or it is not coded.
    """
    column = column_of(cache, name, "by")
    if column.kind != "coded" or column.values is None:
        raise ConfigError(f"{name} is no facet", where="by")
    codes, size = column.values.astype(np.intp) + 1, len(column.texts) + 1

    def summed(hours: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        return np.bincount(codes, np.nan_to_num(hours), size).astype(np.float64)

    sums = {tier: summed(numbers_of(cache, f"hours_{tier}")) for tier in TIERS}
    total = summed(cache.hours)
    left = total - np.sum(list(sums.values()), axis=0)
    sums["none"] = np.where(left > ROUNDING * total, left, 0.0)
    episodes = np.bincount(codes, minlength=size)
    groups = [
        GroupAnswer(
            value=text,
            episodes=int(episodes[place]),
            hours={tier: float(values[place]) for tier, values in sums.items()},
        )
        for place, text in enumerate((None, *column.texts))
        if episodes[place]
    ]
    return sorted(groups, key=lambda each: -sum(each.hours.values()))[:MAX_GROUPS]


def numbers_of(cache: SnapshotCache, name: str) -> npt.NDArray[Any]:
    values = cache.columns[name].values
    assert values is not None  # only columns of texts have none
    return values
