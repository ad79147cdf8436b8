"""`eicorpus report CORPUS --html F`: what is in a corpus, on one page that needs nothing else."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from ingest.catalog.catalog import Catalog
from ingest.catalog.query_limits import Limits
from ingest.corpus import snapshot
from ingest.corpus.layout import open_corpus, uid_of
from ingest.curation.tiers.explain import policy_in_force
from ingest.curation.tiers.policy import BUILT_IN, load_policy
from ingest.report.overview import Asked
from ingest.report.page import report
from jobs.output import answer_json, outside, stdout
from schemas.errors import ConfigError
from schemas.system_error import system_error_text

LIMITS = Limits(timeout_s=600.0, memory_mb=8192)


def command(
    corpus: Annotated[Path, typer.Argument(help="The corpus; it is only read.")],
    html: Annotated[Path, typer.Option("--html", help="The file to write.")],
    policy: Annotated[
        str | None,
        typer.Option(
            "--policy", help="Whose thresholds to draw. Default: applied last, else ei30k."
        ),
    ] = None,
    with_snapshot: Annotated[
        int | None, typer.Option("--snapshot", min=1, help="Default: the latest.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Funnel, hours, histograms with thresholds, best and worst segments, captions, what was set aside: one HTML file."""
    opened = open_corpus(corpus)
    outside(opened.root, html, "--html")
    current = snapshot.load(opened.root, with_snapshot)
    chosen = load_policy(policy)[0] if policy else policy_in_force(opened.root, current, BUILT_IN)
    asked = Asked(
        corpus=opened.root,
        corpus_uid=uid_of(opened),
        policy=chosen,
        made_at=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )
    with Catalog.open(opened.root, snapshot=with_snapshot, limits=LIMITS) as catalog:
        data = report(catalog, asked).encode()
    try:
        html.write_bytes(data)
    except OSError as error:
        raise ConfigError(
            f"cannot be written: {system_error_text(error, str(html))}", where=str(html)
        ) from error
    if as_json:
        answer_json({"html": str(html), "num_bytes": len(data), "snapshot": current.number})
    else:
        stdout.print(f"{html}: {len(data):,} bytes, snapshot {current.number}", highlight=False)
