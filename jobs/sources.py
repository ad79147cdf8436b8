"""`eicorpus sources`: what can be ingested."""

from __future__ import annotations

from adapters.registry import ADAPTERS, adapter_for, adapters_of_packages
from jobs.options import AsJson
from jobs.output import answer_json, stdout, table

COLUMNS = ["source", "container", "what", "page"]


def command(as_json: AsJson = False) -> None:
    """Every source that can be ingested, its container, and where its page is."""
    rows = []
    for name in (*sorted(ADAPTERS), *adapters_of_packages()):
        adapter = adapter_for(name)
        page = f"docs/sources/{name}.md" if name in ADAPTERS else adapters_of_packages()[name]
        rows.append([name, adapter.container, adapter.about, page])
    if as_json:
        answer_json({"sources": [dict(zip(COLUMNS, row, strict=True)) for row in rows]})
    else:
        stdout.print(table("", COLUMNS, rows))
