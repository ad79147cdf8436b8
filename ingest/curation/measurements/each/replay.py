"""Parts that repeat an earlier part exactly: looped or replayed recordings. No hand and no arm does the same twice to the last bit.

Ours. A window of 1 s repeats when each of its rows equals, bit for bit, that of an earlier window which it does not overlap, and at least
half of its steps change something (at rest rows repeat lawfully). Cost: sorting, K log K.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from ingest.curation.measurements.registry import Measure, OutputField
from ingest.curation.measurements.view import EpisodeView, Mask
from ingest.transforms.resample import runs
from schemas.geometry import Array
from schemas.measurement import Measurement

WINDOW_S = 1.0

STATE = OutputField(
    name="repeated_state_share", unit="share", about="timesteps that repeat earlier states"
)
ACTION = OutputField(
    name="repeated_action_share", unit="share", about="timesteps that repeat earlier actions"
)
REPEAT = OutputField(
    name="repeat_s", unit="s", about="states or actions seen before", is_interval=True
)


def compute(view: EpisodeView) -> Iterator[Measurement]:
    """Shares of state and action, and where either repeats."""
    width = round(WINDOW_S * view.rate_hz)
    repeats = np.zeros(view.length, dtype=bool)
    for output, feature in ((STATE, "observation.state"), (ACTION, "action")):
        if feature in view.columns and view.length >= 2 * width:
            is_repeated = repeated(view.columns[feature], width)
            repeats |= is_repeated
            yield output.row(is_repeated.mean(), view.length)
    for start, end in runs(repeats):
        yield REPEAT.row((end - start) / view.rate_hz, end - start, (start, end))


def repeated(rows: Array, width: int) -> Mask:
    """[K] whether a timestep lies in a moving window of `width` rows that repeats an earlier one."""
    row_id = _ids(rows)
    windows = sliding_window_view(row_id, width)
    _, first, window_id = np.unique(_ids(windows), return_index=True, return_inverse=True)
    starts = np.arange(len(windows))
    is_later = first[window_id] <= starts - width
    changes = sliding_window_view(np.diff(row_id) != 0, width - 1).sum(axis=1)
    mask = np.zeros(len(rows), dtype=bool)
    for start in starts[is_later & (changes >= width // 2)]:
        mask[start : start + width] = True
    return mask


def _ids(rows: npt.NDArray[np.generic]) -> npt.NDArray[np.intp]:
    """[n] equal numbers for rows of equal bytes."""
    flat = np.ascontiguousarray(rows)
    whole = flat.view(np.dtype((np.void, flat.dtype.itemsize * flat.shape[1])))[:, 0]
    return np.asarray(np.unique(whole, return_inverse=True)[1])


MEASURE = Measure(name="replay", version=1, outputs=(STATE, ACTION, REPEAT), compute=compute)
