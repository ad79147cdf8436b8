"""Errors of the service: a status of HTTP and the JSON envelope that `--json` prints (`jobs/ui/envelope.py`)."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import JSONResponse

from jobs.ui.envelope import Failure, envelope, failure_of
from schemas.errors import ConfigError, InvariantError, PipelineError, SourceError, TransientError

BUSY_S = 2  # after which a client that was refused for load may try again


class ApiError(PipelineError):
    """An answer other than success, with its status."""

    exit_code = 2

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        where: str = "",
        remedy: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, where=where, remedy=remedy)
        self.status, self.code, self.headers = status, str(code), dict(headers or {})


def not_here(message: str) -> ApiError:
    return ApiError(404, "not_found", message)


def busy(message: str) -> ApiError:
    """503: the same request may succeed in a moment."""
    return ApiError(503, "busy", message, headers={"Retry-After": str(BUSY_S)})


def answer_of(error: PipelineError) -> JSONResponse:
    """The answer to one of our own errors."""
    if isinstance(error, ApiError):
        failure = Failure(
            code=error.code,
            message=error.message,
            exit_code=error.exit_code,
            where=error.where,
            remedy=error.remedy,
        )
        return failed(error.status, failure, error.headers)
    return failed(_status(error), failure_of(error))


def _status(error: PipelineError) -> int:
    if isinstance(error, TransientError):
        return 503
    if isinstance(error, SourceError):
        return 404
    return 400 if isinstance(error, ConfigError) and not isinstance(error, InvariantError) else 500


def failed(status: int, failure: Failure, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """An envelope without a result."""
    return JSONResponse(
        envelope(failure=failure),
        status_code=status,
        headers={"Cache-Control": "no-store", **(headers or {})},
    )


def plain_failure(status: int, code: str, message: str) -> JSONResponse:
    return failed(status, Failure(code=code, message=message, exit_code=2))
