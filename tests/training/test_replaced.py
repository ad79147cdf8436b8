"""Samples that cannot be read and steps that are not finite: bounded, written down, and left out again by a run that goes on."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from schemas.errors import ConfigError, SourceError
from schemas.manifest import Manifest, load
from tests.training.corpus import ENCODER, Trainable
from tests.training.loader_cases import addresses, loader, recipe, same
from tests.training.running import batches, global_batch, trainer, weights
from tests.training.running import recipe as run_recipe
from tests.training.test_loader_faults import spoil
from tests.training.test_trainer import loop, spoiled
from training.batch import Batch
from training.data import broken
from training.data.broken import BadSample
from training.data.latent_reader import LatentFile
from training.run.mishaps import BAD_FILE, SKIPPED_FILE, Diverged, Mishaps, open_mishaps
from training.run.parallel import Ranks

STEPS = 12


def bad_recipe(max_bad: int = 50, **run: Any) -> Any:
    return recipe(run={"max_bad_samples": max_bad, **run})


@pytest.fixture
def spoiled_file(trainable: Trainable, tmp_path: Path) -> tuple[Manifest, Path]:
    """A manifest one of whose files is cut, and the file; another is whole."""
    mine = trainable.copied(tmp_path / "corpus")
    manifest = load(mine.manifest)
    row = manifest.row(int(loader(manifest).batch(2).origin.row[0]))
    path = next(x.path for x in row.latents if x.encoder_id == ENCODER and x.camera == "front")
    spoil(mine.corpus / path, "cut")
    return manifest, mine.corpus / path


def is_of(batch: Batch, manifest: Manifest, path: Path) -> list[bool]:
    name = path.relative_to(manifest.corpus).as_posix()
    return [any(x.path == name for x in manifest.row(r).latents) for r in batch.origin.row.tolist()]


def test_only_what_cannot_be_read_is_replaced_and_by_the_same_task(
    trainable: Trainable, spoiled_file: tuple[Manifest, Path]
) -> None:
    manifest, path = spoiled_file
    whole, found = loader(load(trainable.manifest), bad_recipe()), loader(manifest, bad_recipe())
    num = 0
    for step in range(STEPS):
        wanted, batch = whole.batch(step), found.batch(step)
        bad = is_of(wanted, manifest, path)
        assert {each.place for each in batch.replaced if not each.attempt} == {
            b for b, is_bad in enumerate(bad) if is_bad
        }
        assert not any(is_of(batch, manifest, path))
        assert torch.equal(batch.known.task, wanted.known.task)
        for b, is_bad in enumerate(bad):
            if not is_bad:
                assert addresses(batch)[b] == addresses(wanted)[b]
                assert torch.equal(batch.action[b], wanted.action[b])
        num += len(batch.replaced)
        for each in batch.replaced:
            assert each.step == step
            assert manifest.row(each.row).uid == each.uid
            assert path.name in each.error
    assert num > 2


def test_none_may_be_replaced_unless_the_recipe_says_so(
    spoiled_file: tuple[Manifest, Path],
) -> None:
    """And the message has the key with which the same command goes on."""
    manifest, path = spoiled_file
    with pytest.raises(SourceError, match=r"broken sample.*run.max_bad_samples=N") as error:
        list(islice(loader(manifest).batches(), STEPS))
    assert path.name in str(error.value)


def test_ranks_together_replace_what_one_would(spoiled_file: tuple[Manifest, Path]) -> None:
    manifest, _ = spoiled_file
    one = loader(manifest, bad_recipe())
    two = [loader(manifest, bad_recipe(), rank=rank, world_size=2) for rank in range(2)]
    for step in range(6):
        whole, parts = one.batch(step), [each.batch(step) for each in two]
        assert addresses(whole) == [a for part in parts for a in addresses(part)]
        assert set(whole.replaced) == {each for part in parts for each in part.replaced}


def test_a_run_that_goes_on_repeats_its_steps_though_the_file_was_repaired(
    trainable: Trainable, spoiled_file: tuple[Manifest, Path], tmp_path: Path
) -> None:
    """What is bad is written down: the same places are drawn again."""
    manifest, path = spoiled_file
    made = bad_recipe()
    mishaps = Mishaps(tmp_path / "run", made.run, Ranks())
    straight = loader(manifest, made)
    wanted = [straight.batch(step) for step in range(STEPS)]
    for batch in wanted:
        mishaps.replaced(batch.replaced)
    again = open_mishaps(tmp_path / "run", made.run, Ranks())
    assert again.counts == mishaps.counts
    whole = trainable.corpus / path.relative_to(manifest.corpus)
    path.write_bytes(whole.read_bytes())
    resumed = loader(manifest, made, was_replaced=again.was_replaced)
    assert all(same(resumed.batch(step), wanted[step]) for step in range(STEPS))
    assert not any(resumed.batch(step).replaced for step in range(STEPS))
    forgetful = loader(manifest, made)
    assert not all(same(forgetful.batch(step), wanted[step]) for step in range(STEPS))


def bad(step: int, place: int, attempt: int = 0) -> BadSample:
    return BadSample(
        step=step, place=place, attempt=attempt, task="policy", uid="u", row=0, timestep=3,
        error="f: cut",
    )  # fmt: skip


def test_one_too_many_ends_the_run_and_is_written_down_too(tmp_path: Path) -> None:
    mishaps = Mishaps(tmp_path, bad_recipe(2).run, Ranks())
    mishaps.replaced([bad(0, 1)])
    mishaps.replaced([bad(0, 1), bad(1, 4)])  # the first is known
    with pytest.raises(
        SourceError, match=r"3 samples cannot be read; run.max_bad_samples allows 2"
    ):
        mishaps.replaced([bad(2, 0)])
    lines = [json.loads(line) for line in (tmp_path / BAD_FILE).read_text().splitlines()]
    assert [(line["step"], line["place"]) for line in lines] == [(0, 1), (1, 4), (2, 0)]


def test_a_sample_that_is_there_twice_is_one_bad_sample(
    spoiled_file: tuple[Manifest, Path], tmp_path: Path
) -> None:
    """As the last ranks have it in a held-out batch: it is replaced by the same, counted once and written down once."""
    manifest, _ = spoiled_file
    found = loader(manifest, bad_recipe())
    replaced = [each for step in range(STEPS) for each in found.batch(step).replaced]
    again = {(each.step, each.place) for each in replaced if each.attempt}
    one = next(each for each in replaced if (each.step, each.place) not in again)
    twice = np.full(2, one.place)
    drawn = found.draws.of_step(one.step, 0, 1).part(twice)
    (batch,) = loader(manifest, bad_recipe(1)).replaced_at(drawn, one.step, twice, batch_size=2)
    assert batch.replaced == (one,)
    assert addresses(batch)[0] == addresses(batch)[1] == addresses(found.batch(one.step))[one.place]
    mishaps = Mishaps(tmp_path, bad_recipe(1).run, Ranks())
    mishaps.replaced([one, one])  # of two ranks
    assert len((tmp_path / BAD_FILE).read_text().splitlines()) == 1


def test_a_line_that_was_cut_is_of_a_step_that_was_not_done(tmp_path: Path) -> None:
    (tmp_path / BAD_FILE).write_text(bad(3, 2).model_dump_json() + "\n" + '{"step": 4, "pl')
    found = open_mishaps(tmp_path, bad_recipe().run, Ranks())
    assert found.was_replaced == {(3, 2): 1}
    found.replaced([bad(5, 0)])
    assert open_mishaps(tmp_path, bad_recipe().run, Ranks()).was_replaced == {(3, 2): 1, (5, 0): 1}
    (tmp_path / BAD_FILE).write_text('{"step": 4}\n')
    with pytest.raises(ConfigError, match=r"damaged \(place: is missing\); restore it"):
        open_mishaps(tmp_path, bad_recipe().run, Ranks())


def test_a_line_may_be_cut_inside_a_character(tmp_path: Path) -> None:
    named = bad(4, 0).model_copy(update={"error": "drop/é.mp4: cut"})
    line = named.model_dump_json().encode()
    torn = line[: line.index("é".encode()) + 1]
    (tmp_path / BAD_FILE).write_bytes(bad(3, 2).model_dump_json().encode() + b"\n" + torn)
    mishaps = open_mishaps(tmp_path, bad_recipe().run, Ranks())
    assert mishaps.was_replaced == {(3, 2): 1}
    mishaps.replaced([named])
    assert open_mishaps(tmp_path, bad_recipe().run, Ranks()).was_replaced == {(3, 2): 1, (4, 0): 1}


# --- a disk that fails now and then -----------------------------------------------------------------------------------


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The next reads of latents fail with these errors; no waiting between tries."""
    left: list[int] = []
    was = LatentFile.read_all

    def read(self: LatentFile, timestep: int, out: Any) -> None:
        if left:
            raise OSError(left.pop(0), "injected")
        was(self, timestep, out)

    monkeypatch.setattr(LatentFile, "read_all", read)
    monkeypatch.setattr(broken, "WAIT_S", 0.0)
    return left


def test_a_disk_that_fails_twice_is_asked_again(manifest: Manifest, failing: list[int]) -> None:
    wanted = loader(manifest).batch(0)
    failing[:] = [errno.EIO, errno.ESTALE]
    assert same(loader(manifest).batch(0), wanted)
    assert not failing


def test_a_disk_that_goes_on_failing_is_named(manifest: Manifest, failing: list[int]) -> None:
    failing[:] = [errno.EIO] * broken.TRIES
    with pytest.raises(SourceError, match=r"broken sample: .*injected"):
        loader(manifest).batch(0)
    assert not failing


def test_what_another_try_cannot_help_is_not_tried_again(
    manifest: Manifest, failing: list[int]
) -> None:
    failing[:] = [errno.EACCES, errno.EIO]
    with pytest.raises(SourceError, match="injected"):
        loader(manifest).batch(0)
    assert failing == [errno.EIO]


# --- steps that are not finite ----------------------------------------------------------------------------------------


def given(first: int, odd: int) -> Iterator[Batch]:
    for step in range(first, 6):
        yield spoiled(step, 4, float("nan")) if step == odd else global_batch(step)


def skipping(tmp_path: Path, number: int = 1) -> Mishaps:
    return open_mishaps(tmp_path, run_recipe(max_skipped_steps=number).run, Ranks())


def test_a_step_that_is_not_finite_is_skipped_and_written_down(tmp_path: Path) -> None:
    """The run with it is the run without: the other steps are done with their own noise and rate."""
    made, told = trainer(run_recipe(max_skipped_steps=1)), list[dict[str, Any]]()
    saved: list[int] = []
    loop(made, told, saved, mishaps=skipping(tmp_path)).run(given(0, 2), 0, 6)
    without = trainer(run_recipe())
    for step in (0, 1, 3, 4, 5):
        without.step(global_batch(step), step)
    for name, value in weights(without.learner).items():
        assert torch.equal(weights(made.learner)[name], value)
    (line,) = (tmp_path / SKIPPED_FILE).read_text().splitlines()
    assert json.loads(line)["step"] == 2
    assert "uid4 at timestep 12" in json.loads(line)["error"]
    assert [each["skipped_steps"] for each in told] == [0, 1, 1]
    json.dumps(told, allow_nan=False)


def test_a_run_that_goes_on_skips_the_same_steps_though_they_are_finite_by_now(
    tmp_path: Path,
) -> None:
    first, again = (trainer(run_recipe(max_skipped_steps=1)) for _ in range(2))
    loop(first, [], [], mishaps=skipping(tmp_path)).run(given(0, 2), 0, 6)
    loop(again, [], [], mishaps=skipping(tmp_path)).run(batches(0), 0, 6)
    for name, value in weights(first.learner).items():
        assert torch.equal(weights(again.learner)[name], value)


def test_one_step_too_many_ends_the_run(tmp_path: Path) -> None:
    made = trainer(run_recipe(max_skipped_steps=1))

    def both() -> Iterator[Batch]:
        yield spoiled(0, 4, float("nan"))
        yield spoiled(1, 4, float("nan"))

    with pytest.raises(Diverged, match=r"step 1: .*run.max_skipped_steps=N .*\(now 1\)"):
        loop(made, [], [], mishaps=skipping(tmp_path)).run(both(), 0, 6)


def test_spreads_are_measured_on_what_can_be_read(
    spoiled_file: tuple[Manifest, Path], manifest: Manifest, tmp_path: Path
) -> None:
    """And a run on whole files that is given the record measures the same."""
    from training.run.data_scale import measured_spreads

    broken, _ = spoiled_file
    device = torch.device("cpu")
    with pytest.raises(SourceError):
        measured_spreads(loader(broken), Ranks(), device)
    made, out = loader(broken, bad_recipe()), tmp_path / "run"
    mishaps = open_mishaps(out, made.recipe.run, Ranks())
    measured = measured_spreads(made, Ranks(), device, mishaps)
    assert min(measured.change_std) > 0
    assert not out.exists(), "a plan writes nothing"
    mishaps.begin()
    again = open_mishaps(out, made.recipe.run, Ranks())
    assert again.was_unmeasured
    assert {what for what, _, _ in again.was_unmeasured} == {"pictures"}
    whole = loader(manifest, bad_recipe())
    assert measured_spreads(whole, Ranks(), device, again) == measured
    assert measured_spreads(whole, Ranks(), device) != measured
    again.begin()
    assert open_mishaps(out, made.recipe.run, Ranks()).was_unmeasured == again.was_unmeasured


def test_nothing_is_left_open(manifest: Manifest) -> None:
    before = set(os.listdir("/proc/self/fd"))
    found = loader(manifest)
    found.batch(0)
    del found
    assert len(set(os.listdir("/proc/self/fd")) - before) == 0
