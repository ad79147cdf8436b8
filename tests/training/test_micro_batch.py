"""In how many parts a rank's batch is taken: the fewest that fit, tried without running out of memory, and kept when the run goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from schemas.errors import ConfigError
from tests.training.corpus import Trainable
from tests.training.parts_main import PARALLEL
from tests.training.running import (
    CPU,
    GLOBAL_BATCH,
    batches,
    global_batch,
    joint,
    recipe,
    trainer,
    two_ranks,
)
from tests.training.running import weights as weights_of
from tests.training.test_train_cli import train
from training.batch import Batch
from training.run.checkpoint import checkpoint_of
from training.run.memory import bytes_of, host_bytes
from training.run.micro_batch import parts_by_trial
from training.run.optimiser import kept, trained
from training.run.parallel import Ranks
from training.run.run_folder import logged
from training.run.session import Session

BASE, EACH = 100, 10  # bytes of a made-up rank, and of each sample


def trials(
    share: int, num_bytes: int, peak: Callable[[int], int] = lambda n: BASE + EACH * n
) -> tuple[int, list[int]]:
    """Parts, and the sizes that were tried, of which none took more than there is."""
    sizes: list[int] = []

    def peak_of(size: int) -> int:
        sizes.append(size)
        return peak(size)

    num_parts = parts_by_trial(share, peak_of, num_bytes, without=BASE)
    assert all(peak(size) <= num_bytes for size in sizes)
    return num_parts, sizes


@pytest.mark.parametrize(
    ("share", "num_bytes", "num_parts", "sizes"),
    [
        (192, 10**6, 1, [1, 2, 4, 8, 16, 32, 64, 128, 192]),  # all of it was tried
        (192, BASE + EACH * 100, 2, [1, 2, 4, 8, 16, 32, 64]),
        (192, BASE + EACH * 95, 3, [1, 2, 4, 8, 16, 32, 64]),
        (192, BASE + EACH * 63, 4, [1, 2, 4, 8, 16, 32]),
        (7, BASE + EACH * 6, 7, [1, 2, 4]),
        (1, BASE + EACH, 1, [1]),
        (8, BASE + EACH * 2, 4, [1, 2]),
        (8, BASE + EACH * 2 - 1, 8, [1]),
    ],
)
def test_the_fewest_parts_that_fit_are_found_without_a_trial_too_large(
    share: int, num_bytes: int, num_parts: int, sizes: list[int]
) -> None:
    assert trials(share, num_bytes) == (num_parts, sizes)


def test_what_costs_more_than_a_line_says_is_seen() -> None:
    """From 16 samples on twice as much each, as of a kernel that needs a buffer."""
    num_parts, _ = trials(64, 700, lambda n: BASE + EACH * n + 10 * max(0, n - 16))
    assert num_parts == 2


def test_nothing_that_fits_is_refused() -> None:
    with pytest.raises(ConfigError, match="one sample at a time"):
        parts_by_trial(8, lambda n: BASE + EACH * n, BASE)


@pytest.mark.parametrize(
    ("num_bytes", "num_parts"),
    [(180, 1), (179, 4), (170, 4), (169, 8), (150, 8)],
)
def test_gradients_of_earlier_parts_take_room_where_there_are_several(
    num_bytes: int, num_parts: int
) -> None:
    """All 8 samples take 180 bytes. With 50 for the gradients of earlier parts 4 take 190, 2 take 170 and one 160, or 150 if some were in its peak already."""
    held = (40, 50)
    assert parts_by_trial(8, lambda n: BASE + EACH * n, num_bytes, without=BASE, held=held) == num_parts  # fmt: skip


def test_one_sample_that_fits_without_gradients_of_earlier_parts_is_refused() -> None:
    with pytest.raises(ConfigError, match="one sample at a time"):
        parts_by_trial(8, lambda n: BASE + EACH * n, 149, without=BASE, held=(40, 50))
    assert parts_by_trial(1, lambda n: BASE + EACH * n, 110, without=BASE, held=(40, 50)) == 1


def test_a_trial_leaves_the_run_as_it_was() -> None:
    """Weights, moments, averages and the use of LARA's codes: the steps after it are those without it, to the bit."""
    of = recipe(accumulate=2, optimiser={"ema": 0.5}, lara=joint(weight_align=0.5, weight_lam=0.5))
    tried, plain = trainer(of), trainer(of)
    for made in (tried, plain):
        given = batches(0)
        for step in range(3):
            if made is tried:
                made.rehearse(global_batch(9))
            made.step(next(given), step)
    for one, two in (
        (weights_of(tried.learner), weights_of(plain.learner)),
        (tried.learner.state_dict(), plain.learner.state_dict()),
        (tried.averages.values, plain.averages.values),  # type: ignore[union-attr]
    ):
        assert all(torch.equal(x, two[name]) for name, x in one.items())


def test_a_trial_is_of_all_its_samples_in_one_part() -> None:
    made, sizes = trainer(recipe(accumulate=4)), list[int]()
    hook = made.learner.network.merge.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))  # fmt: skip
    made.rehearse(global_batch(0))
    hook.remove()
    assert sizes == [GLOBAL_BATCH]


def test_moments_and_the_next_batch_are_counted_beside_what_was_measured() -> None:
    made, batch = trainer(recipe()), global_batch(0)
    later = 2 * sum(p.nbytes for p in trained(made.learner).values()) + bytes_of(batch)
    session = SimpleNamespace(
        loader=SimpleNamespace(batch=lambda step: batch),
        device=CPU,
        ranks=Ranks(),
        learner=made.learner,
    )

    sizes: list[int] = []

    def peak_of(some: Batch) -> int:
        sizes.append(len(some.known.task))
        return BASE + 10**6 * len(some.known.task)

    weights = sum(p.nbytes for p in trained(made.learner).values())

    def chosen(num_bytes: int) -> int:
        sizes.clear()
        device = round(num_bytes / 0.9 + 2)
        tried = Session.tried(session, made, peak_of, lambda: BASE - weights, device)  # type: ignore[arg-type]
        return tried.recipe.run.num_parts

    assert chosen(BASE + later + 10**6 * 8) == 1
    assert chosen(BASE + later + 10**6 * 7) == 2
    # The second part begins with the gradients of the first.
    assert chosen(BASE + later + 10**6 * 4 + weights) == 2
    assert chosen(BASE + later + 10**6 * 4 + weights - 9) == 4
    # Gradients are no cost of a sample: else two were too much.
    assert (chosen(BASE + later + 10**6 * 2 + weights), sizes) == (4, [1, 2])
    assert (chosen(BASE + later + 10**6 * 2 - 9), sizes) == (8, [1])
    made.step(next(batches(0)), 0)  # now the moments are there
    assert chosen(BASE + bytes_of(batch) + 10**6 * 8) == 1


@pytest.mark.slow
def test_two_ranks_try_and_choose_the_same(tmp_path: Path) -> None:
    """One needs more for a sample, the other has less; a step in these parts is that of one process in one."""
    programs = two_ranks("tests.training.parts_main", tmp_path)
    stderr = [program.communicate(timeout=300)[1] for program in programs]
    assert [program.returncode for program in programs] == [0, 0], stderr
    for rank in range(2):
        chosen = json.loads((tmp_path / f"{rank}.json").read_text())
        assert chosen == {how: {"sizes": [1, 2], "parts": 2} for how in PARALLEL}
    alone = trainer(recipe())
    alone.step(global_batch(0), 0)
    for how in PARALLEL:
        by_two = load_file(tmp_path / f"{how}.safetensors")
        for name, value in kept(alone.learner).items():
            torch.testing.assert_close(by_two[name], value, rtol=1e-3, atol=1e-5)


def test_memory_of_a_container_is_its_limit(tmp_path: Path) -> None:
    assert host_bytes(tmp_path) > 1 << 28
    (tmp_path / "memory.max").write_text("max\n")
    assert host_bytes(tmp_path) > 1 << 28
    (tmp_path / "memory.max").write_text("1000\n")
    assert host_bytes(tmp_path) == 1000
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory/memory.limit_in_bytes").write_text("500")
    assert host_bytes(tmp_path) == 500


@pytest.mark.slow
def test_a_run_goes_on_in_as_many_parts_as_it_began(
    trainable: Trainable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the estimate for this machine, which has more memory when the run goes on."""
    actual = train(trainable.manifest, tmp_path / "run", "--dry-run")
    assert actual["accumulate"] == actual["accumulate_of_80_gb"] == 1
    assert actual["accumulate_by"] == "estimate"
    two = actual["memory_by_parts"]["2"]
    monkeypatch.setattr("training.run.build.host_bytes", lambda: round(two / 0.9) + 2)
    train(trainable.manifest, tmp_path / "run", "--until", "1")
    assert logged(tmp_path / "run", 1)["accumulate"] == 2
    assert checkpoint_of(tmp_path / "run").state.recipe["run"]["accumulate"] == 2
    monkeypatch.undo()
    actual = train(trainable.manifest, tmp_path / "run", "--until", "2", "--dry-run")
    assert (actual["accumulate"], actual["accumulate_by"]) == (2, "checkpoint")
    train(trainable.manifest, tmp_path / "run", "--until", "2")
    assert logged(tmp_path / "run", 2)["accumulate"] == 2
    train(trainable.manifest, tmp_path / "run", "--until", "3", "--set", "run.accumulate=4")
    assert logged(tmp_path / "run", 3)["accumulate"] == 4
    monkeypatch.setattr("training.run.build.host_bytes", lambda: 1)  # nothing fits, and it trains
    actual = train(trainable.manifest, tmp_path / "other", "--dry-run")
    assert actual["accumulate"] == max(map(int, actual["memory_by_parts"]))
