"""The bytes of an episode's state and action as one digest, for what looks for exact copies (curation/dedup).

Kind `rows`: how many rows differ from one another, then the 32 bytes of the sha256 of `observation.state`, `action` and
`action.raw` (float32, by name). No digest of an episode that has none of them, or whose numbers hardly change: those of two still
arms are equal without being copies.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

import numpy as np

from ingest.curation.measurements.registry import Measure, OutputField
from ingest.curation.measurements.view import EpisodeView
from schemas.geometry import Array
from schemas.measurement import Measurement

COLUMNS = ("action", "action.raw", "observation.state")
MIN_DISTINCT = 10

DISTINCT = OutputField(
    name="distinct_rows", unit="count", about="timesteps whose state and action occur nowhere else"
)


def compute(view: EpisodeView) -> Iterator[Measurement]:
    """How many different rows there are; nothing of an episode without state and action."""
    if table := _table(view):
        yield DISTINCT.row(_distinct(table), view.length)


def vectors(view: EpisodeView) -> Mapping[str, Array]:
    """The digest, of an episode with at least ten different rows."""
    table = _table(view)
    distinct = _distinct(table) if table else 0
    if distinct < MIN_DISTINCT:
        return {}
    sha = hashlib.sha256()
    for name, values in table.items():
        sha.update(f"{name}|{values.shape}|".encode())
        sha.update(values.tobytes())
    digest = np.frombuffer(sha.digest(), dtype=np.uint8)
    return {"rows": np.concatenate([[float(distinct)], digest])}


def _table(view: EpisodeView) -> dict[str, Array]:
    return {name: view.columns[name].astype(np.float32) for name in COLUMNS if name in view.columns}


def _distinct(table: Mapping[str, Array]) -> int:
    return len(np.unique(np.concatenate(list(table.values()), axis=1), axis=0))


MEASURE = Measure(name="rows", version=1, outputs=(DISTINCT,), compute=compute, vectors=vectors)
