"""The cache of one snapshot: what pages, facets and details are answered from, derived once and never changed.

    columns.json    the columns, in order: name, kind, unit, texts of a coded column
    values-N.npy    [E] float64 (NaN unknown), or int32 codes (-1 unknown); E episodes in the order of their uids
    order-N.npy     [E] int32 rows in ascending order of the column, unknown ones last, ties by uid
    texts.arrow     uid, texts to show, and the lower-case text that a search looks through
    similar-*.npy   the coarse vectors of signatures that similar episodes are found by; two columns are their place on the map
    detail.duckdb   the rows of every table, each with the row number of its episode, sorted by it

It lies outside the corpus. It is written under another name and renamed, so it is whole or not there.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from ingest.catalog.episode_tier import EPISODE_TIERS
from ingest.catalog.query_process import QueryLimits
from ingest.catalog.uid_index import UidIndex
from ingest.catalog.views import connect, create_views, literal
from ingest.corpus import snapshot
from ingest.corpus.snapshot import Snapshot
from ingest.curation.duplicates.plane import principal_plane
from ingest.curation.duplicates.similar import CoarseVectors, read_coarse_vectors
from ingest.curation.tiers.measurement_matrix import read_matrix
from ingest.storage.lock_file import open_lock
from jobs.service.cache_key import key_of
from schemas.catalog import TABLES
from schemas.errors import ConfigError
from schemas.review import TIERS

COLUMNS, TEXTS, DETAIL = "columns.json", "texts.arrow", "detail.duckdb"
SIMILAR = "similar-{}.npy"  # by the field of `CoarseVectors`
BUILDING = ".building"  # the prefix of what is not finished
MEASUREMENT = "measurements."  # the prefix of a column that is a measurement
MAX_SHOWN_TEXT = 2000  # characters of a caption in a page
LIMITS = QueryLimits(
    timeout_s=3600.0, memory_mb=2048
)  # what exceeds it spills; the answer in Arrow comes on top

# Whether an episode has a row in a table: the steps of the overview.
STEPS = {
    "measured": "SELECT uid FROM measurements",
    "judged": "SELECT uid FROM tiers",
    "captioned": "SELECT uid FROM captions WHERE outcome = 'ok'",
    "with_latents": "SELECT uid FROM latents",
}
CODED = (
    "source",
    "dataset",
    "embodiment",
    "tier",
    "licence_class",
    "split",
    "source_split",
    "action_source",
    "eef_frame",
    "success",
    "frames_verified",
    "camera_motion_removed",
    "allows_redistribution",
    "duplicate",
)
NUMBERS = {  # column -> unit
    "length": "timesteps",
    "duration_s": "s",
    "hours": "h",
    "hours_high": "h",
    "hours_low": "h",
    "hours_actionless": "h",
    "hours_excluded": "h",
    "action_coverage": "ratio",
    "source_rate_hz": "Hz",
    "worst_image_skew_ms": "ms",
    "repeated_frame_share": "ratio",
    "num_gaps": "",
    "num_cameras": "",
    "num_captions": "",
}
SHOWN = ("uid", "episode_id", "dataset_path", "subject_id", "scene_id", "tasks", "caption")
# Tables of which every row belongs to one episode, and the order of an episode's rows.
OF_EPISODES = {
    "measurements": '"name", "version", "start"',
    "segments": '"kind", "segment_index"',
    "tiers": '"segment_index"',
    "captions": '"start", caption_id',
    "duplicates": "snapshot",
    "latents": "camera, encoder_id, run_id",
    "artifacts": "kind, camera",
}
LEFT_OUT = {"artifacts": ("detail_json",)}  # statistics of files: long, and no page shows them
WHOLE = ("sources", "policies", "runs", "verdicts", "tombstones", "dedups")

WIDE = f"""WITH tier AS {EPISODE_TIERS},
caption AS (
    SELECT uid, count(*) AS num_captions, arg_min(text, ("start", caption_id)) AS caption,
        string_agg(text, chr(10)) AS texts FROM captions WHERE outcome = 'ok' GROUP BY uid)
SELECT e.uid, e.episode_id, e.dataset_path, e.subject_id, e.scene_id,
    array_to_string(e.tasks, chr(10)) AS tasks, left(caption.caption, {MAX_SHOWN_TEXT}) AS caption,
    lower(concat_ws(chr(10), e.episode_id, array_to_string(e.tasks, chr(10)), caption.texts)) AS search,
    e.source, e.dataset, e.embodiment, tier.tier, e.licence_class, e.split, e.source_split, e.action_source, e.eef_frame,
    e.success::VARCHAR AS success, e.frames_verified::VARCHAR AS frames_verified,
    e.camera_motion_removed::VARCHAR AS camera_motion_removed,
    e.allows_redistribution::VARCHAR AS allows_redistribution, d.kind AS duplicate,
    {", ".join(f"coalesce(e.uid IN ({rows}), false)::VARCHAR AS {step}" for step, rows in STEPS.items())},
    e.length, e.duration_s, e.hours,
    {", ".join(f"e.hours * coalesce(tier.{each}, 0) / e.length AS hours_{each}" for each in TIERS)},
    e.action_coverage, e.source_rate_hz, e.worst_image_skew_ms, e.repeated_frame_share, e.num_gaps,
    len(e.cameras) AS num_cameras, coalesce(caption.num_captions, 0) AS num_captions
FROM cache.episodes e LEFT JOIN tier USING (uid) LEFT JOIN caption USING (uid)
    LEFT JOIN duplicates d USING (uid) ORDER BY e.episode"""
UNITS = """SELECT name, any_value(unit) AS unit FROM measurements WHERE "start" IS NULL AND name IS NOT NULL GROUP BY name ORDER BY name"""
OUTCOMES = (
    """SELECT source, state, code, count(*) AS episodes FROM verdicts GROUP BY ALL ORDER BY ALL"""
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnFacts:
    """A column of `columns.json`. `texts` of a coded one, ascending, so that codes compare as texts do."""

    name: str
    kind: str  # number | coded | text
    unit: str = ""
    texts: tuple[str, ...] = ()


def build_cache(
    corpus: Path, state: Path, number: int | None = None, limits: QueryLimits = LIMITS
) -> Path:
    """The cache of a snapshot, the latest by default: the one there is, or a new one. One process at a time builds in a state folder.

    Raises:
        ConfigError: the corpus cannot be read.
        SourceError: a file of the catalog is gone: the snapshot was erased meanwhile.
    """
    current = snapshot.load(corpus, number)
    key = key_of(corpus, current)
    target = state / key.folder
    with _building(state) as folder:
        if target.is_dir():
            return target
        with connect(limits) as connection:
            _write(connection, corpus, current, folder)
        (folder / "key.json").write_text(json.dumps(asdict(key)))
        for path in (
            *folder.iterdir(),
            folder,
        ):  # else a power cut leaves empty files under a name that is trusted
            _synchronise(path)
        os.rename(folder, target)
    return target


def _synchronise(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _building(state: Path) -> Iterator[Path]:
    """A new folder, held by this process alone; what a killed process left is removed."""
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = open_lock(state / ".lock")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        for left in state.glob(f"{BUILDING}*"):
            shutil.rmtree(left, ignore_errors=True)
        folder = state / f"{BUILDING}-{os.getpid()}"
        folder.mkdir(mode=0o700)
        yield folder
    finally:
        os.close(handle)


def _write(
    connection: duckdb.DuckDBPyConnection, corpus: Path, current: Snapshot, folder: Path
) -> None:
    parts = {name: [str(p.file(corpus)) for p in current.parts(name)] for name in TABLES}
    connection.execute(f"SET temp_directory = {literal(str(folder / 'spill'))}")
    try:
        create_views(connection, parts)
        connection.execute(f"ATTACH {literal(str(folder / DETAIL))} AS cache")
        _write_detail(connection)
        wide = connection.sql(WIDE).to_arrow_table()
        units = dict(connection.sql(UNITS).fetchall())
        outcomes = connection.sql(OUTCOMES).to_arrow_table().to_pylist()
        connection.execute("DETACH cache")
    except duckdb.Error as error:
        raise ConfigError(
            f"the catalog cannot be read: {error}",
            remedy=f"run `eicorpus verify {corpus}` to list the damage",
            where=str(corpus),
        ) from error
    shutil.rmtree(folder / "spill", ignore_errors=True)
    shown = wide.select([*SHOWN, "search"]).combine_chunks()
    with pa.ipc.new_file(folder / TEXTS, shown.schema) as writer:
        writer.write_table(shown)
    vectors = read_coarse_vectors(corpus, current, wide["uid"].combine_chunks())
    for field in fields(vectors):
        values = getattr(vectors, field.name)
        np.save(folder / SIMILAR.format(field.name), values, allow_pickle=False)
    columns = [
        *_write_columns(wide, folder),
        *_write_measurements(corpus, current, wide["uid"], units, folder, first=len(_KINDS)),
    ]
    explained = {}
    for space, (of, values) in _spaces(vectors).items():
        plane = principal_plane(of, values, wide.num_rows)
        explained[space] = plane.explained
        for axis, place in zip(map_columns(space), plane.places.T, strict=True):
            _save(folder, len(columns), place, order_of(place))
            columns.append(ColumnFacts(name=axis, kind="number"))
    about = {
        "columns": [asdict(each) for each in columns],
        "outcomes": outcomes,
        "explained": explained,
    }
    (folder / COLUMNS).write_text(json.dumps(about, allow_nan=False))


def _spaces(vectors: CoarseVectors) -> dict[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """What the two maps are of: episode and vector."""
    return {
        "pictures": (vectors.of_picture, vectors.pictures),
        "motion": (vectors.of_path, vectors.paths),
    }


def map_columns(space: str) -> tuple[str, str]:
    """The columns of the two coordinates of a map."""
    return f"map.{space}_x", f"map.{space}_y"


def _write_detail(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute(
        "CREATE TABLE cache.episodes AS SELECT (row_number() OVER (ORDER BY uid) - 1)::INTEGER AS episode, * "
        "FROM episodes WHERE uid IS NOT NULL ORDER BY uid"
    )
    for table, order in OF_EPISODES.items():
        left_out = ", ".join(("uid", *LEFT_OUT.get(table, ())))
        connection.execute(
            f"CREATE TABLE cache.{table} AS SELECT e.episode, t.* EXCLUDE ({left_out}) "
            f"FROM {table} t JOIN (SELECT uid, episode FROM cache.episodes) e USING (uid) ORDER BY e.episode, {order}"
        )
    for table in WHOLE:
        order = "uid" if "uid" in TABLES[table].names else "ALL"
        connection.execute(f"CREATE TABLE cache.{table} AS FROM {table} ORDER BY {order}")


_KINDS = {
    **dict.fromkeys((*CODED, *STEPS), "coded"),
    **dict.fromkeys(NUMBERS, "number"),
    "uid": "text",
    "episode_id": "text",
}


def _write_columns(wide: pa.Table, folder: Path) -> Iterator[ColumnFacts]:
    for place, (name, kind) in enumerate(_KINDS.items()):
        column = wide[name].combine_chunks()
        texts: tuple[str, ...] = ()
        if kind == "coded":
            texts = tuple(sorted(pc.unique(column).drop_null().to_pylist()))
            codes = pc.fill_null(pc.index_in(column, pa.array(texts, pa.string())), -1)
            values = codes.to_numpy(zero_copy_only=False).astype(np.int32)
            _save(folder, place, values, order_of(np.where(values < 0, np.nan, values)))
        elif kind == "number":
            numbers = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
            _save(folder, place, numbers, order_of(numbers))
        else:
            order = pc.sort_indices(
                pa.table({"text": column, "row": np.arange(len(column))}),
                sort_keys=[("text", "ascending", "at_end"), ("row", "ascending", "at_end")],
            )
            _save(folder, place, None, order.to_numpy().astype(np.int32))
        yield ColumnFacts(name=name, kind=kind, unit=NUMBERS.get(name, ""), texts=texts)


def _write_measurements(
    corpus: Path,
    current: Snapshot,
    uids: pa.ChunkedArray,
    units: Mapping[str, str],
    folder: Path,
    *,
    first: int,
) -> Iterator[ColumnFacts]:
    """The newest value of each measurement of whole episodes."""
    series = pl.Series(uids)
    matrix = read_matrix(corpus, current, UidIndex(series), names=units, interval_names=())
    for place, (name, values) in enumerate(matrix.values.items(), start=first):
        _save(folder, place, values, order_of(values))
        yield ColumnFacts(name=f"{MEASUREMENT}{name}", kind="number", unit=units[name] or "")


def order_of(values: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
    """Rows by value, then by row; unknown ones (NaN) last."""
    return np.argsort(values, kind="stable").astype(np.int32)


def _save(
    folder: Path, place: int, values: npt.NDArray[Any] | None, order: npt.NDArray[np.int32]
) -> None:
    if values is not None:
        np.save(folder / f"values-{place}.npy", values, allow_pickle=False)
    np.save(folder / f"order-{place}.npy", order, allow_pickle=False)
