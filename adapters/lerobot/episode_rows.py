"""The rows of one episode: columns that something needs, and when each row was taken. Other columns are not opened."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from adapters.containers.lerobot_cameras import CameraPlace
from adapters.containers.lerobot_table import MAX_ROWS, TableRows, read_rows
from adapters.containers.safe_path import inside
from adapters.lerobot.channels import needed_columns
from adapters.lerobot.places import SetMeta
from adapters.lerobot.raw_vectors import extra_vector_columns
from adapters.lerobot.texts import annotation_columns, extra_columns
from schemas.episode import EpisodeRef
from schemas.errors import Code, SourceError
from schemas.fact import Certainty, Fact, fact
from schemas.rate import NS_PER_S, instants_ns, ns_from_seconds

GAP_PERIODS = Fraction(3, 2)

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


def row_clock(
    rows: TableRows, rate_hz: Fraction
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Fact]:
    """When each row was taken, when what it commands is due, both [N] ns from the first row, and which clock that is.

    frame_index / fps is recomputed: stored timestamps are float32 and lose 0.1 ms after 17 minutes. Only where they
    stray from it by more than 1.5 periods was there a real gap, and then they are right.

    Raises:
        SourceError: CLOCK_NOT_INCREASING, NOT_FINITE.
    """
    k = np.arange(rows.num_rows, dtype=np.int64)
    if rows.has("frame_index"):
        k = rows.integers("frame_index")
        k = k - k[0]
        _check_increasing(k, f"{rows.where}:frame_index")
        if k[-1] > MAX_ROWS:
            problem = f"frame_index covers {k[-1]} frames; expected at most {MAX_ROWS}"
            raise SourceError(Code.TOO_LONG, problem, where=rows.where)
    grid_ns = instants_ns(int(k[-1]) + 2, rate_hz)
    fact = Fact(
        name="clock",
        value=f"frame_index / {rate_hz} Hz",
        certainty=Certainty.DOCUMENTED,
        source="meta/info.json fps",
        is_for_actions=False,
    )
    if rows.has("timestamp"):
        stored_s = rows.matrix("timestamp")[:, 0]
        if not np.isfinite(stored_s).all():
            raise SourceError(Code.NOT_FINITE, "a timestamp", where=f"{rows.where}:timestamp")
        _check_increasing(stored_s, f"{rows.where}:timestamp")
        stored_ns = ns_from_seconds(stored_s - stored_s[0])
        period_ns = Fraction(NS_PER_S) / rate_hz
        stray_ns = int(np.abs(stored_ns - grid_ns[k]).max())
        if stray_ns > GAP_PERIODS * period_ns:
            fact = Fact(
                name="clock",
                value="stored timestamps",
                certainty=Certainty.VERIFIED,
                source=f"timestamp strays {stray_ns / NS_PER_S:.3f} s from frame_index / fps",
                is_for_actions=False,
            )
            return stored_ns, stored_ns + round(period_ns), fact
    return grid_ns[k], grid_ns[k + 1], fact


def length_facts(rows: TableRows, declared: int) -> tuple[Fact, ...]:
    """That the episode table declares another length than the rows have; 0 declares nothing."""
    if declared in (0, rows.num_rows):
        return ()
    fact = Fact(
        name="num_rows",
        value=f"{rows.num_rows} rows, {declared} declared; the rows are used",
        certainty=Certainty.VERIFIED,
        source="the episode table against the data file",
        is_for_actions=False,
    )
    return (fact,)


def _check_increasing(values: npt.NDArray[np.int64] | npt.NDArray[np.float64], where: str) -> None:
    steps = np.diff(values)
    if np.any(steps <= 0):
        at = int(np.flatnonzero(steps <= 0)[0])
        problem = f"values must increase, but row {at + 1} has {values[at + 1]} after {values[at]}"
        raise SourceError(Code.CLOCK_NOT_INCREASING, problem, where=where)
