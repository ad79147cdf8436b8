"""Nobody teaches what it may not, every task gets its minimum where that is possible, and the low stay out of the policy."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from schemas.supervision import Task
from training.data.routing import RoutingSettings, routed
from training.tasks import INDEX, TASKS

POLICY, INVERSE, FORWARD, FORECAST = (INDEX[t] for t in TASKS)
MAY = st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=24).map(
    np.array
)


def none_low(may: np.ndarray) -> np.ndarray:
    return np.zeros(len(may), dtype=bool)


@given(MAY, st.integers(0, 50), st.integers(0, 3))
def test_only_what_is_allowed_and_as_many_as_can_be(may: np.ndarray, step: int, least: int) -> None:
    found = routed(
        may, none_low(may), RoutingSettings(draw="segment", min_per_batch=least), seed=0, step=step
    )
    for row, task in zip(may, found, strict=True):
        assert row[task] if task >= 0 else not row.any()
    counts = np.bincount(found[found >= 0], minlength=4)
    can_spare = (found >= 0) & (counts[found] > least)
    for task in np.flatnonzero(counts < least):
        assert not may[can_spare, task].any()


@given(st.integers(0, 200))
def test_a_batch_that_allows_all_has_all(step: int) -> None:
    may = np.ones((4, 4), dtype=bool)
    found = routed(may, none_low(may), RoutingSettings(), seed=1, step=step)
    assert sorted(found) == [0, 1, 2, 3]


def test_tasks_come_as_often_as_their_weights_say() -> None:
    may = np.ones((40_000, 4), dtype=bool)
    weights = {Task.POLICY: 4.0, Task.FORWARD_DYNAMICS: 3.0, Task.VISUAL_FORECASTING: 1.0}
    found = routed(
        may, none_low(may), RoutingSettings(draw="segment", weights=weights), seed=0, step=0
    )
    shares = np.bincount(found, minlength=4) / len(may)
    np.testing.assert_allclose(
        shares[[POLICY, FORWARD, FORECAST, INVERSE]], [0.5, 0.375, 0.125, 0], atol=0.01
    )


def test_the_low_teach_the_policy_only_when_a_recipe_says_so() -> None:
    may = np.tile([False, True, True, True], (10_000, 1))
    low = np.ones(len(may), dtype=bool)
    never = routed(may, low, RoutingSettings(min_per_batch=0), seed=0, step=0)
    assert not (never == POLICY).any()
    some = routed(may, low, RoutingSettings(min_per_batch=0, low_policy_share=0.2), seed=0, step=0)
    assert abs((some == POLICY).mean() - 0.2 / 4) < 0.01
    limited = routed(
        may, ~low, RoutingSettings(min_per_batch=0, low_policy_share=1.0), seed=0, step=0
    )
    assert not (limited == POLICY).any()


def test_the_same_step_gives_the_same_tasks_and_another_step_others() -> None:
    may = np.ones((64, 4), dtype=bool)
    one, again, other = (
        routed(may, none_low(may), RoutingSettings(), seed=0, step=s) for s in (3, 3, 4)
    )
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
