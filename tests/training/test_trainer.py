"""A step in parts is the step of the whole; what is not finite stops the run; a run in two pieces is the run in one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from tests.training.running import (
    GLOBAL_BATCH,
    batches,
    global_batch,
    learner,
    recipe,
    trainer,
    weights,
)
from tests.training.tiny import batch
from training.batch import Batch
from training.learner import Learner
from training.loss import num_scored, weighted
from training.run import metrics
from training.run.metrics import Grouping, Losses, Throughput
from training.run.micro_batch import parts
from training.run.mishaps import Diverged
from training.run.noise import noise_for
from training.run.parallel import Ranks
from training.run.trainer import Hooks, Loop, Trainer
from training.tasks import TASKS
from training.trainable import ScoredRows


def loop(made: Trainer, stderr: list[dict[str, Any]], saved: list[int], **hooks: Any) -> Loop:
    ticks = iter(range(10**6))
    groupings = {"tier": Grouping.of(["high", "low"] * (GLOBAL_BATCH // 2))}
    given = {"clock_s": lambda: float(next(ticks)), "should_stop": lambda: False}
    both = {"on_log": stderr.append, "save": saved.append, **given, **hooks}
    return Loop(
        trainer=made, losses=Losses(groupings), flops_per_sample=2.0, peak=4.0, hooks=Hooks(**both)
    )


def rows_of(tasks: list[int]) -> ScoredRows:
    return ScoredRows(sample=torch.arange(len(tasks)), task=torch.tensor(tasks))


def after(num_steps: int, **run: Any) -> dict[str, torch.Tensor]:
    made = trainer(recipe(**run))
    for step in range(num_steps):
        made.step(global_batch(step), step)
    return weights(made.learner)


@pytest.mark.parametrize("accumulate", [2, 4, 8])
def test_a_step_in_parts_is_the_step_of_the_whole(accumulate: int) -> None:
    whole, in_parts = after(3), after(3, accumulate=accumulate)
    for name, value in whole.items():
        torch.testing.assert_close(in_parts[name], value, rtol=2e-4, atol=2e-5, msg=name)
    mean_of_means = learner()  # and the check can fail: nothing moved is not the same
    assert any((whole[n] - p).abs().max() > 1e-3 for n, p in weights(mean_of_means).items())


def test_a_gradient_is_that_of_the_whole_loss_by_hand() -> None:
    made, b = trainer(recipe(num_draws=2)), global_batch(0)
    before = weights(made.learner)
    done = made.step(b, 0)
    other = learner()
    noise = noise_for(b, seed=3, step=0, first=0, num_draws=2)
    terms = other(b, noise.t, noise.action, noise.future)
    loss = weighted(terms.sums, terms.counts, dict.fromkeys(TASKS, 1.0))
    assert loss.item() == pytest.approx(done.loss(made.recipe), rel=1e-5)
    assert done.counts.tolist() == terms.counts.tolist() == (2 * num_scored(b)).tolist()
    loss.backward()  # type: ignore[no-untyped-call]
    norm = torch.stack([p.grad.square().sum() for p in other.parameters() if p.grad is not None])
    assert norm.sum().sqrt().item() == pytest.approx(done.gradient_norm, rel=1e-4)
    assert any((before[n] - p).abs().max() > 0 for n, p in weights(made.learner).items())


def test_task_weights_scale_their_own_loss() -> None:
    only = {task.value: float(i == 0) for i, task in enumerate(TASKS)}
    made = trainer(recipe(loss_weights=only))
    done = made.step(global_batch(0), 0)
    policy = (done.sums[0] / done.counts[0]).item()
    assert done.loss(made.recipe) == pytest.approx(policy)


@pytest.mark.parametrize("tasks", [[0] * 8, [3] * 8, [0] * 7 + [1]])
def test_a_batch_without_a_task_is_finite(tasks: list[int]) -> None:
    made = trainer(recipe(accumulate=8))
    done = made.step(batch(tasks), 0)
    assert done.gradient_norm > 0
    assert torch.isfinite(done.sums).all()
    assert all(p.isfinite().all() for p in made.learner.parameters())


def test_noise_is_of_the_sample_not_of_the_batch_it_is_in() -> None:
    b = global_batch(0)
    whole = noise_for(b, seed=1, step=5, first=16, num_draws=3)
    again = [
        noise_for(part, seed=1, step=5, first=16 + 2 * i, num_draws=3)
        for i, part in enumerate(parts(b, 4))
    ]
    for name in ("t", "action", "future"):
        joined = torch.cat([getattr(each, name) for each in again], dim=1)
        torch.testing.assert_close(joined, getattr(whole, name), rtol=0, atol=0)
    for seed, step, first in ((2, 5, 16), (1, 6, 16), (1, 5, 17)):
        other = noise_for(b, seed=seed, step=step, first=first, num_draws=3)
        assert not torch.equal(other.action, whole.action)
    assert abs(whole.action.mean()) < 0.1
    assert 0.9 < whole.action.std() < 1.1
    assert ((whole.t >= 0) & (whole.t <= 1)).all()


def spoiled(step: int, sample: int, value: float) -> Batch:
    b = global_batch(step)
    future = b.future.clone()
    future[sample] = value
    return dataclasses.replace(b, future=future)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_what_is_not_finite_stops_the_run_before_the_weights_change(value: float) -> None:
    made = trainer(recipe(accumulate=2, checkpoint_every=1))
    stderr: list[dict[str, Any]] = []
    saved: list[int] = []
    clean = trainer(recipe(accumulate=2))
    clean.step(global_batch(0), 0)

    def given() -> Iterator[Batch]:
        yield global_batch(0)
        yield spoiled(1, 4, value)  # its tasks: 0 0 1 2 3 3 0 0

    with pytest.raises(Diverged, match=r"step 1: .* uid4 at timestep 12, visual_forecasting") as e:
        loop(made, stderr, saved).run(given(), 0, 6)
    assert e.value.exit_code == 1
    assert "uid3" not in str(e.value)
    assert saved == [1]
    for name, value_now in weights(made.learner).items():
        torch.testing.assert_close(value_now, weights(clean.learner)[name], rtol=0, atol=0)


def test_a_gradient_alone_that_is_not_finite_stops_too() -> None:
    made = trainer(recipe())
    made.learner.network.merge.weight.register_hook(lambda g: g * float("nan"))  # type: ignore[no-untyped-call]
    before = weights(made.learner)
    with pytest.raises(Diverged, match="a gradient is not finite"):
        made.step(global_batch(0), 0)
    assert all(torch.equal(before[n], p) for n, p in weights(made.learner).items())


def test_the_loop_tells_and_saves_when_it_should() -> None:
    stderr: list[dict[str, Any]] = []
    saved: list[int] = []
    made = trainer(recipe(num_steps=5, log_every=2, checkpoint_every=3))
    assert loop(made, stderr, saved).run(batches(0), 0, 5) == 5
    assert [line["step"] for line in stderr] == [2, 4, 5]
    assert saved == [3, 5]
    first = stderr[0]
    assert sum(first["num_by_task"].values()) == 2 * GLOBAL_BATCH
    assert first["loss_by_tier"].keys() == {"high", "low"}
    # The clock goes on by one at each look: at the start, before and after each wait, after each step, and at the line.
    # 2 steps of 8 samples in 7 s.
    assert first["samples_per_s"] == pytest.approx(16 / 7)
    assert first["data_wait_share"] == pytest.approx(2 / 7)
    assert first["mfu"] == pytest.approx(16 / 7 * 2 / 4)


@pytest.mark.parametrize(("minutes", "at"), [(1.0, [2, 3, 5, 6, 7]), (None, [3, 6, 7])])
def test_a_checkpoint_is_written_when_the_last_is_too_long_ago(
    minutes: float | None, at: list[int]
) -> None:
    """A step takes 40 s; every third is saved anyway, from which the minute counts anew."""
    saved: list[int] = []
    now_s = [1000.0]

    def slow() -> Iterator[Batch]:
        for given in batches(0):
            now_s[0] += 40
            yield given

    made = trainer(recipe(num_steps=7, checkpoint_every=3, checkpoint_minutes=minutes))
    loop(made, [], saved, clock_s=lambda: now_s[0]).run(slow(), 0, 7)
    assert saved == at


def test_a_stop_finishes_the_step_and_saves_it() -> None:
    stderr: list[dict[str, Any]] = []
    saved: list[int] = []
    asked = iter([False, False, True, False])
    made = trainer(recipe(log_every=100, checkpoint_every=100))
    ended = loop(made, stderr, saved, should_stop=lambda: next(asked)).run(batches(0), 0, 6)
    assert ended == 3
    assert saved == [3]
    assert stderr[-1]["step"] == 3


def test_losses_by_group_are_means_over_elements_not_over_samples() -> None:
    losses = Losses({"body": Grouping.of(["b", "a", "b"])})
    origin = dataclasses.replace(batch([0, 0, 1]).origin)
    rows = rows_of([0, 0, 1])
    losses.add(origin, rows, torch.tensor([6.0, 2.0, 5.0]), torch.tensor([3, 1, 10]))
    losses.add(origin, rows, torch.tensor([0.0, 0.0, 5.0]), torch.tensor([1, 0, 10]))
    actual = losses.means(trainer(recipe()).ranks)
    assert actual["loss_by_task"] == {"policy": pytest.approx(8 / 5), "inverse_dynamics": 0.5}
    assert actual["loss_by_body"] == {
        "a": {"policy": 2.0},
        "b": {"policy": 1.5, "inverse_dynamics": 0.5},
    }
    assert actual["num_by_task"]["policy"] == 4


def test_the_fewest_samples_of_a_task_are_those_of_a_batch_of_all_ranks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another rank has the same two steps the other way round: the fewest of each rank would add up to less."""

    def with_the_other(x: torch.Tensor, _: Ranks) -> torch.Tensor:
        return x if x.is_floating_point() else x + x.flip(0)

    monkeypatch.setattr(metrics, "sum_over", with_the_other)
    losses, origin = Losses({}), batch([0, 0, 0]).origin
    for tasks in ([0, 0, 1], [0, 2, 2]):
        losses.add(origin, rows_of(tasks), torch.ones(3), torch.ones(3))
    actual = losses.means(Ranks())["least_by_task"]
    assert list(actual.values()) == [3, 1, 2, 0]
    losses.reset()
    losses.add(origin, rows_of([3, 3, 3]), torch.ones(3), torch.ones(3))
    assert losses.means(Ranks())["least_by_task"]["visual_forecasting"] == 6


def test_pace_by_hand() -> None:
    pace = Throughput(began_s=10.0, waited_s=0.5, num_steps=4, num_samples=20)
    actual = pace.summary(12.0, flops_per_sample=3.0, peak=60.0)
    assert actual == {"step_s": 0.5, "samples_per_s": 10.0, "data_wait_share": 0.25, "mfu": 0.5}
    pace.num_text = 30  # words beside the samples: 15 a second
    assert pace.summary(12.0, 3.0, 60.0, flops_per_text_token=2.0)["mfu"] == 1.0


def test_a_text_that_several_samples_have_is_useful_work_once() -> None:
    made, given = trainer(recipe()), global_batch(0)
    layout = given.text_inputs.layout
    assert made.step(given, 0).num_text == layout.num_tokens.sum()
    text_of = np.zeros_like(layout.text_of)  # all have the first
    one = dataclasses.replace(
        given.text_inputs, layout=dataclasses.replace(layout, text_of=text_of)
    ).of_samples(slice(None))
    actual = made.step(dataclasses.replace(given, text_inputs=one), 0).num_text
    assert actual == layout.num_tokens[0] < layout.num_tokens.sum()


def test_dropout_and_averages_follow_from_seed_and_step() -> None:
    def run(made: Learner, first: int, end: int) -> Trainer:
        with_recipe = recipe(optimiser={"ema": 0.5})
        out = trainer(with_recipe, made=made)
        for step in range(first, end):
            out.step(global_batch(step), step)
        return out

    one, two = (run(learner(dropout=0.3), 0, 2) for _ in range(2))
    assert one.averages is not None
    assert two.averages is not None
    for name, value in weights(one.learner).items():
        assert torch.equal(value, weights(two.learner)[name])
    for name, average in one.averages.values.items():
        assert torch.equal(average, two.averages.values[name])
    torch.manual_seed(99)  # what anybody else did to the global generator does not matter
    three = run(learner(dropout=0.3), 0, 2)
    assert all(torch.equal(v, weights(three.learner)[n]) for n, v in weights(one.learner).items())
