"""`eicorpus plan corpus.yaml`: what a build would do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.build.plan import make_plan, stages_of
from jobs.build.run import bring_corpus
from jobs.build.spec_file import read_spec
from jobs.build.stage import BuildContext
from jobs.stages.raw_data import RawCache
from jobs.stages.resources import Resources
from jobs.ui.build_report import plan_as_object, show_plan
from jobs.ui.options import (
    CACHE_GB,
    AsJson,
    CacheSize,
    ManoDir,
    SpecArgument,
)
from jobs.ui.output import answer_json

Targets = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[TARGET]...",
        help="Such as `tiers` or `manifests.train`, with what comes before it. Default: all.",
    ),
]
Check = Annotated[
    bool,
    typer.Option(
        "--check", help="Compare contents of raw files and manifests, not only sizes and times."
    ),
]


def command(
    spec: SpecArgument,
    target: Targets = None,
    check: Check = False,
    mano_dir: ManoDir = None,
    cache_gb: CacheSize = CACHE_GB,
    as_json: AsJson = False,
) -> None:
    """Show which targets of a corpus spec are up to date, stale or missing, and why. Changes nothing."""
    cache = RawCache(gb=cache_gb)
    show(spec, target or [], check=check, mano_dir=mano_dir, cache=cache, as_json=as_json)


def show(
    spec: Path,
    words: list[str],
    *,
    check: bool,
    mano_dir: Path | None,
    cache: RawCache,
    as_json: bool,
) -> None:
    """Print the plan."""
    file = read_spec(spec)
    bring_corpus(file.spec.corpus)
    context = BuildContext.at(file.corpus, Resources(), check=check)
    plan = make_plan(file, stages_of(file, mano_dir, cache), context, words)
    if as_json:
        answer_json(plan_as_object(plan, file.corpus))
    else:
        show_plan(plan, file.corpus)
