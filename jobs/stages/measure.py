"""The work of `eicorpus measure`: which measurements a corpus lacks, and computing them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ingest.corpus import snapshot
from ingest.corpus.layout import CorpusLayout
from ingest.corpus.snapshot import Snapshot
from ingest.corpus.writer import writing
from ingest.curation.measurements.registry import Measure, select_measures
from ingest.curation.measurements.runner import MeasureTally, MeasureTodo, measure_corpus, missing
from ingest.models.hand_landmarker import HAND_LANDMARKER, open_detector
from ingest.storage.local import LocalStorage
from jobs.run_context import new_run_id
from jobs.stages.resources import Resources, limits_from
from jobs.ui.options import HAND_LANDMARKER_ENV
from jobs.ui.output import progress_of
from schemas.errors import ConfigError

HOW_TO_GET_THE_MODEL = (
    "needs a model: run `eicorpus models get hand-landmarker`, then pass --hand-landmarker FILE "
    f"or set {HAND_LANDMARKER_ENV}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureRequest:
    """The measures to run, by name, all without any; `models`: name -> file."""

    selected: tuple[Measure, ...]
    models: dict[str, str] = field(default_factory=dict)

    def todo(self, corpus: CorpusLayout, current: Snapshot) -> MeasureTodo:
        return missing(corpus, current, self.selected, self.models)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureResult:
    """What a run did. `failure`: why it exits with 1; "" if it does not."""

    tally: MeasureTally
    waiting: int  # episodes that a measure would be run on with a model that is not named
    snapshot: int
    elapsed_s: float
    failure: str


def measure_request(only: Sequence[str], hand_landmarker: Path | None) -> MeasureRequest:
    """The model file is opened once here: a damaged file is wrong usage, not a thousand failures.

    Raises:
        ConfigError: an unknown measure, a damaged model, or a named measure whose model is not named.
    """
    selected = select_measures(only)
    models: dict[str, str] = {}
    if hand_landmarker is not None:
        models = {HAND_LANDMARKER: str(hand_landmarker.absolute())}
        open_detector(models[HAND_LANDMARKER])
    unmeasurable = [m.name for m in selected if m.needs_model not in (None, *models)]
    if only and unmeasurable:
        raise ConfigError(f"{', '.join(unmeasurable)}: {HOW_TO_GET_THE_MODEL}")
    return MeasureRequest(selected=tuple(selected), models=models)


def run_measure(
    corpus: CorpusLayout, request: MeasureRequest, resources: Resources
) -> MeasureResult:
    """Compute what is missing or outdated. Shows progress on standard error."""
    executor = resources.executor(limits_from())
    started_s, disk = time.monotonic(), LocalStorage(corpus.root)
    with writing(corpus, disk):
        current = snapshot.load(corpus.root)
        todo = request.todo(corpus, current)
        with progress_of("measure", len(todo.lacks)) as advance:
            tally, current = measure_corpus(
                corpus,
                current,
                todo,
                executor,
                run_id=new_run_id(),
                disk=disk,
                models=request.models,
                progress=lambda tally: advance(tally.measured + tally.failed),
            )
    failure = ""
    if tally.failed:
        failure = (
            f"{tally.failed:,} of {tally.discovered:,} episodes failed; see `errors` for the causes"
        )
    return MeasureResult(
        tally=tally,
        waiting=todo.waiting,
        snapshot=current.number,
        elapsed_s=time.monotonic() - started_s,
        failure=failure,
    )
