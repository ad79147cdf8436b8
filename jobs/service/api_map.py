"""REST: the map of a selection: each episode as a point, near those that look or move alike."""

from __future__ import annotations

import base64
import math
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from jobs.service.api import Edge, Filters, Number, Search, answered, asked, newest_of, served_by
from jobs.service.cache_build import map_columns
from jobs.service.models import OfSnapshot, StrictModel
from jobs.service.selection import column_of, rows_of
from jobs.service.snapshot_cache import EpisodeColumn, SnapshotCache
from schemas.errors import ConfigError

router = APIRouter()

MAX_POINTS = 100_000
MAX_CLASSES = 8  # of a coded column; the others are one class
OTHER, UNKNOWN = MAX_CLASSES, 255
STEPS = 254  # of the colours of a number
POINT = np.dtype([("x", "<u2"), ("y", "<u2"), ("colour", "u1")])
LAST = np.iinfo(np.uint16).max
Range = tuple[float, float]


class ColourAnswer(StrictModel):
    """What a colour stands for: classes, the most frequent first, or a range of numbers."""

    column: str
    unit: str
    classes: list[str] = Field(
        description=f"Of a coded column: class k has colour k, any other value {OTHER}."
    )
    episodes: list[int] = Field(description="In view, of each class.")
    other: int
    unknown: int = Field(description=f"Episodes in view without a value: colour {UNKNOWN}.")
    low: float | None = Field(description="Of a number: the value of colour 0, and of all below.")
    high: float | None = Field(description=f"The value of colour {STEPS}, and of all above.")


class MapAnswer(OfSnapshot):
    columns: tuple[str, str] = Field(description="The columns of x and y: filters choose by them.")
    explained: tuple[float, float] = Field(description="Share of the variance along x and y.")
    extent: tuple[float, float, float, float] = Field(
        description="x and y of all episodes of the snapshot: x_min, x_max, y_min, y_max."
    )
    view: tuple[float, float, float, float] = Field(description="What the points are in.")
    total: int = Field(description="Selected episodes.")
    without_signature: int = Field(description="Of them, those with no place on the map.")
    in_view: int
    drawn: int = Field(description="Points; of too many an even part.")
    points: str = Field(
        description=f"Base64 of 5 bytes a point: x and y as uint16, little-endian, 0 to {LAST} over the view, and the colour."
    )
    colour: ColourAnswer


@router.get("/map", response_model=MapAnswer)
def episode_map(
    request: Request,
    space: Annotated[
        Literal["pictures", "motion"], Query(description="What alike means.")
    ] = "pictures",
    colour: Annotated[str, Query(max_length=300, description="A column, not of texts.")] = "tier",
    filters: Filters = None,
    q: Search = "",
    x_min: Edge = None,
    x_max: Edge = None,
    y_min: Edge = None,
    y_max: Edge = None,
    number: Number = None,
) -> Response:
    """Episodes by the first two principal components of their duplicate signatures."""
    served = served_by(request, number)

    def compute() -> MapAnswer:
        cache = served.cache
        shown = column_of(cache, colour, "colour")
        selected = rows_of(served.selection.mask(*asked(cache, filters, q)))
        names = map_columns(space)
        places = np.stack([_values(cache, name) for name in names])
        extent = [*_extent(places[0]), *_extent(places[1])]
        view = [
            edge if asked_edge is None else asked_edge
            for edge, asked_edge in zip(extent, (x_min, x_max, y_min, y_max), strict=True)
        ]
        x, y = places[:, selected]
        is_seen = (x >= view[0]) & (x <= view[1]) & (y >= view[2]) & (y <= view[3])
        rows = selected[is_seen]
        colours, legend = _coloured(shown, rows)
        drawn = _even(len(rows))
        points = np.empty(len(drawn), POINT)
        points["x"] = _steps(x[is_seen][drawn], (view[0], view[1]), LAST)
        points["y"] = _steps(y[is_seen][drawn], (view[2], view[3]), LAST)
        points["colour"] = colours[drawn]
        return MapAnswer(
            **newest_of(request, served),
            columns=names,
            explained=cache.explained[space],
            extent=(extent[0], extent[1], extent[2], extent[3]),
            view=(view[0], view[1], view[2], view[3]),
            total=len(selected),
            without_signature=int(np.isnan(x).sum()),
            in_view=len(rows),
            drawn=len(drawn),
            points=base64.b64encode(points.tobytes()).decode(),
            colour=legend,
        )

    return answered(request, served, compute)


def _values(cache: SnapshotCache, name: str) -> npt.NDArray[np.float64]:
    values = cache.columns[name].values
    assert values is not None  # a number
    return values


def _extent(values: npt.NDArray[np.float64]) -> Range:
    """With a margin; of no episode or of equal ones a range around them."""
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)
    margin = 0.02 * (high - low) or 0.5
    return low - margin, high + margin


def _even(count: int) -> npt.NDArray[np.intp]:
    """All places, or an even part of them: rows are ordered by uid, so no source comes first."""
    if count <= MAX_POINTS:
        return np.arange(count)
    return np.linspace(0, count - 1, MAX_POINTS).astype(np.intp)


def _steps(values: npt.NDArray[np.float64], between: Range, last: int) -> npt.NDArray[np.float64]:
    low, high = between
    width = high - low if math.isfinite(high - low) and high > low else 1.0
    return np.clip(np.rint((values - low) / width * last), 0, last)


def _coloured(
    column: EpisodeColumn, rows: npt.NDArray[np.intp]
) -> tuple[npt.NDArray[np.uint8], ColourAnswer]:
    """[n] colour of each row, and what it stands for.

    Raises:
        ConfigError: a column of texts has no colours.
    """
    if column.values is None:
        raise ConfigError(
            f"{column.name} has texts; expected a number or a coded column", where="colour"
        )
    values = column.values.take(rows)
    if column.kind == "coded":
        counts = np.bincount(values[values >= 0], minlength=len(column.texts))
        order = np.argsort(-counts, kind="stable")
        largest = order[: min(MAX_CLASSES, np.count_nonzero(counts))]
        class_of = np.full(len(counts) + 1, OTHER, np.uint8)  # -1, unknown, is the last
        class_of[largest], class_of[-1] = np.arange(len(largest)), UNKNOWN
        episodes = counts[largest].tolist()
        unknown = int(np.count_nonzero(values < 0))
        return class_of[values], ColourAnswer(
            column=column.name,
            unit="",
            classes=[column.texts[code] for code in largest],
            episodes=episodes,
            other=len(rows) - unknown - sum(episodes),
            unknown=unknown,
            low=None,
            high=None,
        )
    is_known = np.isfinite(values)
    colours, (low, high) = np.full(len(rows), UNKNOWN, np.uint8), _inner(values[is_known])
    if low is not None and high is not None:
        colours[is_known] = _steps(values[is_known], (low, high), STEPS)
    return colours, ColourAnswer(
        column=column.name,
        unit=column.unit,
        classes=[],
        episodes=[],
        other=0,
        unknown=len(rows) - int(np.count_nonzero(is_known)),
        low=low,
        high=high,
    )


def _inner(values: npt.NDArray[np.float64]) -> tuple[float, float] | tuple[None, None]:
    """Most of the values lie between: one far away does not make all others one colour."""
    if not len(values):
        return None, None
    low, high = np.quantile(values, [0.02, 0.98]).tolist()
    return low, high
