"""Numeric series of an episode, thinned to as many points as a plot can show: the least and the greatest value of each bucket."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ingest.stored_episode import StoredEpisode

MIN_POINTS, MAX_POINTS = 4, 2000
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Channel:
    """Points of one element of a feature."""

    feature: str
    name: str
    timesteps: Ints
    values: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Invalid:
    """Timesteps [start, end) at which a slice may not be believed."""

    feature: str
    part: str
    start: int
    end: int


def min_max(values: npt.NDArray[np.float32], points: int) -> Ints:
    """Places of at most `points` values, ascending: the first, the last, and of each bucket the least and the greatest. All where they fit.

    A bucket of unknown values (NaN) keeps its first, so that a gap stays a gap.
    """
    if len(values) <= points:
        return np.arange(len(values), dtype=np.int64)
    edges = np.linspace(0, len(values), points // 2).astype(np.int64)
    kept = [0, len(values) - 1]
    for start, end in pairwise(edges):
        bucket = values[start:end]
        if np.isnan(bucket).all():
            kept.append(start)
        else:
            kept += [start + np.nanargmin(bucket), start + np.nanargmax(bucket)]
    return np.unique(np.asarray(kept, dtype=np.int64))


def channels(
    episode: StoredEpisode, features: Sequence[str], points: int, start: int, end: int
) -> list[Channel]:
    """Every element of the features over timesteps [start, end).

    Raises:
        ConfigError: the episode has no such feature.
    """
    out = []
    for feature in features:
        values = episode.values(feature)[start:end]
        for place, name in enumerate(episode.features[feature]):
            kept = min_max(values[:, place], points)
            out.append(
                Channel(
                    feature=feature, name=name, timesteps=kept + start, values=values[kept, place]
                )
            )
    return out


def invalid_spans(
    episode: StoredEpisode, features: Sequence[str], start: int, end: int
) -> list[Invalid]:
    """Where the masks of the state and of the action are False."""
    out = []
    for feature in features:
        masks = {"action": "action.valid", "observation.state": "observation.valid"}.get(feature)
        for part in episode.features.get(masks or "", ()):
            is_valid = episode.valid(feature, part)[start:end]
            edges = np.flatnonzero(np.diff(np.concatenate([[True], is_valid, [True]])))
            out += [
                Invalid(feature=feature, part=part, start=int(a) + start, end=int(b) + start)
                for a, b in edges.reshape(-1, 2)
            ]
    return out


def arrow_of(series: Sequence[Channel]) -> bytes:
    """An Arrow IPC stream: feature, name, timestep, value."""
    texts = pa.dictionary(pa.int16(), pa.string())
    lengths = [len(each.timesteps) for each in series]
    empty = [np.zeros(0, np.int64)]
    columns = {
        "feature": pa.array(np.repeat([each.feature for each in series], lengths), pa.string()),
        "name": pa.array(np.repeat([each.name for each in series], lengths), pa.string()),
        "timestep": np.concatenate([*empty, *(each.timesteps for each in series)]).astype(np.int32),
        "value": np.concatenate([np.zeros(0, np.float32), *(each.values for each in series)]),
    }
    table = pa.table(columns)
    for place, name in enumerate(("feature", "name")):
        table = table.set_column(
            place, name, table[name].combine_chunks().dictionary_encode().cast(texts)
        )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())
