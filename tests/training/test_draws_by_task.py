"""Tasks first: exact counts by hand, purity, the same for any number of ranks, and what nothing may serve given to the others."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ConfigError
from schemas.supervision import Task
from tests.training.test_draws import ALL, SEEING, bits, draws, table
from training.data.routing import RoutingSettings, counts_of_batch
from training.data.sampler import Draws
from training.tasks import INDEX, TASKS

POLICY, INVERSE, FORWARD, FORECAST = TASKS
NO_POLICY = ALL & ~bits(POLICY)


def shares(*parts: float) -> dict[Task, float]:
    return dict(zip(TASKS, parts, strict=True))


@pytest.mark.parametrize(
    ("parts", "batch_size", "least", "wanted"),
    [
        ((1, 1, 1, 1), 1536, 1, [384, 384, 384, 384]),
        ((3, 1, 1, 1), 64, 1, [32, 11, 11, 10]),  # 32, 10.67, 10.67, 10.67
        ((0.5, 0.3, 0.2, 0), 7, 1, [4, 2, 1, 0]),  # 3.5, 2.1, 1.4
        ((1, 1, 1, 0), 4, 1, [2, 1, 1, 0]),  # equal remainders: the first
        ((97, 1, 1, 1), 8, 0, [8, 0, 0, 0]),
        ((97, 1, 1, 1), 8, 1, [5, 1, 1, 1]),
        ((97, 1, 1, 1), 8, 2, [2, 2, 2, 2]),
        ((97, 1, 1, 1), 8, 3, [2, 2, 2, 2]),  # a batch of 8 has no 3 for each of 4
        ((0, 0, 0, 5), 3, 1, [0, 0, 0, 3]),
        ((0.1, 0.2, 0.3, 0.4), 10, 1, [1, 2, 3, 4]),
    ],
)
def test_counts_by_hand(
    parts: tuple[float, ...], batch_size: int, least: int, wanted: list[int]
) -> None:
    found = counts_of_batch(np.array(parts, dtype=float), batch_size, least)
    assert found.tolist() == wanted


@given(st.lists(st.integers(0, 9), min_size=4, max_size=4).filter(any), st.integers(4, 200))
def test_counts_are_within_one_of_the_shares(parts: list[int], batch_size: int) -> None:
    found = counts_of_batch(np.array(parts, dtype=float), batch_size, 0)
    assert found.sum() == batch_size
    assert (np.abs(found - np.array(parts) / sum(parts) * batch_size) < 1).all()


def test_the_policy_keeps_its_share_whatever_is_added() -> None:
    """A thousandth of the weight may teach the policy. Segment first, the policy all but disappears."""
    much = table((0.001, ALL, False, [ALL] * 10), (0.999, SEEING, False, [SEEING] * 500))
    found = draws(much, 64, shares=shares(1, 1, 1, 1))
    for step in range(5):
        drawn = found.of_step(step)
        assert np.bincount(drawn.task, minlength=4).tolist() == [16, 16, 16, 16]
        assert (drawn.segment[drawn.task != INDEX[FORECAST]] == 0).all()
    before = draws(much, 64, draw="segment", min_per_batch=0)
    counts = np.bincount(np.concatenate([before.of_step(s).task for s in range(5)]), minlength=4)
    assert counts[INDEX[POLICY]] <= 2


def test_segments_of_a_task_come_as_often_as_their_weights() -> None:
    """Floor or ceil of the weight among those that may serve the task, in an epoch of that task: 100 anchors, batches of 10."""
    found = draws(
        table(
            (0.3, ALL, False, [ALL] * 50),
            (0.5, SEEING, False, [SEEING] * 999),
            (0.2, ALL, False, [ALL] * 50),
        ),
        20,
        shares=shares(1, 0, 0, 1),
    )
    drawn = [found.of_step(step) for step in range(10)]
    segment = np.concatenate([d.segment[d.task == INDEX[POLICY]] for d in drawn])
    assert np.bincount(segment, minlength=3).tolist() == [60, 0, 40]


def test_only_anchors_that_serve_the_task_are_drawn() -> None:
    """With gaps between them and without, in the same segment; each as likely."""
    some = [SEEING, ALL, SEEING, SEEING, ALL, ALL, SEEING, SEEING]
    found = draws(table((1.0, ALL, False, [SEEING] * 3), (1.0, ALL, False, some)), 600)
    drawn = found.of_step(0)
    serving = {3 + i for i, can in enumerate(some) if can == ALL}
    policy = drawn.now[drawn.task == INDEX[POLICY]]
    assert set(policy.tolist()) == serving
    assert np.bincount(policy)[sorted(serving)].min() > 30
    assert set(drawn.now[drawn.task == INDEX[FORECAST]].tolist()) == set(range(11))


@pytest.mark.parametrize("draw", ["task", "segment"])
def test_the_same_for_any_number_of_ranks(draw: str) -> None:
    rng = np.random.default_rng(2)
    made = table(*[(1.0 + i, ALL, False, rng.choice([ALL, SEEING], 30).tolist()) for i in range(9)])
    found = draws(made, 840, draw=draw)
    again = draws(made, 840, draw=draw)
    for step in (7, 0, 3):
        whole = found.of_step(step)
        for world_size in range(1, 9):
            parts = [again.of_step(step, rank, world_size) for rank in range(world_size)]
            for name in ("segment", "now", "task"):
                together = np.concatenate([getattr(part, name) for part in parts])
                assert np.array_equal(together, getattr(whole, name))


def test_ranks_have_about_as_much_of_each_task() -> None:
    found = draws(table((1.0, ALL, False, [ALL] * 50)), 800)
    for rank in range(8):
        counts = np.bincount(found.of_step(5, rank, 8).task, minlength=4)
        assert counts.min() >= 10  # 25 in the mean


def test_steps_take_the_draws_of_a_task_one_after_the_other() -> None:
    """No gap and no overlap, over the end of an epoch of 20 too: every draw of three epochs once."""
    found = draws(table((1.0, ALL, False, [ALL] * 20)), 12, shares=shares(3, 1, 1, 1))
    places = found.places[POLICY]
    drawn = [found.of_step(step) for step in range(10)]
    now = np.concatenate([d.now[d.task == INDEX[POLICY]] for d in drawn])
    _, anchor = places.at(np.arange(60))
    assert sorted(now.tolist()) == sorted(anchor.tolist())


def test_a_task_draws_the_same_whatever_the_others_get() -> None:
    """As many of it in a batch: the same samples, whichever other tasks there are."""
    made = table((0.4, ALL, False, [ALL] * 20), (0.6, ALL, False, [ALL] * 30))
    one = draws(made, 16, shares=shares(1, 1, 1, 1)).of_step(3)
    two = draws(made, 8, shares=shares(1, 0, 0, 1)).of_step(3)
    at = [sorted(d.now[d.task == INDEX[POLICY]].tolist()) for d in (one, two)]
    assert at[0] == at[1]


def test_a_share_that_nothing_may_serve_goes_to_the_others_by_their_shares() -> None:
    found = draws(table((1.0, NO_POLICY, False, [NO_POLICY] * 9)), 70, shares=shares(6, 4, 2, 1))
    assert found.unserved == (POLICY,)
    assert found.counts.tolist() == [0, 40, 20, 10]
    assert np.bincount(found.of_step(0).task, minlength=4).tolist() == [0, 40, 20, 10]


def test_low_segments_are_drawn_for_the_policy_as_seldom_as_the_recipe_says() -> None:
    made = table((1.0, ALL, False, [ALL] * 400), (1.0, NO_POLICY, True, [ALL] * 400))
    never = draws(made, 80, shares=shares(1, 0, 0, 0))
    assert (never.of_step(0).segment == 0).all()
    some = draws(made, 80, shares=shares(1, 0, 0, 0), low_policy_share=0.25)
    segment = np.concatenate([some.of_step(step).segment for step in range(10)])
    assert np.bincount(segment).tolist() == [640, 160]  # 1 to a quarter, over one epoch of 800


def test_shares_of_segments_are_what_is_drawn() -> None:
    made = table((0.5, ALL, False, [ALL] * 9), (0.5, SEEING, False, [SEEING] * 9))
    found = draws(made, 8, shares=shares(1, 1, 1, 1))
    np.testing.assert_allclose(found.share_of_segments(), [0.75 + 0.125, 0.125])
    first = draws(made, 8, draw="segment")
    np.testing.assert_allclose(first.share_of_segments(), [0.5, 0.5])


def test_a_batch_without_room_for_its_tasks_is_refused() -> None:
    made = table((1.0, ALL, False, [ALL] * 9))
    with pytest.raises(ConfigError, match="a global batch of 3 samples cannot hold 4 tasks"):
        draws(made, 3)
    assert isinstance(draws(made, 3, min_per_batch=0), Draws)


@pytest.mark.parametrize(
    "given",
    [
        {"weights": {"policy": 8.0}},
        {"shares": {"policy": -1.0}},
        {"shares": {"policy": 0.0}},
        {"draw": "segment", "weights": {"policy": float("nan")}},
    ],
)
def test_settings_without_effect_or_sense_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"routing.weights needs draw|of tasks must be finite"):
        RoutingSettings(**given)


def test_shares_are_dropped_where_segments_are_drawn_first() -> None:
    """So that `--set routing.draw=segment` on a recipe with shares gives the recipe of a run from before."""
    assert RoutingSettings(draw="segment", shares=shares(9, 1, 1, 1)) == RoutingSettings(
        draw="segment"
    )


# Of code that drew each step by itself: a run that exists resumes in this order.
ORDERS = {"task": "a60beea1f3f46de0", "segment": "2ba050611b18aa38"}


@pytest.mark.parametrize("draw", ["task", "segment"])
def test_the_order_is_that_of_earlier_versions(draw: str) -> None:
    """Steps forwards, backwards and far apart, epochs of a task that end inside a batch, one rank and several."""
    rng = np.random.default_rng(4)
    kinds = [ALL, SEEING, NO_POLICY]
    made = table(
        *[(0.5 + i % 3, ALL, i % 4 == 0, rng.choice(kinds, 3 + i).tolist()) for i in range(12)]
    )
    found = draws(made, 96, draw=draw, shares=shares(3, 1, 1, 2), low_policy_share=0.5)
    digest = hashlib.sha256()
    for step in (*range(40), 7, 3, 1_000_003, 250, 249):
        for rank, world_size in ((0, 1), (2, 3), (5, 8)):
            drawn = found.of_step(step, rank, world_size)
            for part in (drawn.segment, drawn.now, drawn.task):
                digest.update(np.asarray(part, "<i8").tobytes())
    assert digest.hexdigest()[:16] == ORDERS[draw]
