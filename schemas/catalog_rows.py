"""Rows of catalog tables as objects, for code that looks at one episode at a time; whole tables stay Arrow.

A type names its table, and its fields are columns of `schemas.catalog.TABLES`: `tests/schemas/test_catalog_rows.py` holds one to the
other. `| None` marks what our own writers leave out; a catalog that someone sent may hold NULL anywhere. Here is what workers make;
`schemas/committed_rows.py` has the rest, which workers need not import.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict, TypeVar

import pyarrow as pa

from schemas.catalog import TABLES

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class FactValue(TypedDict):
    """As `schemas.fact.Fact.as_row` writes it."""

    name: str
    value: str
    certainty: str
    source: str


class CameraValue(TypedDict):
    name: str
    width: int
    height: int
    codec: str
    source_codec: str
    was_copied: bool
    K_cam: list[float] | None
    lens_model: str | None
    lens_params: list[float] | None


class RepeatValue(TypedDict):
    camera: str
    start: int
    end: int
    luma: float


class RawFileValue(TypedDict):
    path: str
    num_bytes: int
    digest: str


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class CatalogRow:
    """A row of the table, or some columns of one."""

    TABLE: ClassVar[str]


R = TypeVar("R", bound=CatalogRow)


def columns_of(kind: type[CatalogRow]) -> tuple[str, ...]:
    """The columns that a row type has, in its order."""
    row_type: Any = kind
    return _field_names(row_type)


@cache
def _field_names(row_type: Any) -> tuple[str, ...]:
    """`fields` takes longer than all else that is done with a row."""
    return tuple(each.name for each in fields(row_type))


def rows_of(kind: type[R], table: pa.Table) -> list[R]:
    """Rows of a table or a batch, each as an object; None where it does not have the column."""
    names, have, nothing = columns_of(kind), set(table.schema.names), [None] * len(table)
    columns = [table.column(name).to_pylist() if name in have else nothing for name in names]
    return [kind(**dict(zip(names, values, strict=True))) for values in zip(*columns, strict=True)]


def table_of(kind: type[R], rows: Iterable[R]) -> pa.Table:
    """Rows as an Arrow table of the declared types, with the columns that `kind` has."""
    names = columns_of(kind)
    schema = pa.schema([column for column in TABLES[kind.TABLE] if column.name in names])
    values = map(_values_of(tuple(schema.names)), rows)
    columns = list(zip(*values, strict=True)) or [()] * len(schema)
    return pa.Table.from_arrays(
        [pa.array(each, type=column.type) for column, each in zip(schema, columns, strict=True)],
        schema=schema,
    )


def _values_of(names: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
    """Some fields of a row."""
    if len(names) == 1:
        return lambda row: (getattr(row, names[0]),)
    get: Callable[[Any], tuple[Any, ...]] = attrgetter(*names)
    return get


def as_dict(row: CatalogRow) -> dict[str, Any]:
    """Column -> value, for JSON and digests."""
    return {name: getattr(row, name) for name in columns_of(type(row))}


# Columns of `episodes` that only the committer knows.
PLACE = frozenset({"dataset_path", "episode_index", "index_from", "run_id"})


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeFacts(CatalogRow):
    """What a worker knows of an episode: its row without its place in the corpus."""

    TABLE: ClassVar[str] = "episodes"

    uid: str
    source: str
    dataset: str
    episode_id: str
    embodiment: str
    length: int
    duration_s: float
    hours: float
    tasks: list[str]
    task_counts: list[int]
    cameras: list[CameraValue]
    absent_cameras: list[str] | None
    eef_frame: str
    frames_verified: bool
    camera_motion_removed: bool
    action_source: str
    action_coverage: float
    command_only: list[str] | None
    supervises: list[str]
    supervision_limits: list[str]
    source_rate_hz: float
    source_rate: str
    worst_image_skew_ms: float | None
    repeated_frame_share: float | None
    source_repeats: list[RepeatValue] | None
    num_gaps: int
    success: bool | None
    subject_id: str | None
    scene_id: str | None
    split_group: str
    split: str
    source_split: str | None
    licence: str
    licence_class: str
    allows_redistribution: bool | None
    facts: list[FactValue]
    raw_files: list[RawFileValue]
    adapter_version: int
    recipe_digest: str
    options_digest: str
    content_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentRow(CatalogRow):
    TABLE: ClassVar[str] = "segments"

    uid: str
    segment_index: int
    kind: str
    start: int
    end: int
    start_s: float
    end_s: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasurementRow(CatalogRow):
    TABLE: ClassVar[str] = "measurements"

    uid: str
    name: str
    version: int
    value: float | None
    unit: str
    start: int | None
    end: int | None
    denominator: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SignatureRow(CatalogRow):
    TABLE: ClassVar[str] = "signatures"

    uid: str
    kind: str
    version: int
    vector: npt.NDArray[np.float32] | list[float]  # a list takes ten times an array's bytes to send
