"""REST: episodes that are like one, by what the search for copies compares them by."""

from __future__ import annotations

import threading
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from ingest.curation.duplicates.similar import Neighbour, nearest
from jobs.service.api import Number, answered, newest_of, served_by
from jobs.service.details import row_of
from jobs.service.limits import place_within
from jobs.service.media import named_cameras
from jobs.service.models import OfSnapshot, StrictModel
from jobs.service.snapshot_cache import SnapshotCache

router = APIRouter()

MAX_SIMILAR = 100
WAIT_S = 5.0  # for another comparison
_comparing = threading.BoundedSemaphore(1)  # it reads the signature of every episode


class SimilarEpisode(StrictModel):
    uid: str
    episode_id: str | None
    source: str | None
    task: str
    tier: str | None
    duration_s: float | None
    cameras: list[str]
    similarity: float = Field(
        description="1 equal, 0 unrelated: the mean over pictures and motion, where both episodes have them."
    )
    pictures_distance: float | None
    path_distance: float | None


class SimilarAnswer(OfSnapshot):
    has_signature: bool = Field(description="false: `eicorpus measure` has not seen it move.")
    episodes: list[SimilarEpisode]


@router.get("/episodes/{uid}/similar", response_model=SimilarAnswer)
async def similar(
    request: Request,
    uid: str,
    limit: Annotated[int, Query(ge=1, le=MAX_SIMILAR)] = 20,
    number: Number = None,
) -> Response:
    """The episodes that look and move most like one, the most alike first."""
    served = served_by(request, number)

    def compute() -> SimilarAnswer:
        cache = served.cache
        row, vectors = row_of(cache, uid), cache.coarse_vectors
        neighbours = nearest(vectors, row, limit, cache.num_episodes)
        return SimilarAnswer(
            **newest_of(request, served),
            has_signature=vectors.has(row),
            episodes=[_answer(cache, each) for each in neighbours],
        )

    async with place_within(_comparing, WAIT_S, "other episodes are being compared"):
        return await run_in_threadpool(answered, request, served, compute)


def _answer(cache: SnapshotCache, neighbour: Neighbour) -> SimilarEpisode:
    row = cache.episode(neighbour.episode)
    return SimilarEpisode(
        uid=row["uid"],
        episode_id=row["episode_id"],
        source=row["source"],
        task="; ".join(task for task in row["tasks"] or () if task),
        tier=str(tier) if (tier := cache.columns["tier"].value(neighbour.episode)) else None,
        duration_s=row["duration_s"],
        cameras=[camera["name"] for camera in named_cameras(row)],
        similarity=neighbour.similarity,
        pictures_distance=neighbour.pictures,
        path_distance=neighbour.path,
    )
