"""Sums by episode, and intervals that treat an episode as one."""

from __future__ import annotations

import numpy as np
import pytest

from training.evaluation.accumulate import FEWEST, Error, ErrorTable, Group, interval


def of(total: list[list[float]], count: list[list[float]]) -> Error:
    return Error(total=np.array(total), count=np.array(count))


def test_means_are_over_what_was_scored() -> None:
    tally = ErrorTable()
    a, b, c = Group("arm", "high", "1"), Group("arm", "low", "1"), Group("hand", "high", "2")
    tally.add([a, b], {"x": of([[4.0, 2.0], [9.0, np.nan]], [[2, 1], [3, 0]])})
    tally.add([c, a], {"x": of([[1.0, 1.0], [0.0, 8.0]], [[1, 1], [0, 2]])})
    assert tally.of("x").mean() == (4 + 2 + 9 + 1 + 1 + 8) / 10
    assert tally.of("x").by_step() == [14 / 6, 11 / 4]
    assert tally.of("x", tier="high", embodiment="arm").by_step() == [2, 10 / 3]
    assert tally.of("x").num_episodes == 2  # two segments of episode 1 are one
    assert tally.of("x", tier="low").by_step() == [3, None]
    assert tally.of("x", tier="actionless").mean() is None


def test_a_name_that_comes_late_has_nothing_of_what_was_before() -> None:
    tally = ErrorTable()
    tally.add([Group("arm", "high", str(i)) for i in range(5)], {"x": of([[1.0]] * 5, [[1]] * 5)})
    tally.add([Group("arm", "high", "4")], {"y": of([[3.0]], [[1]])})
    assert tally.of("y").num_episodes == 1
    assert tally.of("y").mean() == 3
    assert tally.of("x").mean() == 1


def test_intervals_are_of_episodes_and_not_of_timesteps() -> None:
    """200 episodes whose means scatter by 1 while their 50 steps agree: the interval is +-1.96 / sqrt(200), not +-1.96 / 100."""
    rng = np.random.default_rng(0)
    level = rng.normal(size=200)
    tally = ErrorTable()
    for i in range(200):
        tally.add([Group("arm", "high", str(i))], {"x": of([[50 * level[i]]], [[50]])})
    found = interval(tally.of("x").resampled(seed=0))
    assert found is not None
    assert found[0] < level.mean() < found[1]
    assert (found[1] - found[0]) / 2 == pytest.approx(1.96 * level.std() / np.sqrt(200), rel=0.1)


def test_intervals_cover_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for run in range(200):
        tally = ErrorTable()
        values = rng.normal(size=40)
        groups = [Group("arm", "high", str(i)) for i in range(40)]
        tally.add(groups, {"x": of([[v] for v in values], [[1]] * 40)})
        found = interval(tally.of("x").resampled(seed=run, num=300))
        assert found is not None
        covered += found[0] < 0 < found[1]
    assert 0.88 <= covered / 200 <= 0.99


def test_draws_are_the_same_for_two_names() -> None:
    tally = ErrorTable()
    groups = [Group("arm", "high", str(i)) for i in range(9)]
    values = np.arange(9.0)[:, None]
    tally.add(groups, {"x": Error(total=values, count=np.ones((9, 1))), "y": Error(total=2 * values, count=np.ones((9, 1)))})  # fmt: skip
    x, y = (tally.of(name).resampled(seed=3) for name in ("x", "y"))
    np.testing.assert_allclose(y, 2 * x)
    np.testing.assert_array_equal(x, tally.of("x").resampled(seed=3))
    assert (x != tally.of("x").resampled(seed=4)).any()


@pytest.mark.parametrize(("num", "has_interval"), [(1, False), (FEWEST - 1, False), (FEWEST, True)])
def test_few_episodes_have_no_interval(num: int, has_interval: bool) -> None:
    tally = ErrorTable()
    for i in range(num):
        tally.add([Group("arm", "high", str(i))] * 3, {"x": of([[float(i)]] * 3, [[1]] * 3)})
    assert (interval(tally.of("x").resampled(seed=0)) is not None) == has_interval
