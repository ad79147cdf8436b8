"""`eicorpus measure`: what is missing or of an older version is measured, in batches that are committed as they come.

A batch is one part of `measurements` under a new snapshot, so a run that is stopped keeps what it has and the next one does
the rest. Rows distinguish versions: readers take the highest version of a name (`latest` below).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from ingest.corpus import publishing, snapshot
from ingest.corpus.dataset_info import read_info
from ingest.corpus.layout import CorpusLayout
from ingest.corpus.snapshot import Part, Snapshot
from ingest.curation.measurements.registry import Measure, add_models, compute, select_measures
from ingest.curation.measurements.view import PERSON, EpisodeView, open_view
from ingest.executors.inline import Executor
from ingest.executors.node_proof import sampled_files, shared
from ingest.models.hand_landmarker import HAND_LANDMARKER, HandDetector, open_detector
from ingest.storage.local import LocalStorage
from schemas.catalog_rows import MeasurementRow, SignatureRow
from schemas.errors import PipelineError
from schemas.measurement import Measurement
from schemas.outcome import WorkerFailure
from schemas.parquet_file import checked, collect

if TYPE_CHECKING:  # the driver's; workers measure without it
    import polars as pl

BATCH_EPISODES = (
    500  # to a snapshot, until a run has measured twenty times that: a snapshot names every part
)
CHUNK_EPISODES = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureWork:
    """One episode and the measures it lacks. Small enough to travel. `models`: name -> file, the same on every machine."""

    corpus: str
    row: Mapping[str, Any]
    segments: Sequence[Mapping[str, Any]]
    features: Mapping[str, Any]
    rate_hz: float
    names: tuple[str, ...]
    models: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Rows of the tables `measurements` and `signatures`, or why there are none."""

    uid: str
    rows: tuple[MeasurementRow, ...] = ()
    vectors: tuple[SignatureRow, ...] = ()
    error: str = ""


@dataclass(kw_only=True)
class MeasureTally:
    """discovered = measured + up_to_date + failed."""

    discovered: int
    up_to_date: int = 0
    measured: int = 0
    failed: int = 0
    rows: int = 0
    seconds: float = 0.0  # of recording measured
    errors: Counter[str] = field(default_factory=Counter)


def measure_episode(work: MeasureWork, disk: LocalStorage) -> Measured:
    """The worker body: all missing measures of one episode; its video is decoded at most once."""
    uid = work.row["uid"]
    rows: list[MeasurementRow] = []
    vectors: list[SignatureRow] = []
    try:
        selected = add_models(select_measures(work.names), work.models)
        view = open_view(
            Path(work.corpus),
            work.row,
            work.segments,
            work.features,
            work.rate_hz,
            hand_detector=_detector_for(work, selected),
        )
        for measure in selected:
            rows += [_row(uid, measure, measurement) for measurement in compute(measure, view)]
            vectors += _signature_rows(uid, measure, view)
    except PipelineError as error:
        return Measured(uid=uid, error=str(error))
    return Measured(uid=uid, rows=tuple(rows), vectors=tuple(vectors))


def _detector_for(work: MeasureWork, selected: Sequence[Measure]) -> HandDetector | None:
    """Only where a measure asks for it and a person is recorded: it costs as much as everything else together."""
    asks = any(HAND_LANDMARKER in (m.needs_model, m.optional_model) for m in selected)
    is_person = str(work.row["embodiment"] or "").startswith(PERSON)
    path = work.models.get(HAND_LANDMARKER)
    return open_detector(path) if path is not None and asks and is_person else None


def _row(uid: str, measure: Measure, measurement: Measurement) -> MeasurementRow:
    return MeasurementRow(
        uid=uid,
        name=measurement.name,
        version=measure.stored_version,
        value=measurement.value,
        unit=measurement.unit,
        start=measurement.start,
        end=measurement.end,
        denominator=measurement.denominator,
    )


def _signature_rows(uid: str, measure: Measure, view: EpisodeView) -> list[SignatureRow]:
    vectors = measure.vectors(view) if measure.vectors else {}
    return [
        SignatureRow(
            uid=uid, kind=kind, version=measure.stored_version, vector=vector.astype(np.float32)
        )
        for kind, vector in vectors.items()
    ]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MeasureTodo:
    """Which measures each episode lacks: `lacks` has a row for each episode with something to do."""

    lacks: pl.DataFrame  # uid, and one bool column for each wanted measure that can be run
    up_to_date: int
    waiting: int = (
        0  # episodes that a measure would be run on if there were the models that are not given
    )


def missing(
    corpus: CorpusLayout,
    current: Snapshot,
    selected: Sequence[Measure],
    models: Mapping[str, str] | None = None,
) -> MeasureTodo:
    """What is not in the catalog at its present version; one pass over `measurements`, a part at a time.

    Memory is a byte for each episode and name that is asked for, whatever the number of rows.
    """
    models = models or {}
    runnable = add_models(selected, models)
    every = dict.fromkeys(m.needs_model or m.optional_model or "" for m in selected)
    absent = [name for name in every if name and name not in models]
    if_given = add_models(
        [m for m in selected if {m.needs_model, m.optional_model} & set(absent)],
        dict.fromkeys(absent, ""),
    )
    import polars as pl

    episodes = pl.DataFrame(current.read(corpus.root, "episodes", ["uid", "embodiment"]))
    fresh = _has_all(corpus, current, episodes["uid"], [*runnable, *if_given])
    is_person = episodes["embodiment"].fill_null("").str.starts_with(PERSON).to_numpy()
    is_missing = [
        ~has & (is_person if m.of_people else True) for m, has in zip(runnable, fresh, strict=False)
    ]
    waits = np.zeros(len(episodes), dtype=bool)
    for measure, has in zip(if_given, fresh[len(runnable) :], strict=True):
        waits |= ~has & (is_person if measure.of_people else True)
    lacks = episodes.select("uid").with_columns(
        *(pl.Series(m.name, row) for m, row in zip(runnable, is_missing, strict=True))
    )
    todo = lacks.filter(pl.any_horizontal(m.name for m in runnable)) if runnable else lacks.clear()
    return MeasureTodo(lacks=todo, up_to_date=len(episodes) - len(todo), waiting=int(waits.sum()))


def _has_all(
    corpus: CorpusLayout, current: Snapshot, uids: pl.Series, selected: Sequence[Measure]
) -> list[npt.NDArray[np.bool_]]:
    """For each measure [N] whether the episode has every name of it at its version or a later one.

    What gained from a model is not made anew without it, even by a later version: that would be a step back.
    """
    import polars as pl

    from ingest.catalog.uid_index import UidIndex

    places = UidIndex(uids)
    names = sorted({output.name for measure in selected for output in measure.outputs})
    at = {name: i for i, name in enumerate(names)}
    version = np.zeros((len(uids), len(names)), dtype=np.int16)
    for part in current.parts("measurements"):
        path = part.file(corpus.root)
        scan = pl.scan_parquet(checked(path), glob=False).select("uid", "name", "version")
        rows = collect(scan.filter(pl.col("name").is_in(names)), path)
        row = places.of(rows["uid"])
        column = rows["name"].replace_strict(at, return_dtype=pl.Int64).to_numpy()
        known = row >= 0
        versions = rows["version"].to_numpy().astype(np.int16)
        np.maximum.at(version, (row[known], column[known]), versions[known])
    out = []
    for measure in selected:
        columns = [at[output.name] for output in measure.outputs]
        is_fresh = version[:, columns] >= measure.stored_version
        if not measure.has_model:
            is_fresh |= measure.gained(version[:, columns])
        out.append(np.asarray(is_fresh.all(axis=1)))
    return out


def work_of(
    corpus: CorpusLayout,
    current: Snapshot,
    todo: MeasureTodo,
    models: Mapping[str, str] | None = None,
) -> Iterator[MeasureWork]:
    """The episodes to measure with what a worker needs of the catalog, a few thousand in memory at a time."""
    infos = cache(partial(read_info, corpus.root))
    names = [column for column in todo.lacks.columns if column != "uid"]
    for start in range(0, len(todo.lacks), CHUNK_EPISODES):
        chunk = todo.lacks[start : start + CHUNK_EPISODES]
        only = pc.field("uid").isin(chunk["uid"].to_arrow())
        segments: dict[str, list[dict[str, Any]]] = {}
        for row in current.read(corpus.root, "segments", only=only).to_pylist():
            segments.setdefault(row["uid"], []).append(row)
        missing_names = {row["uid"]: tuple(n for n in names if row[n]) for row in chunk.to_dicts()}
        for row in current.read(corpus.root, "episodes", only=only).to_pylist():
            info = infos(row["dataset_path"])
            yield MeasureWork(
                corpus=str(corpus.root),
                row=row,
                segments=tuple(segments.get(row["uid"], ())),
                features=info.features,
                rate_hz=float(info.fps),
                names=missing_names[row["uid"]],
                models=models or {},
            )


def measure_corpus(
    corpus: CorpusLayout,
    current: Snapshot,
    todo: MeasureTodo,
    executor: Executor,
    *,
    run_id: str,
    disk: LocalStorage,
    models: Mapping[str, str] | None = None,
    progress: Callable[[MeasureTally], None] = lambda tally: None,
) -> tuple[MeasureTally, Snapshot]:
    """Measure what `missing` found with the same `models`. The caller holds the writer lock.

    Raises:
        TransientError: another writer was first; what is committed stays, run again.
    """
    tally = MeasureTally(discovered=len(todo.lacks) + todo.up_to_date, up_to_date=todo.up_to_date)
    work = work_of(corpus, current, todo, models)
    batch: list[MeasurementRow] = []
    vectors: list[SignatureRow] = []
    waiting = 0

    def flush(parent: Snapshot) -> Snapshot:
        nonlocal batch, vectors, waiting
        if not batch:
            return parent
        parts = _parts(disk, corpus.root, parent, batch, vectors)
        batch, vectors, waiting = [], [], 0
        return publishing.publish(disk, corpus.root, parent, parts, run_id)

    try:
        with shared(executor, corpus, disk, files=partial(sampled_files, corpus.root / "datasets")):
            for one, result in executor.run(lambda: next(work, None), measure_episode):
                measured = _measured(one, result)
                tally.failed += bool(measured.error)
                tally.measured += not measured.error
                tally.errors[measured.error.split(":")[0]] += bool(measured.error)
                tally.rows += len(measured.rows)
                tally.seconds += one.row["duration_s"] if not measured.error else 0.0
                batch += measured.rows
                vectors += measured.vectors
                waiting += 1
                if waiting >= max(BATCH_EPISODES, tally.measured // 20):
                    current = flush(current)
                progress(tally)
    finally:
        current = flush(current)
    tally.errors += Counter()  # without zeros
    return tally, current


def _parts(
    disk: LocalStorage,
    root: Path,
    parent: Snapshot,
    rows: list[MeasurementRow],
    vectors: list[SignatureRow],
) -> dict[str, Part]:
    """One part of each table, in an order that does not depend on which worker was faster."""
    ordered = sorted(rows, key=lambda r: (r.uid, r.name, r.start or 0, r.end or 0))
    parts = {"measurements": snapshot.write_part(disk, root, MeasurementRow, ordered)}
    if vectors:
        by_kind = sorted(vectors, key=lambda r: (r.uid, r.kind))
        part = snapshot.write_part(disk, root, SignatureRow, by_kind)
        # A measure that only gained a name makes the same vectors again: they are there already.
        parts |= {} if part in parent.parts("signatures") else {"signatures": part}
    return parts


def _measured(work: MeasureWork, result: Measured | WorkerFailure) -> Measured:
    if isinstance(result, WorkerFailure):
        return Measured(uid=work.row["uid"], error=f"{result.code.value}: {result.how}")
    return result


def latest(measurements: pl.DataFrame) -> pl.DataFrame:
    """Only the rows of the highest version of each (uid, name)."""
    import polars as pl

    newest = pl.col("version").max().over("uid", "name")
    return measurements.filter(pl.col("version") == newest)
