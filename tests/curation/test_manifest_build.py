"""Hours of a manifest are exact integers, also of a recording of a whole day."""

from __future__ import annotations

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from ingest.curation.manifests.manifest import _part


@given(st.integers(1, 10**7), st.integers(0, 10**16), st.data())
def test_the_part_of_a_duration_never_wraps(
    length: int, duration_ns: int, data: st.DataObject
) -> None:
    steps = data.draw(st.integers(0, length))
    row = pl.DataFrame({"d": [duration_ns], "s": [steps], "l": [length]})
    found = row.select(_part(pl.col("d"), pl.col("s"), pl.col("l"))).item()
    assert found == duration_ns // length * steps + duration_ns % length * steps // length
    assert 0 <= found <= duration_ns * steps // length <= found + steps


def test_half_of_a_day() -> None:
    """60,000 s at 10 Hz: 6e13 ns times 300,000 steps is 1.8e19, and 64 bits end at 9.2e18."""
    row = pl.DataFrame({"d": [60_000 * 10**9], "s": [300_000], "l": [600_000]})
    assert row.select(_part(pl.col("d"), pl.col("s"), pl.col("l"))).item() == 30_000 * 10**9
