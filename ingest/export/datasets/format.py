"""What a format of export does: units of work that write into a folder of their own, and files over all of them at the end."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

import pyarrow as pa

from ingest.export.datasets.plan import PLANNED, DatasetPlan, ExportedSegment, ExportPlan, UnfitRows

UNIT_BYTES = 128 << 20  # about, of the videos of one camera and of the data of a unit
UNIT_SEGMENTS = 128  # at most, so that workers share an export of short segments too


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExportUnit:
    """Consecutive segments of one dataset, written by one worker."""

    number: int  # of all units of the export
    corpus: Path
    dataset: DatasetPlan  # without its rows
    segments: tuple[ExportedSegment, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitRecord:
    """What a unit has written. `facts` is what its format needs at the end; JSON."""

    number: int
    dataset: str
    files: Mapping[str, tuple[int, str]]  # name in the folder of the unit -> (bytes, sha256)
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Finishing:
    """The end of an export: every unit is written."""

    plan: ExportPlan
    records: Callable[[], Iterator[UnitRecord]]  # in the order of units
    write: Callable[[str, bytes], None]  # a file of the export, by its path in it
    folder: Path


class Format(Protocol):
    """One format. An object of it travels to workers."""

    name: ClassVar[str]

    def settings(self) -> Mapping[str, Any]:
        """What its files depend on besides the plan, JSON."""
        ...

    def left_out(self, rows: pa.Table) -> Iterable[UnfitRows]:
        """Rows of PLANNED that it cannot hold."""
        ...

    def divide(self, dataset: DatasetPlan) -> Iterable[DatasetPlan]:
        """The datasets that a dataset of the corpus becomes, with other names where there are several; most formats give it back as it is."""
        ...

    def check(self, plan: ExportPlan) -> None:
        """
        Raises:
            ConfigError: the plan has what this format cannot hold.
        """
        ...

    def write(self, unit: ExportUnit, folder: Path) -> Mapping[str, Any]:
        """Write the files of a unit into its folder. Returns its facts."""
        ...

    def places(self, finishing: Finishing) -> Iterator[tuple[int, str, str]]:
        """(unit, name in its folder, path in the export) of every file that units wrote."""
        ...

    def finish(self, finishing: Finishing) -> Mapping[str, Any]:
        """Write what describes all units. Returns what the export's page says of the format."""
        ...


def units_of(
    plan: ExportPlan, segments: Callable[[DatasetPlan], Iterator[ExportedSegment]]
) -> Iterator[ExportUnit]:
    """Every unit: segments in their order, until a camera or the data have about UNIT_BYTES, or there are UNIT_SEGMENTS."""
    number = 0
    for dataset in plan.datasets:
        travels = replace(dataset, rows=PLANNED.empty_table())
        waiting: list[ExportedSegment] = []
        size = 0
        sizes = zip(
            *(dataset.rows[n].to_pylist() for n in ("largest_video", "data_bytes")), strict=True
        )
        for segment, (video, data) in zip(segments(dataset), sizes, strict=True):
            own = max(video, data) * segment.num_frames // max(segment.length, 1)
            if waiting and (size + own > UNIT_BYTES or len(waiting) == UNIT_SEGMENTS):
                yield ExportUnit(
                    number=number, corpus=plan.corpus, dataset=travels, segments=tuple(waiting)
                )
                number, size = number + 1, 0
                waiting = []
            waiting.append(segment)
            size += own
        yield ExportUnit(
            number=number, corpus=plan.corpus, dataset=travels, segments=tuple(waiting)
        )
        number += 1


def file_facts(path: Path) -> tuple[int, str]:
    """(bytes, sha256) of a file that was written."""
    with path.open("rb") as file:
        return path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()
