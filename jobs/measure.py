"""`eicorpus measure CORPUS`: numbers about every episode that do not have them yet."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from ingest.corpus import snapshot
from ingest.corpus.layout import open_corpus
from ingest.corpus.writing import writing
from ingest.curation.measurements.registry import (
    Measure,
    measures,
    measures_of_packages,
    select_measures,
)
from ingest.curation.measurements.runner import MeasureTally, Todo, measure_corpus, missing
from ingest.models.hand_detector import HAND_LANDMARKER, open_detector
from ingest.storage.local import LocalStorage
from jobs.cores import usable_cores
from jobs.ingest import executor_for, limits_from
from jobs.models import HAND_LANDMARKER_ENV, HandLandmarkerFile
from jobs.output import answer_json, duration, exit_1, progress_of, stderr, stdout, table
from jobs.run_context import new_run_id
from schemas.errors import ConfigError

_HOW = (
    "it needs a model: `eicorpus models get hand-landmarker`, then --hand-landmarker FILE "
    f"or {HAND_LANDMARKER_ENV}"
)


def command(
    corpus: Annotated[Path | None, typer.Argument(help="The corpus.")] = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", help="A measure by name; repeatable.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes; 0 works inline. Default: all cores.")
    ] = None,
    ray: Annotated[bool, typer.Option("--ray", help="Run on Ray instead.")] = False,
    address: Annotated[str | None, typer.Option(help="Join this Ray cluster.")] = None,
    hand_landmarker: HandLandmarkerFile = None,
    list_: Annotated[bool, typer.Option("--list", help="Every name, its unit and source.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count only.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Measure what is missing or was measured by an older version. Stop it at any time; run it again to go on."""
    if list_ or corpus is None:
        _list(as_json=as_json)
        return
    opened = open_corpus(corpus)
    wanted, models = select_measures(only or []), _models(hand_landmarker)
    _check_needs(wanted, models, is_named=bool(only))
    if dry_run:
        todo = missing(opened, snapshot.load(opened.root), wanted, models)
        counts = {"to_do": len(todo.lacks), "up_to_date": todo.up_to_date}
        _tell(counts | _without_model(todo, wanted, models), as_json=as_json)
        return
    limits = limits_from()
    count = usable_cores() if workers is None else workers
    executor = executor_for(
        limits, workers=count, use_ray=ray or address is not None, address=address
    )
    started, disk = time.monotonic(), LocalStorage(opened.root)
    with writing(opened, disk):
        current = snapshot.load(opened.root)
        todo = missing(opened, current, wanted, models)
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
    told = _report(tally, current.number, time.monotonic() - started)
    _tell(told | _without_model(todo, wanted, models), as_json=as_json)
    if tally.failed:
        exit_1(f"{tally.failed:,} of {tally.discovered:,} episodes failed; `errors` counts why")


def _models(hand_landmarker: Path | None) -> dict[str, str]:
    """The models that are given, opened once here: a damaged file is the caller's mistake and not a thousand failures."""
    if hand_landmarker is None:
        return {}
    path = str(hand_landmarker.absolute())
    open_detector(path)
    return {HAND_LANDMARKER: path}


def _check_needs(wanted: list[Measure], models: dict[str, str], *, is_named: bool) -> None:
    """A measure that was asked for by name and cannot run is a mistake; raises ConfigError."""
    lacking = [m.name for m in wanted if m.needs_model not in (None, *models)]
    if is_named and lacking:
        raise ConfigError(f"{', '.join(lacking)}: {_HOW}")


def _without_model(todo: Todo, wanted: list[Measure], models: dict[str, str]) -> dict[str, int]:
    """How many episodes a missing model leaves without hand detections, told on standard error too."""
    if HAND_LANDMARKER in models:
        return {}
    if todo.waiting:
        names = ", ".join(m.name for m in wanted if m.needs_model == HAND_LANDMARKER)
        told = f"{names or 'the detector'}: not run on {todo.waiting:,} episodes of people: {_HOW}"
        stderr.print(told, highlight=False, markup=False)
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


def _tell(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        answer_json(found)
        return
    rows = [[key, duration(value) if key == "elapsed_s" else value] for key, value in found.items()]
    stdout.print(table("measure", ["what", "value"], rows))


def _list(*, as_json: bool) -> None:
    rows = [
        [gives.name, gives.unit, m.name, m.stored_version, _needs(m), gives.about]
        for m in measures().values()
        for gives in m.gives
    ]
    rows += [  # not imported before one is named
        [name, "", name, None, "", f"an installed package's, {place}"]
        for name, place in measures_of_packages().items()
    ]
    columns = ["name", "unit", "measure", "version", "needs", "about"]
    if as_json:
        answer_json({"measures": [dict(zip(columns, row, strict=True)) for row in rows]})
    else:
        stdout.print(table("measures", columns, rows))


def _needs(measure: Measure) -> str:
    needs = [
        word for word in ("video" if measure.needs_video else None, measure.needs_model) if word
    ]
    return ", ".join(needs)
