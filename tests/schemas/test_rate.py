"""Rates are exact: an hour of 29.97 Hz must end on the same nanosecond as its fraction says."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.rate import NS_PER_S, instants_ns, ns_from_seconds, rate_from


@pytest.mark.parametrize(
    ("value", "rate"),
    [
        (29.97, Fraction(30000, 1001)),
        ("29.97", Fraction(30000, 1001)),
        (30000 / 1001, Fraction(30000, 1001)),  # as a float of a container's header
        (23.976, Fraction(24000, 1001)),
        (23.98, Fraction(24000, 1001)),
        (47.952, Fraction(48000, 1001)),
        (59.94, Fraction(60000, 1001)),
        (119.88, Fraction(120000, 1001)),
        ("30000/1001", Fraction(30000, 1001)),
        (Fraction(25, 2), Fraction(25, 2)),
        (30, Fraction(30)),
        (30.0, Fraction(30)),
        (12.5, Fraction(25, 2)),
        (29.9, Fraction(299, 10)),  # not NTSC: nobody is corrected who did not mean it
        (14.985, Fraction(2997, 200)),
    ],
)
def test_what_people_mean_by_a_decimal(value: object, rate: Fraction) -> None:
    assert rate_from(value) == rate  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [0, -30, "fast", float("nan"), float("inf"), "1/0", "", None])
def test_what_is_no_rate_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="rate"):
        rate_from(value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rate", "first"),
    [
        (Fraction(10), [0, 100_000_000, 200_000_000, 300_000_000]),
        (Fraction(30), [0, 33_333_333, 66_666_667, 100_000_000]),
        (Fraction(30000, 1001), [0, 33_366_667, 66_733_333, 100_100_000]),
        (Fraction(1, 3), [0, 3 * NS_PER_S, 6 * NS_PER_S, 9 * NS_PER_S]),
    ],
)
def test_first_instants_by_hand(rate: Fraction, first: list[int]) -> None:
    got = instants_ns(4, rate)
    assert got.dtype == np.int64
    assert got.tolist() == first
    assert instants_ns(4, rate, -7).tolist() == [t - 7 for t in first]


@pytest.mark.parametrize("rate", [Fraction(30000, 1001), Fraction(30), Fraction(7, 3)])
def test_a_million_samples_do_not_drift(rate: Fraction) -> None:
    count = 1_000_000
    got = instants_ns(count, rate, 5)
    for k in [*range(0, count, 997), count - 1]:
        exact = Fraction(k * NS_PER_S) / rate
        assert got[k] == 5 + (exact + Fraction(1, 2)).__floor__()
    steps = np.diff(got)
    assert steps.max() - steps.min() <= 1  # a step never strays by more than the rounding


def test_milliseconds_would_have_drifted() -> None:
    """The defect this replaces: 33 ms steps for 30 Hz are 0.6 s short after a minute."""
    assert instants_ns(1801, Fraction(30))[-1] - 1800 * 33_000_000 == 600_000_000


def test_no_samples() -> None:
    assert instants_ns(0, Fraction(10)).tolist() == []


def test_seconds_to_nanoseconds_rounds() -> None:
    assert ns_from_seconds([0.1, 1 / 3, -0.5]).tolist() == [100_000_000, 333_333_333, -500_000_000]
    assert ns_from_seconds(8.2) == 8_200_000_000  # 8.2 * 1e9 is 8199999999.999999
    assert ns_from_seconds(0.29).dtype == np.int64


@given(st.fractions(min_value=Fraction(1, 10), max_value=1000), st.integers(0, 200))
def test_every_rate_is_read_back_from_its_text(rate: Fraction, k: int) -> None:
    rate = rate.limit_denominator(1001)
    exact = Fraction(k * NS_PER_S) / rate
    assert abs(Fraction(int(instants_ns(k + 1, rate)[k])) - exact) <= Fraction(1, 2)
    assert rate_from(f"{rate.numerator}/{rate.denominator}") in (rate, rate_from(str(rate)))
