"""Which samples a batch has and what they are trained on, on tables by hand: no files."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from schemas.errors import ConfigError
from schemas.supervision import Task
from training.data import sample_index
from training.data.routing import RoutingSettings
from training.data.sample_index import SEGMENT, SampleIndex, with_serving
from training.data.sampler import Draws
from training.data.windows import BIT
from training.tasks import INDEX, TASKS


def bits(*tasks: Task) -> int:
    return sum(int(BIT[task]) for task in tasks)


def table(*segments: tuple[float, int, bool, list[int]]) -> SampleIndex:
    """(weight, tasks that its tier allows, whether it is low, what each of its anchors can serve)."""
    made = np.zeros(len(segments), dtype=SEGMENT)
    for i, (weight, may, is_low, serves) in enumerate(segments):
        made[i]["weight"], made[i]["may"], made[i]["is_low"] = weight, may, is_low
        made[i]["num_anchors"] = len(serves)
    made["first"] = np.cumsum(made["num_anchors"]) - made["num_anchors"]
    every = [each for segment in segments for each in segment[3]]
    of_anchor = np.repeat(np.arange(len(segments)), made["num_anchors"])
    made = with_serving(made, of_anchor, np.array(every, dtype=np.uint8))
    found = SimpleNamespace(
        segments=made,
        timestep=np.arange(len(every), dtype=np.int32),
        serves=np.array(every, dtype=np.uint8),
    )
    return cast("SampleIndex", found)


def draws(found: SampleIndex, batch_size: int = 64, **routing: Any) -> Draws:
    return Draws(found, RoutingSettings(**routing), seed=3, batch_size=batch_size)


SEEING = bits(Task.VISUAL_FORECASTING)
ALL = bits(*TASKS)


def test_a_low_sample_without_actions_never_teaches_the_policy() -> None:
    """However often low ones may: the lottery is about quality, and cannot make actions."""
    found = draws(table((1.0, ALL & ~bits(Task.POLICY), True, [SEEING] * 9)), low_policy_share=1.0)
    assert (found.of_step(0).task == INDEX[Task.VISUAL_FORECASTING]).all()
    with_actions = draws(table((1.0, SEEING, True, [ALL] * 9)), low_policy_share=1.0)
    assert set(with_actions.of_step(0).task.tolist()) == {0, 3}


def test_a_segment_without_anchors_gives_its_weight_away() -> None:
    found = draws(table((0.9, ALL, False, []), (0.1, ALL, False, [ALL] * 4)))
    assert (found.of_step(0).segment == 1).all()


def test_every_anchor_of_a_segment_is_as_likely() -> None:
    found = draws(table((0.5, ALL, False, [ALL] * 5), (0.5, ALL, False, [ALL] * 20)), 1000)
    now = np.concatenate([found.of_step(step).now for step in range(10)])
    counts = np.bincount(now, minlength=25)
    assert abs(counts[:5].sum() - 5000) <= 400  # a draw of an epoch of 25 more or less
    assert counts[:5].min() > 850
    assert counts[5:].min() > 180


def test_tasks_are_drawn_over_the_whole_batch() -> None:
    """One sample of each task in the global batch, whatever rank it is on."""
    found = draws(table((1.0, ALL, False, [ALL] * 50)), 8, min_per_batch=2)
    for step in range(20):
        whole = found.of_step(step)
        parts = [found.of_step(step, rank, 4) for rank in range(4)]
        for name in ("segment", "now", "task"):
            together = np.concatenate([getattr(part, name) for part in parts])
            assert np.array_equal(together, getattr(whole, name))
        assert np.bincount(whole.task, minlength=4).tolist() == [2, 2, 2, 2]


def test_steps_and_ranks_take_the_draws_of_an_epoch_one_after_the_other() -> None:
    """No gap and no overlap, over the end of an epoch of 20 too."""
    found = draws(table((1.0, ALL, False, [ALL] * 20)), 8, draw="segment")
    parts = [found.of_step(step, rank, 4) for step in range(5) for rank in range(4)]
    now = np.concatenate([part.now for part in parts])
    wanted = [found.order.at(epoch, np.arange(20))[1] for epoch in (0, 1)]
    assert np.array_equal(now, np.concatenate(wanted))


def test_evaluation_leaves_the_lottery_out() -> None:
    found = draws(table((0.5, SEEING, True, [ALL] * 3), (0.5, ALL, False, [ALL, SEEING])))
    assert found.every(Task.POLICY).now.tolist() == [3]
    assert found.every(Task.VISUAL_FORECASTING).now.tolist() == [0, 1, 2, 3, 4]
    assert found.every(Task.VISUAL_FORECASTING, 2).now.tolist() == [0, 2]


@pytest.mark.parametrize("num_samples", [None, 0, 1, 7, 100, 10**6])
def test_every_is_picked_from_all_however_tables_are_cut(
    num_samples: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a loop over all anchors at once; segments without anchors, at the ends of cuts too."""
    rng = np.random.default_rng(5)
    made = [
        (1.0, int(rng.integers(16)), False, rng.integers(16, size=max(0, int(rng.integers(-3, 9)))).tolist())
        for _ in range(60)
    ]  # fmt: skip
    found = draws(table(*made))
    for task in TASKS:
        fits = [
            (s, first + a)
            for s, first in enumerate(found.anchors.segments["first"].tolist())
            for a, can in enumerate(made[s][3])
            if can & made[s][1] & int(BIT[task])
        ]
        if num_samples is not None and num_samples < len(fits):
            fits = [fits[i * len(fits) // num_samples] for i in range(num_samples)]
        for at_once in (1, 7, 60, 1000):
            monkeypatch.setattr(sample_index, "_SEGMENTS", at_once)
            drawn = found.every(task, num_samples)
            assert list(zip(drawn.segment.tolist(), drawn.now.tolist(), strict=True)) == fits
            assert (drawn.task == INDEX[task]).all()


@pytest.mark.parametrize("segments", [[], [(1.0, ALL, False, [])], [(0.0, ALL, False, [ALL])]])
def test_nothing_to_draw_is_said(segments: list[Any]) -> None:
    with pytest.raises(ConfigError, match="no samples"):
        draws(table(*segments))
