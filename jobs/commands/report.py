"""`eicorpus report CORPUS`: the content of a corpus in one self-contained HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ingest.corpus.layout import open_corpus
from jobs.stages.report import run_report
from jobs.ui.options import AsJson, CorpusArgument, Snapshot
from jobs.ui.output import answer_json, stdout


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
    done = run_report(open_corpus(corpus), html, policy=policy, with_snapshot=with_snapshot)
    if as_json:
        answer_json(
            {"html": str(done.html), "num_bytes": done.num_bytes, "snapshot": done.snapshot}
        )
    else:
        stdout.print(
            f"{done.html}: {done.num_bytes:,} bytes, snapshot {done.snapshot}", highlight=False
        )
