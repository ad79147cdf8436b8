"""`eicorpus report CORPUS`: the content of a corpus in one self-contained HTML file."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from ingest.catalog.catalog import Catalog
from ingest.catalog.query_process import QueryLimits
from ingest.corpus import snapshot
from ingest.corpus.layout import REPORT, CorpusLayout, open_corpus, uid_of
from ingest.corpus.writer import writing
from ingest.curation.tiers.explain import policy_in_force
from ingest.curation.tiers.policy import BUILT_IN, load_policy
from ingest.report.overview import ReportRequest
from ingest.report.page import report
from ingest.storage.local import LocalStorage
from jobs.ui.options import AsJson, CorpusArgument, Snapshot
from jobs.ui.output import answer_json, outside, stdout
from schemas.errors import ConfigError, system_error_text

LIMITS = QueryLimits(timeout_s=600.0, memory_mb=8192)


def command(
    corpus: CorpusArgument,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Output file. Default: CORPUS/report.html."),
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(
            "--policy", help="Quality policy whose thresholds are drawn. Default: the last used."
        ),
    ] = None,
    with_snapshot: Snapshot = None,
    as_json: AsJson = False,
) -> None:
    """Write an HTML report: funnel, hours, histograms, best and worst segments, quarantine."""
    opened = open_corpus(corpus)
    with ExitStack() as stack:
        if html is None:
            # `forget` deletes this file: nothing may be erased between reading the snapshot and writing it.
            disk = LocalStorage(opened.root)
            stack.enter_context(writing(opened, disk))
            path = opened.root / REPORT
            data, number = _page(opened, policy, with_snapshot)
            disk.put(REPORT, data)
        else:
            path = html
            outside(opened.root, html, "--html")
            data, number = _page(opened, policy, with_snapshot)
            _write(html, data)
    if as_json:
        answer_json({"html": str(path), "num_bytes": len(data), "snapshot": number})
    else:
        stdout.print(f"{path}: {len(data):,} bytes, snapshot {number}", highlight=False)


def _page(opened: CorpusLayout, policy: str | None, with_snapshot: int | None) -> tuple[bytes, int]:
    """The page, and the number of its snapshot."""
    current = snapshot.load(opened.root, with_snapshot)
    chosen = load_policy(policy)[0] if policy else policy_in_force(opened.root, current, BUILT_IN)
    asked = ReportRequest(
        corpus=opened.root,
        corpus_uid=uid_of(opened),
        policy=chosen,
        made_at=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )
    with Catalog.open(opened.root, snapshot=with_snapshot, limits=LIMITS) as catalog:
        return report(catalog, asked).encode(), current.number


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise ConfigError(
            f"cannot be written: {system_error_text(error, str(path))}",
            remedy="check the permissions and the disk, or choose another folder",
            where=f"--html {path}",
        ) from error
