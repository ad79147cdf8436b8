"""REST: tables of the catalog that are not of episodes, manifests, the schema of specs and SQL."""

from __future__ import annotations

import io
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import IO, Annotated, Any

import pyarrow as pa
from fastapi import APIRouter, Query, Request, Response

from ingest.catalog.query_process import QueryLimits, answer_into
from ingest.corpus.manifest_folders import (
    manifest_folder,
    manifest_names,
    open_manifest_folder,
)
from ingest.curation.manifests.diff import compare
from jobs.build.spec import json_schema
from jobs.service import models
from jobs.service.api import Number, keeper_of, newest_of, served_by
from jobs.service.errors import not_here
from jobs.service.limits import HeldStream, place
from jobs.service.manifest_list import listed
from jobs.ui.manifest_report import difference_as_object
from jobs.ui.query_result import json_value, rows_of, write_csv
from schemas.errors import PipelineError
from schemas.manifest import load, load_facts

router = APIRouter()

SQL_LIMITS = QueryLimits(timeout_s=30.0, memory_mb=1024, answer_mb=64, threads=1)
MAX_QUERIES = 2  # of users, and diffs of manifests, at a time
PIECE = 1 << 18  # bytes of an answer that are read at a time
ARROW = "application/vnd.apache.arrow.stream"
Version = Annotated[str | None, Query(max_length=100, description="A version of the manifest.")]
_queries = threading.BoundedSemaphore(MAX_QUERIES)
_BUSY = f"{MAX_QUERIES} queries are running"
_QUARANTINE = """SELECT * FROM verdicts WHERE state <> 'committed' AND ($code IS NULL OR code = $code)
    AND ($state IS NULL OR state = $state) AND ($after IS NULL OR uid > $after) ORDER BY uid LIMIT $limit"""
_OUTCOMES = "SELECT state, code, source, count(*) AS episodes, min(message) AS example FROM verdicts GROUP BY ALL ORDER BY ALL"


@router.get("/spec-schema")
def spec_schema() -> dict[str, Any]:
    """The JSON Schema of a corpus spec, for editors."""
    return json_schema()


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
    """Every manifest and every version of one, with its hours; `where` and mixture are in the answer for one."""
    corpus, good, damaged = keeper_of(request).corpus, [], {}
    for name in manifest_names(corpus):
        version = name.partition("/")[2] or None
        try:
            good.append(listed(manifest_folder(corpus, name)) | {"version": version})
        except PipelineError as error:
            damaged[name] = error.message
    return models.ManifestsAnswer(manifests=good, damaged=damaged)


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
    folders = [
        _folder(request, name, version)
        for name, version in ((before, before_version), (after, after_version))
    ]
    with place(_queries, _BUSY):
        difference = compare(*map(load, folders), limits=SQL_LIMITS)
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
    """One reading query over a snapshot, in a process of its own that ends at its limits: 30 s, 1 GB, one core; its result has at most 64 MB."""
    served = served_by(request, question.snapshot)
    with ExitStack() as held:
        held.enter_context(place(_queries, _BUSY))
        rows = held.enter_context(tempfile.TemporaryFile())
        corpus, snapshot = keeper_of(request).corpus, served.cache.snapshot or None
        number = answer_into(rows, corpus, question.sql, snapshot=snapshot, limits=SQL_LIMITS)
        if question.format == "json":
            return _as_json(rows, number, question.limit_rows)
        if question.format == "arrow":
            return HeldStream(held.pop_all(), iter(lambda: rows.read(PIECE), b""), ARROW)
        name = {"Content-Disposition": 'attachment; filename="query.csv"'}
        return HeldStream(held.pop_all(), _as_csv(rows), "text/csv; charset=utf-8", name)


def _as_json(rows: IO[bytes], number: int, limit_rows: int) -> Response:
    """The first rows; the rest is only counted, a batch at a time."""
    reader, shown, num_rows = pa.ipc.open_stream(rows), list[list[Any]](), 0
    for batch in reader:
        first = batch.slice(0, max(limit_rows - num_rows, 0))
        shown += [[json_value(cell) for cell in row] for row in rows_of(first)]
        num_rows += batch.num_rows
    sql_answer = models.SqlAnswer(
        snapshot=number,
        columns=reader.schema.names,
        rows=shown,
        num_rows=num_rows,
        is_cut=num_rows > limit_rows,
    )
    return Response(sql_answer.model_dump_json(), media_type="application/json")


def _as_csv(rows: IO[bytes]) -> Iterator[bytes]:
    """A piece for each batch, the first with the header."""
    reader = pa.ipc.open_stream(rows)
    batches = (pa.Table.from_batches([batch]) for batch in reader)
    for number, table in enumerate(chain([reader.schema.empty_table()], batches)):
        text = io.StringIO()
        write_csv(table, text, has_header=number == 0)
        yield text.getvalue().encode()
