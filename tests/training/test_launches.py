"""A step asks the device for a number of launches that does not grow with the batch, and reads nothing back."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from typing import Any

import pytest
import torch

from benchmarks.op_counts import OpCounts, counted
from tests.training.running import (
    Told,
    batches,
    global_batch,
    loop,
    recipe,
    spoiled,
    trainer,
    weights,
)
from tests.training.tiny import SETTINGS, batch
from training.data.prefetch import tensors_mapped
from training.data.rng_keys import Purpose, key_of
from training.learner import Learner
from training.model.network import Network
from training.run import trainer as trainer_module
from training.run.metrics import Grouping, Losses, Throughput
from training.run.mishaps import Mishaps
from training.run.noise import noise_for, normal_of, sample_keys
from training.run.parallel import Ranks


def of_a_step(size: int, **run: Any) -> OpCounts:
    """The third step of the loop, and what is added up of the second: no line of the log is due."""
    made = trainer(recipe(batch_size=size, optimiser={"ema": 0.9}, **run))
    looping, pace = loop(made), Throughput(began_s=0.0)
    given = iter([batch([0, 1, 2, 3] * (size // 4), seed=s) for s in range(3)])
    for step in range(2):
        waiting = looping._launch(given, step, pace, None)

    def once() -> None:
        looping._launch(given, 2, pace, None)
        assert looping._settled(waiting, pace) is not None

    return counted(once)


@pytest.mark.parametrize("run", [{}, {"precision": "bf16"}, {"num_draws": 2}])
def test_launches_of_a_step_do_not_grow_with_the_batch(run: dict[str, Any]) -> None:
    """The host reads one number: whether the step before was finite. It was launched a whole step ago."""
    few, many = of_a_step(8, **run), of_a_step(32, **run)
    assert few.launches == many.launches
    assert few.waits == {"_local_scalar_dense": 1}
    assert of_a_step(8, accumulate=2, **run).waits == few.waits


def test_what_is_counted_is_what_waits() -> None:
    """And the counting can fail."""
    x = torch.tensor([1.0, 0.0])
    actual = counted(lambda: (x.cpu(), x.tolist(), x.sum().item(), x[x > 0], x.nonzero(), x + 1))
    assert actual.waits == {"cpu": 1, "tolist": 1, "_local_scalar_dense": 1, "index": 1, "nonzero": 1}  # fmt: skip
    assert actual.by_op["add"] == 1


def test_a_step_reads_nothing_back_that_a_gpu_would_have_to_send(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On tensors that have no values: to read one, or to copy it to the CPU, raises. The optimiser alone has no kernel for them; it is counted above."""
    monkeypatch.setattr(trainer_module, "computing", lambda precision, device: nullcontext())
    with torch.device("meta"):
        made = Learner(Network(SETTINGS), Told())
    made.part_of = made.part_of.to("meta")
    on_device = trainer(recipe(optimiser={"ema": 0.9}, accumulate=2), made=made)
    on_device.optimiser.step = lambda: None  # type: ignore[method-assign]
    on_device = dataclasses.replace(on_device, device=torch.device("meta"))
    given = tensors_mapped(global_batch(0), lambda x: x.to("meta"))
    result = on_device.launch(given, 0)
    losses = Losses({"tier": Grouping.of(["high", "low"] * 4)})
    losses.add(result.origin, result.rows, result.sample_sums, result.sample_counts)
    with pytest.raises(RuntimeError, match="meta"):
        on_device.check(result)
    with pytest.raises(NotImplementedError, match="meta"):
        losses.means(Ranks())


def test_noise_takes_as_many_launches_for_many_samples_as_for_one() -> None:
    one, several = batch([0]), batch([0] * 64)
    few, many = (
        counted(lambda b=b: noise_for(b, seed=1, step=2, first=0, num_draws=2))  # type: ignore[misc]
        for b in (one, several)
    )
    assert few.launches == many.launches < 120
    assert not many.waits


def test_numbers_of_a_sample_are_normal_and_those_of_no_other() -> None:
    cpu = torch.device("cpu")
    keys = sample_keys(3, 5, Purpose.TRAINING_NOISE, first=10, num=64, device=cpu)
    wanted = [int(key_of(3, 5, Purpose.TRAINING_NOISE, 10 + i)) for i in range(64)]
    assert [key % 2**64 for key in keys.tolist()] == wanted
    actual = normal_of(keys, 1, (5001,)).double()
    assert actual.shape == (64, 5001)
    assert actual.mean().abs() < 0.01
    assert actual.std().item() == pytest.approx(1.0, abs=0.01)
    assert (actual**4).mean().item() == pytest.approx(3.0, abs=0.1)
    assert 4.0 < actual.abs().max() < 6.8
    off = torch.corrcoef(actual) - torch.eye(64)
    assert off.abs().max() < 0.07  # 5 sigma
    neighbours = torch.corrcoef(torch.stack([actual[:, :-1].flatten(), actual[:, 1:].flatten()]))
    assert neighbours[0, 1].abs() < 0.01
    assert not torch.equal(normal_of(keys, 2, (5001,)).double(), actual)


@pytest.mark.parametrize("at", [{0}, {2}, {1, 2, 5}])
def test_a_step_that_is_not_finite_is_left_out_though_it_is_read_late(
    at: set[int], tmp_path: Any
) -> None:
    """Weights, averages, moments and counts are, to the bit, those of a run that never did these steps."""
    run = {"max_skipped_steps": 3, "log_every": 100, "checkpoint_every": 100}
    with_recipe = recipe(optimiser={"ema": 0.5}, **run)
    late = trainer(with_recipe)
    mishaps = Mishaps(tmp_path, with_recipe.run, Ranks())
    assert loop(late, mishaps).run(spoiled(batches(0), at), 0, 6) == 6
    assert mishaps.counts["skipped_steps"] == len(at)
    assert all(mishaps.was_skipped(step) for step in at)
    plain = trainer(with_recipe)
    for step, given in zip(range(6), batches(0), strict=False):
        if step not in at:
            plain.step(given, step)
    for name, value in weights(plain.learner).items():  # type: ignore[arg-type]
        assert torch.equal(weights(late.learner)[name], value)  # type: ignore[arg-type]
    assert plain.averages is not None
    assert late.averages is not None
    for name, value in plain.averages.values.items():
        torch.testing.assert_close(late.averages.values[name], value, rtol=0, atol=0)
    for own, theirs in zip(
        late.optimiser.state.values(), plain.optimiser.state.values(), strict=True
    ):
        assert all(torch.equal(own[name], theirs[name]) for name in theirs)
