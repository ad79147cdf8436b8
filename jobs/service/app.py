"""The FastAPI application: its layers, its error answers, and the routes that are not of the API."""

from __future__ import annotations

import threading
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.telemetry import TelemetryConfig
from starlette.exceptions import HTTPException

from jobs.service import (
    api,
    api_data,
    api_geometry,
    api_jobs,
    api_latents,
    api_map,
    api_media,
    api_overview,
    api_policies,
    api_reviews,
    api_session,
    api_similar,
    api_stale,
    api_thresholds,
    roles,
    web,
)
from jobs.service.credentials import Access
from jobs.service.errors import ApiError, answer_of, failed, plain_failure
from jobs.service.job_runner import JobRunner
from jobs.service.keeper import Keeper
from jobs.service.metrics import CONTENT_TYPE, RequestMeter, ServiceMetrics
from jobs.service.models import FailedAnswer
from jobs.service.security import LOOPBACK, Guard, RateLimit
from jobs.service.token_file import watch_tokens
from jobs.ui.envelope import Failure
from schemas.errors import PipelineError
from schemas.invalid import did_you_mean, problem

PREFIX = roles.API
API_MODULES = (
    api,
    api_data,
    api_geometry,
    api_jobs,
    api_latents,
    api_map,
    api_media,
    api_overview,
    api_policies,
    api_reviews,
    api_session,
    api_similar,
    api_stale,
    api_thresholds,
)
MIN_COMPRESSED = 1000
PINNED = "snapshot"  # pages send it with every request; routes without snapshots ignore it
ERRORS: dict[int | str, str] = {
    400: "The request is not valid.",
    401: "The token or session is missing or not valid.",
    403: "The role does not allow this, or the server is read-only.",
    404: "Not found.",
    409: "Conflict with what is stored.",
    410: "The snapshot or the episode is no longer served.",
    422: "A value is not valid.",
    429: "Too many requests: retry after `Retry-After` seconds.",
    503: "Busy, or the cache is being built: retry later.",
}


class _Service(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document with its security schemes. Generated on the first request, because that takes 0.25 s."""
        page = super().openapi()
        page["components"]["securitySchemes"] = {
            "token": {"type": "http", "scheme": "bearer"},
            "session": {"type": "apiKey", "in": "cookie", "name": self.state.access.cookie},
        }
        page["security"] = [{"token": []}, {"session": []}]
        return page


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings:
    """How a server is protected."""

    hosts: tuple[str, ...] = LOOPBACK  # names in Host and Origin that are ours
    requests_per_s: float = 500.0  # of one address
    request_burst: float = 1000.0
    failures_per_s: float = 1 / 6  # requests without a token, of one address
    failure_burst: float = 10.0


def create_app(
    keeper: Keeper,
    access: Access,
    settings: ServiceSettings,
    *,
    clock: Callable[[], float],
    report: Callable[[str], None],
    version: str,
    jobs: JobRunner | None = None,
    token_file: Path | None = None,
) -> FastAPI:
    """
    Args:
        jobs: None refuses jobs.
        token_file: where the tokens are from; looked at again while it runs.
        clock: seconds that only increase. report: one line for the operator; it never has a token in it.
    """
    stop = threading.Event()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        watcher = threading.Thread(target=keeper.watch, args=(stop, report), name="snapshots")
        threads = [watcher]
        if keeper.files is not None:
            look = keeper.files.watch
            threads.append(threading.Thread(target=look, args=(stop, report), name="bucket"))
        if jobs is not None:
            threads.append(threading.Thread(target=jobs.watch, args=(stop, report), name="jobs"))
        if token_file is not None:
            words = (token_file, access, stop, report)
            threads.append(threading.Thread(target=watch_tokens, args=words, name="tokens"))
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()
            keeper.close()

    app = _Service(
        title="eicorpus",
        version=version,
        docs_url=None,  # both load scripts from a CDN
        redoc_url=None,
        openapi_url=f"{PREFIX}/openapi.json",
        lifespan=lifespan,
        responses={
            status: {"model": FailedAnswer, "description": text} for status, text in ERRORS.items()
        },
        # no telemetry, whatever OTEL_* variables the environment has
        telemetry=TelemetryConfig(tracing=False, metrics=False, logs=False, auto_configure=False),
    )
    metrics = ServiceMetrics(keeper, None if jobs is None else jobs.store)
    app.state.metrics = metrics
    app.state.keeper, app.state.access, app.state.prefix = keeper, access, PREFIX
    app.state.jobs, app.state.stop = jobs, stop
    for module in API_MODULES:
        app.include_router(
            module.router, prefix=PREFIX, dependencies=[Depends(refuse_unknown_parameters)]
        )
    app.include_router(web.router, include_in_schema=False)
    _add_own_routes(app, keeper, metrics)
    _add_error_answers(app, report)
    # Outside of all that Starlette adds: the answer to a bug of ours has the headers too.
    guarded = Guard(
        app.build_middleware_stack(),
        access=access,
        hosts=settings.hosts,
        requests=RateLimit(settings.requests_per_s, settings.request_burst, clock),
        failures=RateLimit(settings.failures_per_s, settings.failure_burst, clock),
    )
    app.middleware_stack = RequestMeter(guarded, metrics=metrics)
    return app


def refuse_unknown_parameters(request: Request) -> None:
    """
    Raises:
        ApiError: 400, the route has no such parameter: a filter that is misspelt would choose everything.
    """
    known = {each.alias for each in request.scope["route"].dependant.query_params} | {PINNED}
    for name in request.query_params:
        if name not in known:
            hint = did_you_mean(name, known)
            raise ApiError(400, "usage", f"no parameter {name[:100]!r}{hint}", where="query")


def _add_own_routes(app: FastAPI, keeper: Keeper, metrics: ServiceMetrics) -> None:
    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> dict[str, str]:
        """The process answers; nothing is said of the corpus."""
        return {"status": "ok"}

    @app.get("/readyz", include_in_schema=False)
    async def readyz() -> dict[str, int]:
        return {"snapshot": keeper.at().cache.snapshot}

    @app.get("/metrics", include_in_schema=False)
    def metrics_page() -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE)


def _add_error_answers(app: FastAPI, report: Callable[[str], None]) -> None:
    @app.exception_handler(PipelineError)
    async def of_ours(_: Request, error: Exception) -> Response:
        assert isinstance(error, PipelineError)
        return answer_of(error)

    @app.exception_handler(RequestValidationError)
    async def of_pydantic(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"][1:])) or str(first["loc"][0])
        message = problem(first)
        if first["type"] == "json_invalid" or isinstance(first.get("input"), bytes):
            message, where = "the body is not JSON with Content-Type: application/json", "body"
        return failed(422, Failure(code="usage", message=message, where=where[:200], exit_code=2))

    @app.exception_handler(HTTPException)
    async def of_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        is_page = "text/html" in request.headers.get("accept", "")
        if error.status_code == 404 and is_page and not request.url.path.startswith(PREFIX):
            return web.no_page(request)
        codes = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}
        answer = plain_failure(
            error.status_code, codes.get(error.status_code, "http"), str(error.detail)
        )
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(Exception)
    async def of_a_bug(_: Request, error: Exception) -> Response:
        """Our bug: the operator gets its address, the client none."""
        place = traceback.extract_tb(error.__traceback__)[-1:]
        at = f" in {place[0].name}, line {place[0].lineno} of {place[0].filename}" if place else ""
        report(f"bug: {type(error).__name__}{at}")
        return failed(500, Failure(code="bug", message="this is a bug of eicorpus", exit_code=3))
