"""Index arithmetic of windows, against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ConfigError
from schemas.supervision import Task
from training.data.windows import Window, as_bits, from_bits, window_of
from training.recipe import DataSettings
from training.tasks import INDEX, TASKS

WINDOW = window_of(DataSettings(), rate_hz=10, grid_stride=3)


def test_the_defaults_in_timesteps() -> None:
    assert WINDOW.past_steps == (-3, 0)
    assert WINDOW.future_step == 6
    assert WINDOW.future_t_s == 0.6
    assert WINDOW.action_t_s[[0, 5, 15]].tolist() == pytest.approx([0.1, 0.6, 1.6])


def test_other_rates_and_strides() -> None:
    found = window_of(DataSettings(past_s=(-1.0, -0.5, 0.0), future_s=0.5), rate_hz=20, grid_stride=5)  # fmt: skip
    assert (found.past_steps, found.future_step) == ((-20, -10, 0), 10)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"past_s": (-0.5, 0.0)}, r"offset -0.5 s is not a multiple.*use -0.6 or -0.3"),
        ({"future_s": 0.5}, r"offset 0.5 s is not a multiple.*use 0.3 or 0.6"),
        ({"future_s": 0.1}, r"use 0.3, for"),
        ({"past_s": (-0.31, 0.0)}, r"is not a multiple"),
    ],
)
def test_offsets_off_the_grid_name_the_nearest(given: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        window_of(DataSettings(**given), rate_hz=10, grid_stride=3)


def test_nothing_outside_the_segment_is_looked_at() -> None:
    """Segment [20, 34): now at its first picture, and at its last."""
    now, start, end = np.array([21, 33]), np.array([20, 20]), np.array([34, 34])
    at, inside = WINDOW.pictures(now, start, end)
    assert at.tolist() == [[18, 21, 27], [30, 33, 39]]
    assert inside.tolist() == [[False, True, True], [True, True, False]]
    at, inside = WINDOW.rows(now, start, end)
    assert at[0].tolist() == list(range(17, 37))
    assert inside[0].tolist() == [17 + k >= 20 and 17 + k < 34 for k in range(20)]
    assert inside[1].tolist() == [True] * 5 + [False] * 15


def test_history_ends_where_the_chunk_begins() -> None:
    """Four rows of history, no gap: bug 6 of LDA."""
    at, _ = WINDOW.rows(np.array([30]), np.array([0]), np.array([99]))
    assert at[0, :4].tolist() == [26, 27, 28, 29]
    assert at[0, 4:6].tolist() == [30, 31]


@given(st.integers(0, 40), st.integers(1, 40), st.integers(1, 5))
def test_the_grid_of_a_segment(start: int, length: int, stride: int) -> None:
    window = Window(rate_hz=10, grid_stride=stride, past_steps=(0,), future_step=stride, num_actions=1, num_history=0)  # fmt: skip
    first, count = window.grid(np.array([start]), np.array([start + length]))
    wanted = [t for t in range(start, start + length) if t % stride == 0]
    assert (first + np.arange(count[0]) * stride).tolist() == wanted


@given(st.data())
def test_what_a_window_can_serve(data: st.DataObject) -> None:
    length = data.draw(st.integers(1, 30))
    chunk, future = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    known = data.draw(st.lists(st.booleans(), min_size=length, max_size=length))
    has_store = data.draw(st.booleans())
    ahead = data.draw(st.integers(0, 5))  # rows of other segments in the store
    window = Window(rate_hz=10, grid_stride=1, past_steps=(0,), future_step=future, num_actions=chunk, num_history=2)  # fmt: skip
    now = np.arange(length) + 100
    stored = np.array([True] * ahead + known + [True] * 9)
    before = np.concatenate([[0], np.cumsum(stored)])
    row = np.arange(length) + ahead if has_store else np.full(length, -1)
    bits = window.serves(now, np.full(length, 100 + length), before, row)
    for t in range(length):
        rows = [has_store and known[k] for k in range(t, min(t + chunk, length))]
        has_future = t + future < length
        reach = [has_store and known[k] for k in range(t, t + min(chunk, future)) if k < length]
        wanted = {
            Task.POLICY: any(rows),
            Task.INVERSE_DYNAMICS: has_future and any(reach),
            Task.FORWARD_DYNAMICS: has_future and all(reach),
            Task.VISUAL_FORECASTING: has_future,
        }
        found = from_bits(bits[t : t + 1])[0]
        assert {task: bool(found[INDEX[task]]) for task in TASKS} == wanted


def test_bits_there_and_back() -> None:
    can = np.array([[bool(i >> k & 1) for k in range(4)] for i in range(16)])
    assert np.array_equal(from_bits(as_bits(can)), can)
    assert as_bits(can).tolist() == list(range(16))
