"""REST: tables of the catalog that are not of episodes, manifests, and SQL."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
from fastapi import APIRouter, Query, Request, Response

from ingest.catalog.query_process import QueryLimits, answer
from ingest.corpus.manifest_folders import (
    manifest_folder,
    manifest_names,
    open_manifest_folder,
)
from ingest.curation.manifests.diff import compare
from jobs.service import models
from jobs.service.api import Number, keeper_of, newest_of, served_by
from jobs.service.errors import busy, not_here
from jobs.ui.manifest_report import as_object, difference_as_object
from jobs.ui.query_result import json_value, rows_of, write_csv
from schemas.errors import PipelineError
from schemas.manifest import load, load_facts

router = APIRouter()

SQL_LIMITS = QueryLimits(timeout_s=30.0, memory_mb=1024, threads=1)
MAX_QUERIES = 2  # of users, at a time
ARROW = "application/vnd.apache.arrow.stream"
Version = Annotated[str | None, Query(max_length=100, description="A version of the manifest.")]
_queries = threading.BoundedSemaphore(MAX_QUERIES)
_QUARANTINE = """SELECT * FROM verdicts WHERE state <> 'committed' AND ($code IS NULL OR code = $code)
    AND ($state IS NULL OR state = $state) AND ($after IS NULL OR uid > $after) ORDER BY uid LIMIT $limit"""
_OUTCOMES = "SELECT state, code, source, count(*) AS episodes, min(message) AS example FROM verdicts GROUP BY ALL ORDER BY ALL"


@router.get("/quarantine")
def quarantine(
    request: Request,
    code: Annotated[str | None, Query(max_length=100)] = None,
    state: Annotated[str | None, Query(max_length=100)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[str | None, Query(max_length=300)] = None,
    number: Number = None,
) -> models.RowsAnswer:
    """Episodes that were not committed, with their code and message."""
    served = served_by(request, number)
    parameters: Any = {"code": code, "state": state, "after": cursor, "limit": limit + 1}
    rows = served.cache.ask(_QUARANTINE, parameters)
    following = rows[limit - 1]["uid"] if len(rows) > limit else None
    return models.RowsAnswer(
        **newest_of(request, served), rows=json_value(rows[:limit]), cursor=following
    )


@router.get("/outcomes")
def outcomes(request: Request, number: Number = None) -> models.RowsAnswer:
    """Episodes by state, code and source, with an example message."""
    served = served_by(request, number)
    rows = json_value(served.cache.ask(_OUTCOMES))
    return models.RowsAnswer(**newest_of(request, served), rows=rows)


@router.get("/runs")
def runs(request: Request, number: Number = None) -> models.RowsAnswer:
    """Runs that wrote to the corpus, newest first."""
    served = served_by(request, number)
    rows = served.cache.ask("SELECT * FROM runs ORDER BY started_at DESC, run_id LIMIT 1000")
    return models.RowsAnswer(**newest_of(request, served), rows=json_value(rows))


@router.get("/sources")
def sources(request: Request, number: Number = None) -> models.RowsAnswer:
    """Sources with their licences."""
    served = served_by(request, number)
    rows = served.cache.ask("SELECT * FROM sources ORDER BY source, dataset, run_id LIMIT 1000")
    return models.RowsAnswer(**newest_of(request, served), rows=json_value(rows))


@router.get("/manifests")
def manifests(request: Request) -> models.ManifestsAnswer:
    """Every manifest and every version of one, with its hours and mixture."""
    corpus, good, damaged = keeper_of(request).corpus, [], {}
    for name in manifest_names(corpus):
        version = name.partition("/")[2] or None
        try:
            facts = as_object(load_facts(manifest_folder(corpus, name)))
            good.append(facts | {"version": version})
        except PipelineError as error:
            damaged[name] = error.message
    return models.ManifestsAnswer(manifests=json_value(good), damaged=damaged)


@router.get("/manifests/{name}")
def manifest(request: Request, name: str, version: Version = None) -> models.ManifestAnswer:
    """One manifest, with its policy and statistics. Default: the newest version of one that has versions."""
    facts = load_facts(_folder(request, name, version))
    return models.ManifestAnswer(manifest=json_value(facts.model_dump(mode="json")))


@router.get("/manifests/{before}/diff/{after}")
def manifest_diff(
    request: Request,
    before: str,
    after: str,
    before_version: Version = None,
    after_version: Version = None,
    limit_rows: Annotated[int, Query(ge=0, le=10_000)] = 200,
) -> models.ManifestDiffAnswer:
    """Segments that came, went and changed from one manifest to another, and why."""
    pair = [
        load(_folder(request, name, version))
        for name, version in ((before, before_version), (after, after_version))
    ]
    difference = compare(pair[0], pair[1], limits=SQL_LIMITS)
    return models.ManifestDiffAnswer(**json_value(difference_as_object(difference, limit_rows)))


def _folder(request: Request, name: str, version: str | None) -> Path:
    """
    Raises:
        ApiError: 404, no such manifest or version; the names are compared with those there are before they become a path.
        ConfigError: the file that names the newest version is damaged.
    """
    corpus = keeper_of(request).corpus
    names, full_name = manifest_names(corpus), name if version is None else f"{name}/{version}"
    if full_name in names:
        return manifest_folder(corpus, full_name)
    if version is None and any(each.partition("/")[0] == name for each in names):
        return open_manifest_folder(corpus, name)
    raise not_here(f"no manifest {full_name[:200]!r}")


@router.post(
    "/sql",
    response_model=models.SqlAnswer,
    responses={200: {"content": {"text/csv": {}, ARROW: {}}}},
)
def sql(request: Request, question: models.SqlQuestion) -> Response:
    """One reading query over a snapshot, in a process of its own that ends at its limits: 30 s, 1 GB, one core."""
    served = served_by(request, question.snapshot)
    if not _queries.acquire(blocking=False):
        raise busy(f"{MAX_QUERIES} queries are running")
    try:
        result = answer(
            keeper_of(request).corpus,
            question.sql,
            snapshot=served.cache.snapshot or None,
            limits=SQL_LIMITS,
        )
    finally:
        _queries.release()
    return _formatted(result.table, result.snapshot, question)


def _formatted(table: pa.Table, number: int, question: models.SqlQuestion) -> Response:
    if question.format == "arrow":
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return Response(sink.getvalue().to_pybytes(), media_type=ARROW)
    if question.format == "csv":
        text = io.StringIO()
        write_csv(table, text)
        headers = {"Content-Disposition": 'attachment; filename="query.csv"'}
        return Response(text.getvalue(), media_type="text/csv; charset=utf-8", headers=headers)
    rows = rows_of(table.slice(0, question.limit_rows))
    sql_answer = models.SqlAnswer(
        snapshot=number,
        columns=table.column_names,
        rows=[[json_value(cell) for cell in row] for row in rows],
        num_rows=table.num_rows,
        is_cut=table.num_rows > question.limit_rows,
    )
    return Response(sql_answer.model_dump_json(), media_type="application/json")
