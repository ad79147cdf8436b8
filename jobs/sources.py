"""`eicorpus sources`: what can be ingested."""

from __future__ import annotations

from adapters.registry import ADAPTERS, adapter_for, adapters_of_packages
from jobs.options import AsJson
from jobs.output import answer_json, stdout, table

COLUMNS = ["source", "container", "what", "page"]


def command(as_json: AsJson = False) -> None:
    """Every source that can be ingested, its container, and where its page is."""
    rows = []
    for name in sorted(ADAPTERS):
        adapter = adapter_for(name)
        rows.append([name, adapter.container, adapter.about, f"docs/reference/sources/{name}.md"])
    # Those of installed packages are listed and not imported: that happens when one is named.
    rows += [
        [name, "", "an installed package's", at] for name, at in adapters_of_packages().items()
    ]
    if as_json:
        answer_json({"sources": [dict(zip(COLUMNS, row, strict=True)) for row in rows]})
    else:
        stdout.print(table("", COLUMNS, rows))
