"""Resampling against a slow oracle in plain Python, and the promises: no gap crossed, nothing extrapolated."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.transforms.resample import Samples, resample
from schemas.episode import Interpolation, Stream, gripper_channel, pose_channel
from tests.strategies import linear_channel, nearest_channel, rotmat_by_hand, streams

MS = 1_000_000
GAPS = {"gap_periods": 2, "gap_ms": 250}


def ms(*values: float) -> np.ndarray:
    return np.array([round(v * MS) for v in values], dtype=np.int64)


def linear(t_ms: list[float], values: list[float], valid: list[bool] | None = None) -> Stream:
    return Stream(
        spec=linear_channel(),
        t_ns=ms(*t_ms),
        values=np.array(values)[:, None],
        **({"valid": valid} if valid is not None else {}),
    )


def read(stream: Stream, *at_ms: float) -> tuple[list[float], list[bool]]:
    found = resample(stream, ms(*at_ms), **GAPS)
    return found.values.reshape(len(at_ms), -1)[:, 0].tolist(), found.valid.tolist()


# --- by hand ------------------------------------------------------------------------------------------------------------


def test_linear_between_and_on_samples() -> None:
    values, valid = read(linear([0, 100, 200], [0, 1, 3]), 0, 25, 100, 150, 200)
    assert values == [0, 0.25, 1, 2, 3]
    assert all(valid)


def test_nothing_is_extrapolated() -> None:
    values, valid = read(linear([0, 100], [0, 1]), -50, -0.000002, 0, 100, 100.000002, 300)
    assert valid == [False, False, True, True, False, False]
    assert values == [0, 0, 0, 1, 1, 1]  # the end is repeated, never the slope


def test_a_nanosecond_past_the_end_is_rounding() -> None:
    """The grid grants the last timestep one nanosecond (`clock.grid`); its value must then count."""
    values, valid = read(linear([0, 100], [0, 1]), 100.000001)
    assert (values, valid) == ([1], [True])


def test_a_gap_is_not_crossed() -> None:
    """30 Hz with a hole of 300 ms: nothing inside it is valid, its two ends are."""
    stream = linear([0, 33, 67, 367, 400], [0, 1, 2, 10, 11])
    values, valid = read(stream, 67, 68, 200, 217, 218, 366, 367)
    assert valid == [True, False, False, False, False, False, True]
    assert values == [
        2,
        2,
        2,
        2,
        10,
        10,
        10,
    ]  # the nearer end, not a blend; a tie goes to the earlier


def test_the_longest_step_that_is_no_gap() -> None:
    assert read(linear([0, 250], [0, 1]), 125) == ([0.5], [True])
    assert read(linear([0, 33, 66, 99, 349], [0, 0, 0, 0, 1]), 224) == ([0.5], [True])
    assert read(linear([0, 33, 66, 99, 349.000001], [0, 0, 0, 0, 1]), 224)[1] == [False]


def test_invalid_samples_are_never_blended_from() -> None:
    stream = linear([0, 100, 200], [0, 999, 2], [True, False, True])
    assert read(stream, 0, 50, 100, 200) == ([0, 0.5, 1, 2], [True] * 4)  # a hole of 200 ms
    stream = linear([0, 100, 200, 300], [0, 999, 999, 3], [True, False, False, True])
    assert read(stream, 0, 100, 200, 300) == ([0, 0, 3, 3], [True, False, False, True])


def test_no_valid_sample_at_all() -> None:
    values, valid = read(linear([0, 100], [7, 8], [False, False]), 0, 100)
    assert valid == [False, False]
    assert all(math.isfinite(v) for v in values)


def test_a_single_sample() -> None:
    assert read(linear([50], [7]), 0, 50, 100) == ([7, 7, 7], [False, True, False])


def test_a_command_is_held_until_the_next_and_never_before_the_first() -> None:
    stream = Stream(
        spec=gripper_channel("left.gripper_opening", binary=True),
        t_ns=ms(100, 200, 300),
        values=np.array([[1.0], [0.0], [1.0]]),
    )
    values, valid = read(stream, 0, 99, 100, 199, 200, 299, 300, 550, 551)
    assert values[2:] == [1, 1, 0, 0, 1, 1, 1]
    assert valid == [False, False, True, True, True, True, True, True, False]


def test_nearest_takes_no_sample_from_across_a_gap() -> None:
    values = np.array([[1.0], [2.0], [3.0], [4.0]])
    stream = Stream(spec=nearest_channel(), t_ns=ms(0, 100, 200, 600), values=values)
    values, valid = read(stream, 50, 51, 325, 326, 400, 401, 474, 475, 725, 726)
    assert values == [1, 2, 3, 3, 3, 4, 4, 4, 4, 4]
    assert valid == [True, True, True, False, False, False, False, True, True, False]


def test_poses_turn_on_the_great_circle() -> None:
    T = np.tile(np.eye(4), (2, 1, 1))
    T[1, :3, :3] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]  # 90 degrees about z
    T[1, :3, 3] = [1.0, 2.0, 3.0]
    stream = Stream(spec=pose_channel("left.T_base_eef"), t_ns=ms(0, 90), values=T)
    found = resample(stream, ms(30), **GAPS).values[0]
    c, s = math.cos(math.radians(30)), math.sin(math.radians(30))
    np.testing.assert_allclose(found[:3, :3], [[c, -s, 0], [s, c, 0], [0, 0, 1]], atol=1e-12)
    np.testing.assert_allclose(found[:3, 3], [1 / 3, 2 / 3, 1.0], atol=1e-12)
    np.testing.assert_array_equal(found[3], [0, 0, 0, 1])


def test_exact_hits_return_the_sample_to_the_bit() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(size=(50, 1))
    stream = Stream(spec=linear_channel(), t_ns=ms(*range(0, 1650, 33)), values=values)
    np.testing.assert_array_equal(resample(stream, stream.t_ns, **GAPS).values, values)


# --- the oracle ---------------------------------------------------------------------------------------------------------


def blend(a: np.ndarray, b: np.ndarray, share: Fraction) -> np.ndarray:
    if a.shape != (4, 4):
        return a + float(share) * (b - a)
    out = a + float(share) * (b - a)
    out[:3, :3] = slerp_by_hand(a[:3, :3], b[:3, :3], float(share))
    return out


def slerp_by_hand(A: np.ndarray, B: np.ndarray, share: float) -> np.ndarray:
    """A times (A^T B) to the power of `share`, by Rodrigues' formula."""
    R = A.T @ B
    angle = math.acos(max(-1.0, min(1.0, (np.trace(R) - 1) / 2)))
    axis = np.array([R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1]])
    norm = np.linalg.norm(axis)
    if norm < 1e-9:
        return A
    half = share * angle / 2
    return A @ rotmat_by_hand(np.append(axis / norm * math.sin(half), math.cos(half)))


def oracle(stream: Stream, at: int) -> tuple[np.ndarray | None, bool]:
    """(value, valid) at one instant; the value is None where any finite one will do."""
    t = stream.t_ns.tolist()
    steps = sorted(b - a for a, b in pairwise(t))
    middle = (steps[(len(steps) - 1) // 2] + steps[len(steps) // 2]) // 2 if steps else 0
    limit = max(2 * middle, 250 * MS)
    good = [(ti, v) for ti, v, ok in zip(t, stream.values, stream.valid, strict=True) if ok]
    before = [(ti, v) for ti, v in good if ti <= at]
    after = [(ti, v) for ti, v in good if ti >= at]
    how = stream.spec.interpolation
    if how is Interpolation.HOLD:
        if not before:
            return None, False
        return before[-1][1], at - before[-1][0] <= limit
    if how is Interpolation.NEAREST:
        if not good:
            return None, False
        ti, v = min(good, key=lambda s: (abs(s[0] - at), s[0]))
        return v, abs(ti - at) <= limit // 2
    if not before or not after:
        is_rounding = good and min(abs(at - good[0][0]), abs(at - good[-1][0])) <= 1
        return None, bool(is_rounding)
    (t0, v0), (t1, v1) = before[-1], after[0]
    if t0 == t1:
        return v0, True
    if t1 - t0 > limit:
        return None, False
    if v0.shape == (4, 4) and np.trace(v0[:3, :3].T @ v1[:3, :3]) < -1 + 1e-6:
        return None, True  # half a turn: there are two great circles, and either will do
    return blend(v0, v1, Fraction(at - t0, t1 - t0)), True


@pytest.mark.parametrize("how", Interpolation)
@given(data=st.data())
def test_against_the_oracle(how: Interpolation, data: st.DataObject) -> None:
    stream = data.draw(streams(how))
    t = stream.t_ns
    anywhere = st.integers(int(t[0]) - 300 * MS, int(t[-1]) + 300 * MS)
    instants = data.draw(st.lists(st.one_of(anywhere, st.sampled_from(t.tolist())), min_size=1))
    at = np.array(sorted(set(instants)), dtype=np.int64)
    found: Samples = resample(stream, at, **GAPS)
    assert found.values.shape == (len(at), *stream.spec.shape)
    assert np.isfinite(found.values).all()
    for k, instant in enumerate(at.tolist()):
        value, valid = oracle(stream, instant)
        assert found.valid[k] == valid, (instant, how)
        if valid and value is not None:
            # arccos near a half turn and near none loses half the digits: of the oracle, not of the code
            tolerance = 2e-6 if how is Interpolation.SLERP else 1e-9
            np.testing.assert_allclose(found.values[k], value, atol=tolerance)


@given(data=st.data())
def test_never_outside_the_range_of_what_was_given(data: st.DataObject) -> None:
    """Linear reading cannot overshoot: its values stay within the valid samples'."""
    stream = data.draw(streams(Interpolation.LINEAR))
    at = np.arange(int(stream.t_ns[0]) - 100 * MS, int(stream.t_ns[-1]) + 100 * MS, 37 * MS)
    found = resample(stream, at, **GAPS)
    if found.valid.any():
        good = stream.values[stream.valid]
        assert found.values.min() >= good.min() - 1e-9
        assert found.values.max() <= good.max() + 1e-9
