"""REST: the corpus, pages of episodes, facets, histograms, and one episode."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse

from ingest.corpus import snapshot
from ingest.corpus.snapshot import Snapshot
from ingest.curation.tiers.explain import explain, policy_in_force
from ingest.curation.tiers.policy import BUILT_IN
from jobs.service import models, pages
from jobs.service.cache_build import CODED, MEASUREMENT, NUMBERS, SHOWN
from jobs.service.details import detail, row_of
from jobs.service.errors import ApiError
from jobs.service.keeper import Keeper, Served
from jobs.service.limits import place_within
from jobs.service.ranges import any_matches
from jobs.service.selection import Filter, column_of, hours_of, parse_filters, words_of
from jobs.service.snapshot_cache import Rows, SnapshotCache
from jobs.ui.query_result import json_value
from schemas.errors import ConfigError

router = APIRouter()

MAX_COLUMNS = 100
EXPLAIN_WAIT_S = 5.0
_explaining = threading.BoundedSemaphore(2)  # it looks for the episode in every part of the catalog
FACETS = ("source", "embodiment", "tier", "licence_class", "split")
Number = Annotated[
    int | None,
    Query(alias="snapshot", ge=0, description="Snapshot to read. Default: the one served."),
]
Filters = Annotated[
    list[str] | None,
    Query(
        alias="filter",
        description="COLUMN:OP:VALUE with eq, ne, lt, le, gt, ge or null; repeatable.",
    ),
]
Search = Annotated[
    str,
    Query(max_length=2000, description="Words that occur in the id, the tasks or the captions."),
]


Edge = Annotated[float | None, Query(ge=-pages.MAX_EDGE, le=pages.MAX_EDGE)]


def keeper_of(request: Request) -> Keeper:
    keeper: Keeper = request.app.state.keeper
    return keeper


def served_by(request: Request, number: int | None = None) -> Served:
    """Raises ApiError where nothing can be served, as `Keeper.at`."""
    return keeper_of(request).at(number)


def current_of(request: Request, served: Served) -> Snapshot:
    """The snapshot itself, for what the cache does not have.

    Raises:
        ConfigError: the corpus has changed since the cache was opened.
    """
    current = snapshot.load(keeper_of(request).corpus, served.cache.snapshot or None)
    if current.number != served.cache.snapshot:
        raise ConfigError("the snapshot has changed; try again")
    return current


def refuse_read_only(request: Request) -> None:
    """Raises ApiError: 403, the server only reads."""
    if request.app.state.jobs is None:
        raise ApiError(403, "read_only", "this server only reads the corpus")


def newest_of(request: Request, served: Served) -> dict[str, int]:
    """The two fields of every answer about a snapshot."""
    newest = keeper_of(request).state.newest
    return {"snapshot": served.cache.snapshot, "newest_snapshot": newest}


def etag_of(request: Request, served: Served) -> str:
    """Strong: the same query to the same snapshot gives the same bytes."""
    own = [
        served.cache.key.folder,
        str(keeper_of(request).state.newest),
        request.url.path,
        request.url.query,
        request.headers.get("accept", ""),
    ]
    return f'"{hashlib.sha256(chr(10).join(own).encode()).hexdigest()[:32]}"'


def answered(request: Request, served: Served, compute: Callable[[], BaseModel]) -> Response:
    """The answer of a query that depends on its snapshot alone, with its ETag: 304 where the client has it, made once for all who ask."""
    etag, known = etag_of(request, served), request.headers.get("if-none-match")
    headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
    if known is not None and any_matches(known, etag):
        return Response(status_code=304, headers=headers)
    body = served.answers.get(etag, lambda: compute().model_dump_json().encode())
    return Response(body, media_type="application/json", headers=headers)


@router.get("/corpora")
def corpora(request: Request) -> models.CorporaAnswer:
    """The corpora of this server, and what of them is served."""
    keeper = keeper_of(request)
    state = keeper.state
    cache = state.held[0].cache if state.held else None
    corpus = models.CorpusAnswer(
        name=keeper.corpus.name,
        uid=cache.key.corpus_uid if cache else "",
        snapshot=cache.snapshot if cache else None,
        newest_snapshot=state.newest,
        is_building=state.is_building,
        problem=state.problem,
        episodes=cache.num_episodes if cache else None,
        hours=float(cache.hours.sum()) if cache else None,
        policy=cache.key.policy if cache else None,
        policy_digest=cache.key.policy_digest if cache else None,
    )
    return models.CorporaAnswer(corpora=[corpus])


@router.get("/columns")
def columns(request: Request, number: Number = None) -> models.ColumnsAnswer:
    """What episodes can be filtered and sorted by. Numbers have histograms, coded columns are facets."""
    served = served_by(request, number)
    return models.ColumnsAnswer(
        **newest_of(request, served),
        columns=[
            models.ColumnAnswer(name=each.name, kind=each.kind, unit=each.unit)
            for each in served.cache.columns.values()
        ],
    )


@router.get("/episodes", response_model=models.EpisodesAnswer)
def episodes(
    request: Request,
    filters: Filters = None,
    q: Search = "",
    sort: Annotated[str, Query(max_length=300, description="A column; -COLUMN descends.")] = "uid",
    limit: Annotated[int, Query(ge=1, le=pages.MAX_LIMIT)] = 100,
    cursor: Annotated[str | None, Query(max_length=pages.MAX_CURSOR)] = None,
    more: Annotated[
        list[str] | None, Query(alias="column", description="Measurements to show; repeatable.")
    ] = None,
    number: Number = None,
) -> Response:
    """A page of episodes."""
    served = served_by(request, number)

    def compute() -> models.EpisodesAnswer:
        cache = served.cache
        parsed, words = asked(cache, filters, q)
        mask = served.selection.mask(parsed, words)
        order = pages.Sort.parse(sort)
        shown = [column_of(cache, name, "column").name for name in (more or ())[:MAX_COLUMNS]]
        if order.column.startswith(MEASUREMENT):
            shown.append(order.column)
        episodes_page = pages.page(cache, mask, order, limit, cursor)
        return models.EpisodesAnswer(
            **newest_of(request, served),
            episodes=_rows(cache, episodes_page.rows, shown),
            total=int(mask.sum()),
            hours=hours_of(cache, mask),
            cursor=episodes_page.cursor,
        )

    return answered(request, served, compute)


def asked(
    cache: SnapshotCache, filters: list[str] | None, q: str
) -> tuple[tuple[Filter, ...], tuple[str, ...]]:
    """What a request selects, parsed."""
    return parse_filters(filters or (), cache), words_of(q)


def _rows(cache: SnapshotCache, rows: Rows, more: list[str]) -> list[dict[str, Any]]:
    """The columns of a page, and the ones asked for."""
    texts = cache.texts.select(list(SHOWN)).take(rows).to_pylist()
    names = dict.fromkeys([*CODED, *NUMBERS, *more])
    values = {name: cache.columns[name].values_of(rows) for name in names}
    return [
        {**text, **{name: values[name][place] for name in names}}
        for place, text in enumerate(texts)
    ]


@router.get("/facets", response_model=models.FacetsAnswer)
def facets(
    request: Request,
    filters: Filters = None,
    q: Search = "",
    names: Annotated[list[str] | None, Query(alias="facet", max_length=20)] = None,
    number: Number = None,
) -> Response:
    """Episodes and hours of each value of coded columns, each under all filters but its own."""
    served = served_by(request, number)

    def compute() -> models.FacetsAnswer:
        parsed, words = asked(served.cache, filters, q)
        mask = served.selection.mask(parsed, words)
        counted = pages.facets(served.selection, names or FACETS, parsed, words)
        return models.FacetsAnswer(
            **newest_of(request, served),
            facets={
                name: [
                    models.FacetValueAnswer(
                        value=each.value, episodes=each.episodes, hours=each.hours
                    )
                    for each in values
                ]
                for name, values in counted.items()
            },
            total=int(mask.sum()),
            hours=hours_of(served.cache, mask),
        )

    return answered(request, served, compute)


@router.get("/histogram", response_model=models.HistogramAnswer)
def histogram(
    request: Request,
    column: Annotated[str, Query(max_length=300)],
    filters: Filters = None,
    q: Search = "",
    bins: Annotated[int, Query(ge=1, le=pages.MAX_BINS)] = 50,
    by: Annotated[str | None, Query(max_length=300, description="A coded column.")] = None,
    low: Edge = None,
    high: Edge = None,
    number: Number = None,
) -> Response:
    """Episodes and hours by the value of a number. Default edges: the inner 99 % of the values."""
    served = served_by(request, number)

    def compute() -> models.HistogramAnswer:
        mask = served.selection.mask(*asked(served.cache, filters, q))
        counts = pages.histogram(served.cache, mask, column, bins, by, low, high)
        return models.HistogramAnswer(
            **newest_of(request, served),
            column=column,
            unit=served.cache.columns[column].unit,
            **asdict(counts),
        )

    return answered(request, served, compute)


@router.get("/episodes/{uid}", response_model=models.EpisodeAnswer)
def episode(request: Request, uid: str, number: Number = None) -> Response:
    """Everything on one episode but its series and pictures."""
    served = served_by(request, number)

    def compute() -> models.EpisodeAnswer:
        fields = detail(served.cache, uid, request.app.state.prefix)
        return models.EpisodeAnswer(**newest_of(request, served), **fields)

    return answered(request, served, compute)


@router.get("/episodes/{uid}/neighbours", response_model=models.NeighboursAnswer)
def neighbours(
    request: Request,
    uid: str,
    filters: Filters = None,
    q: Search = "",
    sort: Annotated[str, Query(max_length=300, description="A column; -COLUMN descends.")] = "uid",
    number: Number = None,
) -> Response:
    """The episodes before and after one, in the order of a sort and under filters."""
    served = served_by(request, number)

    def compute() -> models.NeighboursAnswer:
        cache = served.cache
        mask = served.selection.mask(*asked(cache, filters, q))
        pair = pages.neighbours(cache, mask, pages.Sort.parse(sort), row_of(cache, uid))
        before, after = (None if row is None else cache.uids[row].as_py() for row in pair)
        return models.NeighboursAnswer(**newest_of(request, served), previous=before, next=after)

    return answered(request, served, compute)


@router.get("/episodes/{uid}/explain", response_model=models.ExplainAnswer)
async def explained(request: Request, uid: str, number: Number = None) -> Response:
    """Why each segment has its tier: every rule of the policy, computed from the catalog again. Slower than the episode itself."""
    served = served_by(request, number)
    row_of(served.cache, uid)
    async with place_within(_explaining, EXPLAIN_WAIT_S, "other episodes are being explained"):
        return await run_in_threadpool(_explained, request, served, uid)


def _explained(request: Request, served: Served, uid: str) -> Response:
    corpus = keeper_of(request).corpus
    current = current_of(request, served)
    explanation = explain(corpus, current, uid, policy_in_force(corpus, current, BUILT_IN))
    answer = models.ExplainAnswer(**newest_of(request, served), **json_value(asdict(explanation)))
    return JSONResponse(answer.model_dump(mode="json"))
