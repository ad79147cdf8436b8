"""The page of the service's routes, from what the service says of itself (OpenAPI)."""

from __future__ import annotations

from fastapi import FastAPI

from docs.site.markdown import code, page, paragraphs, table
from jobs.service.app import API_MODULES, ERRORS, PREFIX

ABOUT = f"""
All begin with `{PREFIX}`. `{PREFIX}/openapi.json` has the schemas of requests and answers. An error has the envelope of `--json` ([JSON output](json.md)). What filters mean:
[the service](../how-to/service.md#routes). `snapshot` names one that is still served; the default is the newest.
"""


def routes_page() -> str:
    app = FastAPI(title="eicorpus")
    for module in API_MODULES:
        app.include_router(module.router)
    rows = [
        [
            code(f"{method.upper()} {path}"),
            paragraphs(operation.get("description", "")).replace("\n\n", " "),
            ", ".join(
                code(each["name"])
                for each in operation.get("parameters", [])
                if each["in"] == "query"
            ),
        ]
        for path, operations in sorted(app.openapi()["paths"].items())
        for method, operation in operations.items()
    ]
    errors = table(["status", "meaning"], [[code(status), text] for status, text in ERRORS.items()])
    return page(
        "# Routes of the service",
        ABOUT,
        table(["route", "answer", "query"], rows),
        "## Errors",
        errors,
    )
