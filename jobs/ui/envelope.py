"""The JSON object that every command prints with `--json`, for a result and for an error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from schemas.errors import (
    ClusterLost,
    ConfigError,
    InvariantError,
    PipelineError,
    SourceError,
    TransientError,
)

# Exit codes of every command.
EXIT_CODES = {
    0: "success",
    1: "finished with failures beyond the allowance, or a check failed; or storage or a worker failed",
    2: "wrong usage; nothing was changed",
    3: "a bug of eicorpus; committed data is unchanged",
    130: "interrupted; the same command resumes",
}
# `code` of an error, besides the quarantine codes of `schemas.errors.Code`.
ERROR_CODES = {
    "usage": "an option, argument, file or corpus is wrong",
    "check_failed": "the command finished and found failures; `result` is complete",
    "transient": "storage or a worker failed; run the command again",
    "cluster_lost": "the Ray cluster is gone; run the command again when it is back",
    "out_of_memory": "the machine has too little memory",
    "system": "the operating system refused an operation",
    "bug": "a bug of eicorpus",
    "interrupted": "a signal stopped the command",
}
SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["command", "version", "ok", "result", "error"],
    "additionalProperties": False,
    "properties": {
        "command": {"type": "string", "description": "such as `manifest build`"},
        "version": {"type": "string", "description": "version of eicorpus"},
        "ok": {"type": "boolean", "description": "true if the exit code is 0"},
        "result": {"description": "result of the command; null if there is none"},
        "error": {
            "type": ["object", "null"],
            "required": ["code", "message", "where", "remedy", "exit_code"],
            "additionalProperties": False,
            "properties": {
                "code": {"type": "string", "description": "what kind of error"},
                "message": {"type": "string", "description": "what failed"},
                "where": {"type": ["string", "null"], "description": "file, option or value"},
                "remedy": {"type": ["string", "null"], "description": "what to do"},
                "exit_code": {"type": "integer", "enum": [code for code in EXIT_CODES if code]},
            },
        },
    },
}
_CODES = {
    ClusterLost: "cluster_lost",
    TransientError: "transient",
    ConfigError: "usage",
    InvariantError: "bug",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a command ends with an exit code other than 0."""

    code: str
    message: str
    exit_code: int
    where: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        where = f"{self.where}: " if self.where else ""
        separator = "\n" if self.remedy.startswith(("usage: ", "see ")) else "; "
        return f"{where}{self.message}{separator if self.remedy else ''}{self.remedy}"

    def as_object(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "message": self.message,
            "where": self.where or None,
            "remedy": self.remedy or None,
            "exit_code": self.exit_code,
        }


def failure_of(error: PipelineError) -> Failure:
    """One of our errors."""
    code = next((code for kind, code in _CODES.items() if isinstance(error, kind)), "bug")
    return Failure(
        code=error.code.value if isinstance(error, SourceError) else code,
        message=error.message,
        exit_code=error.exit_code,
        where=error.where,
        remedy=error.remedy,
    )


class Running:
    """The command of this process: `jobs.ui.arguments.Command` sets it when it parses its arguments."""

    command = ""


def envelope(result: Any = None, failure: Failure | None = None) -> dict[str, Any]:
    from importlib.metadata import version

    return {
        "command": Running.command,
        "version": version("eicorpus"),
        "ok": failure is None,
        "result": result,
        "error": failure and failure.as_object(),
    }
