"""`eicorpus measure CORPUS`: compute the measurements that episodes do not have yet."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from ingest.corpus import snapshot
from ingest.corpus.layout import open_corpus
from ingest.corpus.writer import writing
from ingest.curation.measurements.registry import Measure, select_measures
from ingest.curation.measurements.runner import MeasureTally, MeasureTodo, measure_corpus, missing
from ingest.models.hand_landmarker import HAND_LANDMARKER, open_detector
from ingest.storage.local import LocalStorage
from jobs.commands.ingest import executor_for, limits_from
from jobs.commands.models import HAND_LANDMARKER_ENV, HandLandmarkerFile
from jobs.machine import usable_cores
from jobs.run_context import new_run_id
from jobs.ui.options import AsJson, CorpusArgument, DryRun, OnRay, RayAddress, Workers
from jobs.ui.output import answer_json, duration, exit_1, progress_of, stderr, stdout, table
from schemas.errors import ConfigError

_HOW = (
    "needs a model: run `eicorpus models get hand-landmarker`, then pass --hand-landmarker FILE "
    f"or set {HAND_LANDMARKER_ENV}"
)


def command(
    corpus: CorpusArgument,
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
    selected, models = select_measures(only or []), _models(hand_landmarker)
    _check_needs(selected, models, is_named=bool(only))
    if dry_run:
        todo = missing(opened, snapshot.load(opened.root), selected, models)
        counts = {"to_do": len(todo.lacks), "up_to_date": todo.up_to_date}
        _print_result(counts | _without_model(todo, selected, models), as_json=as_json)
        return
    limits = limits_from()
    count = usable_cores() if workers is None else workers
    executor = executor_for(
        limits, workers=count, use_ray=ray or address is not None, address=address
    )
    started, disk = time.monotonic(), LocalStorage(opened.root)
    with writing(opened, disk):
        current = snapshot.load(opened.root)
        todo = missing(opened, current, selected, models)
        with progress_of("measure", len(todo.lacks)) as advance:
            tally, current = measure_corpus(
                opened,
                current,
                todo,
                executor,
                run_id=new_run_id(),
                disk=disk,
                models=models,
                progress=lambda tally: advance(tally.measured + tally.failed),
            )
    report = _report(tally, current.number, time.monotonic() - started)
    failure = ""
    if tally.failed:
        failure = (
            f"{tally.failed:,} of {tally.discovered:,} episodes failed; see `errors` for the causes"
        )
    _print_result(report | _without_model(todo, selected, models), failure, as_json=as_json)
    if failure:
        exit_1(failure)


def _models(hand_landmarker: Path | None) -> dict[str, str]:
    """The model files, opened once here: a damaged file is wrong usage, not a thousand failures."""
    if hand_landmarker is None:
        return {}
    path = str(hand_landmarker.absolute())
    open_detector(path)
    return {HAND_LANDMARKER: path}


def _check_needs(selected: list[Measure], models: dict[str, str], *, is_named: bool) -> None:
    """Raises ConfigError if a measure was named that cannot run."""
    unmeasurable = [m.name for m in selected if m.needs_model not in (None, *models)]
    if is_named and unmeasurable:
        raise ConfigError(f"{', '.join(unmeasurable)}: {_HOW}")


def _without_model(
    todo: MeasureTodo, selected: list[Measure], models: dict[str, str]
) -> dict[str, int]:
    """How many episodes lack hand detections because the model is missing; also printed on standard error."""
    if HAND_LANDMARKER in models:
        return {}
    if todo.waiting:
        names = ", ".join(m.name for m in selected if m.needs_model == HAND_LANDMARKER)
        note = f"{names or 'the detector'}: skipped for {todo.waiting:,} episodes of people: {_HOW}"
        stderr.print(note, highlight=False, markup=False)
    return {"without_hand_landmarker": todo.waiting}


def _report(tally: MeasureTally, number: int, elapsed_s: float) -> dict[str, Any]:
    return {
        "discovered": tally.discovered,
        "up_to_date": tally.up_to_date,
        "measured": tally.measured,
        "failed": tally.failed,
        "errors": dict(tally.errors),
        "rows": tally.rows,
        "snapshot": number,
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
