"""Cutting unannotated stretches into windows: known values, then the rules on anything."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.containers.video_clip import windows


def test_known_windows() -> None:
    assert windows(0.0, 60.0) == ((0.0, 60.0),)
    assert windows(0.0, 90.0) == ((0.0, 45.0), (45.0, 90.0))
    assert windows(2.0, 8.0, longest_s=2.0) == ((2.0, 4.0), (4.0, 6.0), (6.0, 8.0))
    assert windows(5.0, 5.0) == ()


def test_a_window_never_crosses_a_break() -> None:
    cut = windows(0.0, 100.0, breaks_s=(70.0, -3.0, 10.0, 100.0, 250.0, 70.0))
    assert cut == ((0.0, 10.0), (10.0, 70.0), (70.0, 100.0))


def test_what_cannot_be_cut() -> None:
    with pytest.raises(ValueError, match="cannot cut"):
        windows(0.0, float("inf"))
    with pytest.raises(ValueError, match="cannot cut"):
        windows(0.0, 1.0, longest_s=0.0)


@given(
    start=st.floats(0, 1000),
    length=st.floats(0.01, 5000),
    breaks=st.lists(st.floats(-100, 7000), max_size=5),
)
def test_windows_cover_exactly_and_are_bounded(
    start: float, length: float, breaks: list[float]
) -> None:
    cut = windows(start, start + length, breaks_s=breaks)
    assert cut[0][0] == start
    assert cut[-1][1] == start + length
    assert all(a[1] == b[0] for a, b in pairwise(cut))
    assert all(0 < b - a <= 60.0 + 1e-9 for a, b in cut)
    assert not any(a < at < b for a, b in cut for at in breaks)
