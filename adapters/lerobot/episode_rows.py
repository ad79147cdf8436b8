"""The rows of one episode with the columns that something needs; the others are not opened."""

from __future__ import annotations

from pathlib import Path

from adapters.containers.lerobot_cameras import CameraPlace
from adapters.containers.lerobot_table import TableRows, read_rows
from adapters.containers.safe_path import inside
from adapters.lerobot.channels import needed_columns
from adapters.lerobot.places import SetMeta
from adapters.lerobot.raw_vectors import extra_vector_columns
from adapters.lerobot.texts import annotation_columns, extra_columns
from schemas.episode import EpisodeRef
from schemas.fact import Certainty, Fact, fact

_CLOCK_COLUMNS = ("timestamp", "frame_index")
_NUMBERING = ("index", "task_index", *_CLOCK_COLUMNS)  # of every set


def places_of(ref: EpisodeRef) -> list[CameraPlace]:
    """The cameras that discovery found for this episode."""
    return [
        CameraPlace(**dict(zip(CameraPlace.__slots__, c, strict=True))) for c in ref.at("cameras")
    ]


def rows_of(root: Path, ref: EpisodeRef, meta: SetMeta, places: list[CameraPlace]) -> TableRows:
    """The rows that channels, texts, the clock and pictures in the rows need. Raises SourceError as `read_rows`."""
    columns = (
        *needed_columns(meta),
        *_CLOCK_COLUMNS,
        *extra_columns(meta),
        *(c.key for c in places if not c.path),
    )
    return read_rows(
        inside(root, ref.at("data")),
        columns,
        where=ref.at("data"),
        episode=ref.at("index") if meta.info.major == 3 else None,
        if_integers=annotation_columns(meta),
        if_numbers=extra_vector_columns(meta),
    )


def unopened_facts(rows: TableRows) -> tuple[Fact, ...]:
    """That the file has columns which no channel, text, clock or camera needs; they were not opened."""
    others = [name for name in rows.unopened if name not in _NUMBERING]
    if not others:
        return ()
    shown = ", ".join(others[:5]) + (", ..." if len(others) > 5 else "")
    source = f"no channel, text or camera needs them: {shown}"
    return (fact("columns_not_opened", str(len(others)), Certainty.VERIFIED, source),)
