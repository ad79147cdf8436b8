"""The work of `eicorpus ingest`: plan a source against a corpus and run the plan."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from ingest.corpus import lanes, snapshot
from ingest.corpus.commit_log import Conflict
from ingest.corpus.layout import MARKER, open_corpus, open_or_create
from ingest.corpus.publishing import working_copy
from ingest.corpus.writer import writing
from ingest.executors.inline import Executor
from ingest.pipeline.plan import Plan, Request, make_plan
from ingest.pipeline.run import Progress, RunContext, ingest
from ingest.pipeline.tally import Tally, beyond_allowance
from ingest.recipe import Limits, Recipe
from ingest.storage.local import LocalStorage
from jobs.run_context import new_corpus_uid, new_run
from jobs.stages.resources import excluded_nodes
from jobs.ui.ingest_report import IngestProgress
from schemas.errors import ConfigError
from schemas.invalid import invalid
from schemas.yaml_text import read_yaml

LONGEST_PAUSE_S = 2.0
MOST_ROUNDS = 20  # of planning again because other machines were first


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestResult:
    """What a run did. `failure`: why it is beyond the allowance; "" if it is not."""

    plan: Plan
    tally: Tally
    elapsed_s: float
    failure: str
    excluded_nodes: list[str]


def recipe_from(path: Path | None) -> Recipe:
    """The default recipe with the changes of a YAML file.

    Raises:
        ConfigError: the file is missing or is not YAML, or a field is unknown or invalid.
    """
    if path is None:
        return Recipe()
    try:
        return Recipe.model_validate(read_yaml(path) or {})
    except ValidationError as error:
        raise ConfigError(f"not a recipe: {invalid(error, Recipe)}", where=str(path)) from error


def plan_ingest(request: Request, out: Path) -> Plan:
    """What `run_ingest` would do. Changes nothing."""
    corpus = open_corpus(out) if (out / MARKER).is_file() else None
    current = snapshot.load(out) if corpus else snapshot.Snapshot()
    return make_plan(request, corpus, current)


def run_ingest(
    request: Request,
    out: Path,
    executor: Executor,
    limits: Limits,
    *,
    on_plan: Callable[[Plan], None] = lambda plan: None,
    new_context: Callable[[Progress], RunContext] = new_run,
    pause: Callable[[float], None] = time.sleep,
) -> IngestResult:
    """Plan and run against the corpus at `out`, which is created if it is missing. Shows progress on standard error.

    Where another machine has committed some of the episodes first, the rest is planned again. What is staged stays staged.

    Args:
        on_plan: called with the plan before the work.
        new_context: identity and clocks of a run. pause: waits so many seconds.
    """
    for _ in range(MOST_ROUNDS - 1):
        try:
            return _run_ingest(request, out, executor, limits, on_plan, new_context)
        except Conflict:
            on_plan = _was_shown
            pause(random.uniform(0, LONGEST_PAUSE_S))  # not all of them at the same moment again
    return _run_ingest(request, out, executor, limits, on_plan, new_context)


def _was_shown(plan: Plan) -> None:
    """Of a plan that is made again."""


def _run_ingest(
    request: Request,
    out: Path,
    executor: Executor,
    limits: Limits,
    on_plan: Callable[[Plan], None],
    new_context: Callable[[Progress], RunContext],
) -> IngestResult:
    disk = LocalStorage(out.absolute())
    # A wrong source or path must leave nothing behind: a new corpus is created only for a valid plan.
    plan = None if (out / MARKER).is_file() else make_plan(request, None, snapshot.Snapshot())
    corpus = open_or_create(
        out.absolute(), uid=new_corpus_uid(), recipe_digest=request.recipe.digest, disk=disk
    )
    with writing(corpus, disk, block_recovers=True):
        copy = working_copy(corpus.root)
        current = snapshot.load(corpus.root) if copy is None else copy.refresh()
        if plan is None or current.number:
            plan = make_plan(request, corpus, current)
        on_plan(plan)
        started_s = time.monotonic()
        with IngestProgress(plan) as live:
            context = new_context(live.update)
            if copy is not None and plan.todo:
                current = lanes.claim(copy, context.run_id)
                plan = make_plan(request, corpus, current)
            tally = ingest(
                request,
                plan,
                corpus=corpus,
                current=current,
                executor=executor,
                limits=limits,
                context=context,
                disk=disk,
            )
        elapsed_s = time.monotonic() - started_s
    return IngestResult(
        plan=plan,
        tally=tally,
        elapsed_s=elapsed_s,
        failure="; ".join(beyond_allowance(tally, limits)),
        excluded_nodes=excluded_nodes(executor),
    )
