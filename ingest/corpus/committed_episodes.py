"""Committed episodes as a snapshot has them, batch by batch: memory does not grow with the corpus but for 50 bytes a uid.

An episode's rows in `artifacts`, `segments` and `measurements` are those of the FIRST part that mentions its uid: ingestion
writes them together, and what curation appends later is not part of the episode's content.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from ingest.corpus.digest import content_digest, rows_digest
from ingest.corpus.layout import data_file, video_file
from ingest.corpus.snapshot import Snapshot, json_of
from ingest.corpus.tombstones import ErasedPlace, places, tombstones
from schemas.catalog_rows import MeasurementRow, R, SegmentRow, rows_of
from schemas.committed_rows import ArtifactRow, EpisodeRow
from schemas.lerobot import DEFAULT_FEATURES
from schemas.parquet_file import read_batches, read_table

BATCH_EPISODES = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class CommittedEpisode:
    """One episode with all its rows, or the place of one that was erased."""

    row: EpisodeRow | ErasedPlace
    artifacts: Sequence[ArtifactRow]
    segments: Sequence[SegmentRow] = ()
    measurements: Sequence[MeasurementRow] = ()

    @property
    def is_erased(self) -> bool:
        return isinstance(self.row, ErasedPlace)

    @property
    def cameras(self) -> list[str]:
        if isinstance(self.row, ErasedPlace):
            return self.row.cameras
        return [camera["name"] for camera in self.row.cameras]

    @property
    def data_path(self) -> str:
        """Where its rows must lie, relative to the corpus."""
        return f"{self.row.dataset_path}/{data_file(self.row.episode_index)}"

    def video_path(self, camera: str) -> str:
        """Where a camera's pictures must lie, relative to the corpus."""
        name = video_file(self.row.episode_index, f"observation.images.{camera}")
        return f"{self.row.dataset_path}/{name}"

    def artifact(self, kind: str, camera: str | None = None) -> ArtifactRow | None:
        """The row of its data file or of one video; None unless there is exactly one."""
        matches = [a for a in self.artifacts if a.kind == kind and a.camera == camera]
        return matches[0] if len(matches) == 1 else None

    @staticmethod
    def detail(artifact: ArtifactRow) -> Mapping[str, Any]:
        """The statistics of a data file (by feature) or of a video."""
        return json_of(artifact.detail_json, where=artifact.path)

    def content_sha256(self, table: pa.Table, texts: Sequence[str], videos: dict[str, str]) -> str:
        """The content digest from what lies on disk: rows, the task text of each, sha256 of each camera's video."""
        assert isinstance(self.row, EpisodeRow)  # a place has no content
        return content_digest(
            rows_sha256=rows_digest(table.drop_columns(list(DEFAULT_FEATURES)), texts),
            videos=videos,
            episode=self.row,
            segments=self.segments,
            measurements=self.measurements,
        )


def committed_batches(corpus: Path, current: Snapshot) -> Iterator[list[CommittedEpisode]]:
    """Every committed episode in the order of commits, at most `BATCH_EPISODES` at a time."""
    artifacts = RowsByUid(corpus, current, ArtifactRow)
    segments = RowsByUid(corpus, current, SegmentRow)
    measurements = RowsByUid(corpus, current, MeasurementRow)
    for part in current.parts("episodes"):
        for batch in read_batches(part.file(corpus), BATCH_EPISODES):
            rows = rows_of(EpisodeRow, batch)
            uids = [row.uid for row in rows]
            files, spans, values = (
                artifacts.rows(uids),
                segments.rows(uids),
                measurements.rows(uids),
            )
            yield [
                CommittedEpisode(
                    row=row,
                    artifacts=files[row.uid],
                    segments=spans[row.uid],
                    measurements=values[row.uid],
                )
                for row in rows
            ]


def erased_places(corpus: Path, current: Snapshot) -> list[CommittedEpisode]:
    """Places of erased episodes by dataset and number, as episodes whose files the tombstones name."""
    return [
        CommittedEpisode(
            row=place,
            artifacts=[
                ArtifactRow(uid="", num_frames=None, **file) for file in place.tombstone.files
            ],
        )
        for place in places(tombstones(corpus, current))
    ]


def in_order(
    batches: Iterator[list[CommittedEpisode]], erased: Sequence[CommittedEpisode]
) -> Iterator[list[CommittedEpisode]]:
    """The same batches with every erased place before the episode that follows it in its dataset. The last ones at the end."""
    holes = {(each.row.dataset_path, each.row.episode_index): each for each in erased}
    following: dict[str, int] = defaultdict(int)

    def due(path: str) -> Iterator[CommittedEpisode]:
        while (hole := holes.pop((path, following[path]), None)) is not None:
            following[path] += 1
            yield hole

    for batch in batches:
        out: list[CommittedEpisode] = []
        for stored in batch:
            path = stored.row.dataset_path
            out += due(path)
            out.append(stored)
            following[path] += 1
        yield out
    # What is still here has no episode after it, or a number that does not fit, which the numbering check says.
    yield list(holes.values())


def uids_of(corpus: Path, current: Snapshot, table: str, *, distinct: bool = True) -> pl.DataFrame:
    """The uids of a table with the number of the part that each is in. Once a part when `distinct`."""
    frames = [pl.DataFrame(schema={"uid": pl.String, "part": pl.Int32})]
    for number, part in enumerate(current.parts(table)):
        read = pl.DataFrame(read_table(part.file(corpus), ["uid"]))
        kept = read.unique() if distinct else read
        frames.append(kept.with_columns(pl.lit(number, dtype=pl.Int32).alias("part")))
    return pl.concat(frames)


class RowsByUid(Generic[R]):
    """The rows of one table for a batch of uids, reading only the parts that hold them."""

    def __init__(self, corpus: Path, current: Snapshot, kind: type[R]) -> None:
        self._kind, table = kind, kind.TABLE
        self._paths = [part.file(corpus) for part in current.parts(table)]
        self._first = uids_of(corpus, current, table).group_by("uid").agg(pl.col("part").min())
        self._held: tuple[int, pa.Table] | None = None

    def rows(self, uids: list[str]) -> Mapping[str, list[R]]:
        frame = pl.DataFrame({"uid": uids}, schema={"uid": pl.String}).unique()
        by_part = defaultdict(list)
        for uid, number in frame.join(self._first, on="uid").iter_rows():
            by_part[number].append(uid)
        out: dict[str, list[R]] = defaultdict(list)
        for number in sorted(by_part):
            table = self._part(number)
            of_uids = table.filter(pc.is_in(table["uid"], value_set=pa.array(by_part[number])))
            for uid, row in zip(
                of_uids["uid"].to_pylist(), rows_of(self._kind, of_uids), strict=True
            ):
                out[uid].append(row)
        return out

    def _part(self, number: int) -> pa.Table:
        if self._held is None or self._held[0] != number:
            self._held = None  # let go of the last one first
            self._held = number, read_table(self._paths[number])
        return self._held[1]
