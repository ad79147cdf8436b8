"""`eicorpus measure CORPUS`: compute the measurements that episodes do not have yet."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ingest.corpus import snapshot
from ingest.corpus.layout import open_corpus
from ingest.models.hand_landmarker import HAND_LANDMARKER
from jobs.commands.models import HandLandmarkerFile
from jobs.stages.measure import (
    HOW_TO_GET_THE_MODEL,
    MeasureRequest,
    MeasureResult,
    measure_request,
    run_measure,
)
from jobs.stages.resources import Resources
from jobs.ui.options import AsJson, CorpusWithFiles, DryRun, OnRay, RayAddress, Workers
from jobs.ui.output import answer_json, duration, exit_1, stderr, stdout, table


def command(
    corpus: CorpusWithFiles,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="NAME", help="Run only this measure. Repeatable."),
    ] = None,
    workers: Workers = None,
    ray: OnRay = False,
    address: RayAddress = None,
    hand_landmarker: HandLandmarkerFile = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Compute missing or outdated measurements. Run it again to resume."""
    opened = open_corpus(corpus)
    request = measure_request(only or [], hand_landmarker)
    if dry_run:
        todo = request.todo(opened, snapshot.load(opened.root))
        counts = {"to_do": len(todo.lacks), "up_to_date": todo.up_to_date}
        _print_result(counts | _without_model(todo.waiting, request), as_json=as_json)
        return
    resources = Resources(workers=workers, use_ray=ray, address=address)
    done = run_measure(opened, request, resources)
    _print_result(
        _report(done) | _without_model(done.waiting, request), done.failure, as_json=as_json
    )
    if done.failure:
        exit_1(done.failure)


def _without_model(waiting: int, request: MeasureRequest) -> dict[str, int]:
    """How many episodes lack hand detections because the model is missing; also printed on standard error."""
    if HAND_LANDMARKER in request.models:
        return {}
    if waiting:
        names = ", ".join(m.name for m in request.selected if m.needs_model == HAND_LANDMARKER)
        how = HOW_TO_GET_THE_MODEL
        note = f"{names or 'the detector'}: skipped for {waiting:,} episodes of people: {how}"
        stderr.print(note, highlight=False, markup=False)
    return {"without_hand_landmarker": waiting}


def _report(done: MeasureResult) -> dict[str, Any]:
    tally, elapsed_s = done.tally, done.elapsed_s
    return {
        "discovered": tally.discovered,
        "up_to_date": tally.up_to_date,
        "measured": tally.measured,
        "failed": tally.failed,
        "errors": dict(tally.errors),
        "rows": tally.rows,
        "snapshot": done.snapshot,
        "elapsed_s": round(elapsed_s, 3),
        "times_real_time": round(tally.seconds / elapsed_s, 1) if elapsed_s else 0.0,
    }


def _print_result(answer: dict[str, Any], failure: str = "", *, as_json: bool) -> None:
    if as_json:
        answer_json(answer, failure)
        return
    rows = [
        [key, duration(value) if key == "elapsed_s" else value] for key, value in answer.items()
    ]
    stdout.print(table("measure", ["item", "value"], rows))
