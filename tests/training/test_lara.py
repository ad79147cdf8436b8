"""LARA: what each loss moves and what it must not, which samples train what, and that a run with it is still one run."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from schemas.errors import ConfigError
from schemas.manifest import Manifest
from schemas.supervision import Task
from tests.training.corpus import NUM_PATCHES, NUM_PREFIX, Trainable, tokens_of
from tests.training.loader_cases import addresses, loader
from tests.training.loader_cases import recipe as loader_recipe
from tests.training.running import (  # fmt: skip
    GLOBAL_BATCH,
    LAM,
    global_batch,
    joint,
    learner,
    recipe,
    snapshot_of,
    trainer,
    weights,
)
from training.batch import Batch
from training.lara.lara import LaraTerms, scored_of
from training.lara.latent_action import LatentActionModel, PictureShape
from training.lara.log import LaraLog
from training.lara.quantise import CodeBook, perplexity_of
from training.lara.settings import JointStage, LatentActionSettings
from training.learner import Learner
from training.recipe import TrainRecipe, load_recipe
from training.run.checkpoint import WEIGHTS, Checkpoint, write
from training.run.checkpoint import checkpoint_of as newest
from training.run.noise import noise_for
from training.run.optimiser import kept as kept_of
from training.run.restore import restore, restore_latent_actions
from training.tasks import INDEX


def terms_of(made: Learner, batch: Batch, num_draws: int = 1) -> LaraTerms:
    noise = noise_for(batch, seed=3, step=0, first=0, num_draws=num_draws)
    terms: LaraTerms | None = made(batch, noise.t, noise.action, noise.future).lara
    assert terms is not None
    return terms


def moved_by(loss: Tensor, made: Learner) -> set[str]:
    """Names of parameters with a gradient that is not zero."""
    made.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    return {n for n, p in made.named_parameters() if p.grad is not None and p.grad.any()}


def with_joint(**changed: Any) -> Learner:
    return learner(lara=recipe(lara=joint(**changed)).lara)


# --- the code book ----------------------------------------------------------------------------------------------------


def book(num_codes: int = 8, width: int = 4, **changed: Any) -> CodeBook:
    torch.manual_seed(0)
    return CodeBook(LatentActionSettings(num_codes=num_codes, code_width=width, **changed))


def test_a_code_passes_the_gradient_on_as_it_is() -> None:
    made, z = book(), torch.randn(3, 2, 4, requires_grad=True)
    out = made(z).values
    for index in np.ndindex(*out.shape):
        (row,) = torch.autograd.grad(out[index], z, retain_graph=True)
        assert row[index] == 1
        assert row.sum() == 1
        assert row.abs().sum() == 1


def test_each_term_moves_its_own_side_and_is_the_distance_to_the_nearest_code() -> None:
    made, z = book(), torch.randn(3, 2, 4, requires_grad=True)
    said = made(z)
    distance = (z.detach()[:, :, None] - made.codes.detach()).square().sum(-1)
    assert torch.equal(said.code, distance.argmin(-1))
    nearest = distance.amin(-1).sum(1)
    for term, (moves, rests) in (
        (said.codebook, (made.codes, z)),
        (said.commitment, (z, made.codes)),
    ):
        torch.testing.assert_close(term.detach(), nearest)
        gradients = torch.autograd.grad(term.sum(), [moves, rests], allow_unused=True)
        assert gradients[0].any()
        assert gradients[1] is None or not gradients[1].any()


def perplexity_after(dead_share: float) -> float:
    """Codes learn 128 clusters from a bad start: all of them lie at one."""
    made = book(128, 32, dead_share=dead_share, usage_decay=0.9)
    centres = torch.randn(128, 32, generator=torch.Generator().manual_seed(1)) * 3
    with torch.no_grad():
        made.codes.copy_(centres[:1] + 0.01 * made.codes)
    optimiser = torch.optim.Adam([made.codes], lr=0.02)
    g, codes = torch.Generator().manual_seed(2), Tensor()
    for step in range(300):
        z = centres[torch.randint(128, (64, 8), generator=g)]
        z = z + 0.05 * torch.randn(z.shape, generator=g)
        said = made(z)
        optimiser.zero_grad()
        (said.codebook.mean() / 8).backward()
        optimiser.step()
        codes = made.moved_codes(made.codes.detach(), z.flatten(0, 1), said.code.flatten(), seed=0, step=step)  # fmt: skip
        with torch.no_grad():
            made.codes.copy_(codes)
    return perplexity_of(torch.bincount(made(centres[:, None]).code.flatten(), minlength=128))


@pytest.mark.slow
def test_dead_codes_are_moved_to_where_vectors_are() -> None:
    assert perplexity_after(dead_share=0.1) > 90
    assert perplexity_after(dead_share=0.0) < 60


def test_perplexity_of_known_uses() -> None:
    assert perplexity_of(torch.tensor([5, 5, 5, 5])) == pytest.approx(4)
    assert perplexity_of(torch.tensor([7, 0, 0])) == pytest.approx(1)


# --- what is trained --------------------------------------------------------------------------------------------------


def test_alignment_moves_blocks_up_to_its_own_and_the_encoder() -> None:
    made = with_joint(after_block=1)
    moved = moved_by(terms_of(made, global_batch(0)).sums[:, 3].sum(), made)
    assert {n for n in moved if n.startswith("lara.")} <= {
        n
        for n, _ in made.named_parameters()
        if n.startswith(("lara.lam.former.", "lara.projector."))
    }
    for part in ("lara.projector.linear.weight", "lara.lam.former.down.2.weight", "network.blocks.0.streams.1.qkv.weight", "network.action_in.own.weight"):  # fmt: skip
        assert part in moved
    assert not {n for n in moved if n.startswith(("network.blocks.1.", "network.action_out", "network.future_out"))}  # fmt: skip
    both = moved_by(terms_of(with_two := with_joint(after_block=2), global_batch(0)).sums[:, 3].sum(), with_two)  # fmt: skip
    assert "network.blocks.1.streams.1.qkv.weight" in both


@pytest.mark.parametrize(("stop", "still"), [("to_lam", "lara.lam."), ("to_policy", "network.")])
def test_a_stopped_side_is_not_moved(stop: str, still: str) -> None:
    made = with_joint(stop_gradient=stop)
    moved = moved_by(terms_of(made, global_batch(0)).sums[:, 3].sum(), made)
    assert moved
    assert not {n for n in moved if n.startswith(still)}


def test_a_frozen_latent_action_model_stays_and_is_in_the_checkpoint() -> None:
    made = trainer(recipe(lara=joint(freeze_lam=True, weight_align=1.0)))
    before = {k: v.clone() for k, v in made.learner.state_dict().items()}
    for step in range(2):
        made.step(global_batch(step), step)
    after = made.learner.state_dict()
    for name, value in before.items():
        if name.startswith("lara.lam."):
            assert torch.equal(after[name], value), name
    assert not torch.equal(after["lara.projector.linear.weight"], before["lara.projector.linear.weight"])  # fmt: skip
    kept = snapshot_of(made, 2)
    assert kept is not None
    assert "lara.lam.former.queries" in kept.files[WEIGHTS]


def aligned(batch: Batch) -> list[bool]:
    settings = recipe(lara=joint()).lara
    assert isinstance(settings, JointStage)
    return (scored_of(batch, settings, 1)[:, 3] > 0).tolist()


def test_only_the_policy_of_segments_that_may_teach_it_is_aligned() -> None:
    batch = global_batch(0)
    everything = dataclasses.replace(
        batch,
        has_later=torch.ones_like(batch.has_later),  # type: ignore[arg-type]
        may_teach=torch.ones(GLOBAL_BATCH, dtype=torch.bool),
        known=dataclasses.replace(batch.known, has_past=torch.ones_like(batch.known.has_past)),
    )
    is_policy = (batch.known.task == INDEX[Task.POLICY]).tolist()
    assert aligned(everything) == is_policy
    assert any(is_policy)
    assert not all(is_policy)
    for lacks in (
        {"may_teach": torch.zeros(GLOBAL_BATCH, dtype=torch.bool)},
        {"has_later": torch.zeros(GLOBAL_BATCH, 1, dtype=torch.bool)},
        {"known": dataclasses.replace(everything.known, has_past=torch.zeros_like(batch.known.has_past))},
    ):  # fmt: skip
        assert not any(aligned(dataclasses.replace(everything, **lacks)))  # type: ignore[arg-type]


@pytest.mark.parametrize("num_draws", [1, 3])
def test_counts_are_those_of_the_terms_and_what_is_not_counted_is_zero(num_draws: int) -> None:
    made, batch = with_joint(), global_batch(1)
    terms = terms_of(made, batch, num_draws)
    assert made.lara is not None
    assert torch.equal(terms.counts, scored_of(batch, made.lara.settings, num_draws))
    assert torch.equal(terms.sums != 0, terms.counts > 0)
    assert 0 < (terms.counts > 0).sum() < terms.counts.numel()


def test_actionless_video_trains_the_latent_action_model_alone() -> None:
    """Where forecasting has no weight: arm B of the fair test (`formats/exports.md` 7.3)."""
    none = dict.fromkeys(("policy", "inverse_dynamics", "forward_dynamics"), 1.0)
    made = trainer(recipe(lara=joint(weight_lam=1.0), loss_weights={**none, "visual_forecasting": 0}))  # fmt: skip
    batch = dataclasses.replace(global_batch(0), may_teach=torch.zeros(GLOBAL_BATCH, dtype=torch.bool))  # fmt: skip
    task = torch.full((GLOBAL_BATCH,), INDEX[Task.VISUAL_FORECASTING])
    made.step(dataclasses.replace(batch, known=dataclasses.replace(batch.known, task=task)), 0)
    moved = {n for n, p in made.learner.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved
    assert all(n.startswith("lara.lam.") for n in moved)


def test_with_weights_of_zero_the_policy_is_that_of_a_run_without() -> None:
    alone, beside = trainer(recipe()), trainer(recipe(lara=joint(weight_align=0.0, weight_lam=0.0)))
    for step in range(3):
        for made in (alone, beside):
            made.step(global_batch(step), step)
    both = weights(beside.learner)
    for name, value in weights(alone.learner).items():
        torch.testing.assert_close(both[name], value, rtol=1e-6, atol=1e-7, msg=name)
    aligned_too = trainer(recipe(lara=joint(weight_align=1.0)))
    aligned_too.step(global_batch(0), 0)
    assert not torch.equal(weights(aligned_too.learner)["network.merge.weight"], both["network.merge.weight"])  # fmt: skip


def test_the_loss_is_the_sum_that_the_recipe_says() -> None:
    made = trainer(recipe(lara=joint(weight_align=0.3, weight_lam=0.7)))
    done = made.step(global_batch(0), 0)
    assert done.lara is not None
    mean = (done.lara.sums.sum(0) / done.lara.counts.sum(0)).detach()
    by_hand = 0.7 * (mean[0] + mean[1] + 0.25 * mean[2]) + 0.3 * mean[3]
    assert done.lara_loss == pytest.approx(float(by_hand), rel=1e-5)
    alone = trainer(recipe()).step(global_batch(0), 0)
    whole = done.loss(made.recipe)
    assert whole == pytest.approx(alone.loss(recipe()) + done.lara_loss, rel=1e-5)


def test_the_log_knows_an_aligned_policy_from_a_collapsed_one() -> None:
    made = trainer(recipe(lara=joint()))
    told = LaraLog(8)
    stepped = made.step(global_batch(0), 0)
    assert stepped.lara is not None
    told.add(stepped.lara)
    line = told.means(made.ranks)["lara"]
    terms, counts = stepped.lara, stepped.lara.counts
    sums = terms.sums.detach()
    assert line["reconstruction"] == pytest.approx(float(sums[:, 0].sum() / counts[:, 0].sum()))
    assert line["copied"] == pytest.approx(float(terms.copied.sum() / counts[:, 0].sum()))
    assert line["cosine"] == pytest.approx(1 - float(sums[:, 3].sum() / counts[:, 3].sum()))
    assert 1 <= line["perplexity"] <= 8
    assert line["num_aligned"] == counts[:, 3].sum()
    told.reset()
    assert told.means(made.ranks) == {}


def structured(step: int) -> Batch:
    """A global batch of the policy alone, in which one of six changes happens to the picture: something that a latent action can tell."""
    batch = global_batch(step)
    changes = 2 * torch.randn(
        6, *batch.future.shape[1:], generator=torch.Generator().manual_seed(5)
    )
    which = torch.randint(6, (GLOBAL_BATCH,), generator=torch.Generator().manual_seed(999 + step))
    known = dataclasses.replace(
        batch.known,
        has_past=torch.ones_like(batch.known.has_past),
        task=torch.zeros(GLOBAL_BATCH, dtype=torch.long),
    )
    return dataclasses.replace(
        batch,
        known=known,
        later=batch.known.past[:, -1] + changes[which],
        has_later=torch.ones(GLOBAL_BATCH, 1, dtype=torch.bool),
        may_teach=torch.ones(GLOBAL_BATCH, dtype=torch.bool),
    )


def rank_after(num_steps: int, weight_lam: float) -> float:
    """Effective rank of latent actions, exp of the entropy of their squared singular values (Roy & Vetterli 2007), with alignment weight 1."""
    lara, optimiser = joint(weight_align=1.0, weight_lam=weight_lam), {"lr": 3e-3, "eps": 1e-8}
    made = trainer(recipe(lara=lara, num_steps=200, optimiser=optimiser))
    for step in range(num_steps):
        made.step(structured(step), step)
    with torch.no_grad():
        z = [terms_of(made.learner, structured(10_000 + i)).z.flatten(1) for i in range(8)]
    share = torch.linalg.svdvals(torch.cat(z)).square()
    return float(torch.special.entr(share / share.sum()).sum().exp())


@pytest.mark.slow
def test_alignment_alone_collapses_the_latent_actions_and_the_loss_of_their_own_keeps_them() -> (
    None
):
    """The mechanism, made visible on purpose: with weights of 0.01 nothing need collapse."""
    assert rank_after(0, 0.0) > 1.5
    assert rank_after(100, 0.0) < 1.1
    assert rank_after(200, 10.0) > 1.4


# --- one run ----------------------------------------------------------------------------------------------------------


def test_a_run_goes_on_to_the_bit_with_the_use_of_its_codes(tmp_path: Any) -> None:
    with_recipe = recipe(lara=joint(weight_align=0.5, weight_lam=0.5))
    whole, first = trainer(with_recipe), trainer(with_recipe)
    for step in range(4):
        whole.step(global_batch(step), step)
    for step in range(2):
        first.step(global_batch(step), step)
    kept = snapshot_of(first, 2)
    assert kept is not None
    write(tmp_path / "checkpoints", kept, keep=1)
    second = trainer(with_recipe, made=learner(seed=9, lara=with_recipe.lara))
    restore(second.learner, second.optimiser, None, newest(tmp_path))
    for step in range(2, 4):
        second.step(global_batch(step), step)
    one, two = kept_of(whole.learner), kept_of(second.learner)
    assert one.keys() == two.keys()
    assert "lara.lam.book.usage" in one
    for name, value in one.items():
        assert torch.equal(two[name], value), name


def lam_run(tmp_path: Any, **state: Any) -> Checkpoint:
    made = trainer(recipe(lara=joint()))
    kept = snapshot_of(made, 1)
    assert kept is not None
    kept.files[WEIGHTS] |= {k: v for k, v in state.items() if isinstance(v, Tensor)}
    write(tmp_path / "checkpoints", kept, keep=1)
    return newest(tmp_path)


def test_a_latent_action_model_of_another_run_is_taken_over(tmp_path: Any) -> None:
    begun = lam_run(tmp_path)
    made = learner(seed=5, lara=recipe(lara=joint()).lara)
    assert made.lara is not None
    restore_latent_actions(made.lara, begun, encoder_id="", recipe=recipe(lara=joint()))
    theirs = begun.tensors()
    for name, value in made.lara.lam.state_dict().items():
        assert torch.equal(value, theirs[f"lara.lam.{name}"])
    assert not torch.equal(
        made.lara.projector.linear.weight, theirs["lara.projector.linear.weight"]
    )  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"lara": joint(lam={**LAM, "num_heads": 4})}, "num_heads 2, and this recipe says 4"),
        ({"lara": joint(future_s=0.9)}, "future_s 1.5, and this recipe says 0.9"),
        ({"data": {"cameras": ["wrist", "front"]}}, r"cameras \['\*'\], and this recipe says"),
    ],
)
def test_a_latent_action_model_of_other_pairs_is_refused_though_its_shapes_fit(
    changed: dict[str, Any], named: str, tmp_path: Any
) -> None:
    begun = lam_run(tmp_path)
    page = recipe(lara=joint()).model_dump()
    for key, value in changed.items():
        page[key] = page[key] | value if key == "data" else value
    ours = TrainRecipe.model_validate(page)
    made = learner(lara=ours.lara)
    assert made.lara is not None
    with pytest.raises(ConfigError, match=named):
        restore_latent_actions(made.lara, begun, encoder_id="", recipe=ours)


def test_a_latent_action_model_that_does_not_fit_is_refused(tmp_path: Any) -> None:
    like = recipe(lara=joint())
    made = learner(lara=like.lara)
    assert made.lara is not None
    begun = lam_run(tmp_path / "other")
    with pytest.raises(
        ConfigError, match="latent action model is of encoder ; the manifest's latents are of dino"
    ):
        restore_latent_actions(made.lara, begun, encoder_id="dino", recipe=like)
    wider = recipe(lara=joint(lam={"width": 32, "num_heads": 2})).lara
    other = learner(lara=wider)
    with pytest.raises(ConfigError, match="other shapes"):
        restore_latent_actions(other.lara, begun, encoder_id="", recipe=like)  # type: ignore[arg-type]
    collapsed = torch.tensor([1.0, 0, 0, 0, 0, 0, 0, 0])
    begun = lam_run(tmp_path / "collapsed", **{"lara.lam.book.usage": collapsed})
    with pytest.raises(ConfigError, match=r"code book collapsed: 1\.00 of 8 codes"):
        restore_latent_actions(made.lara, begun, encoder_id="", recipe=like)
    kept = snapshot_of(trainer(recipe()), 1)
    assert kept is not None
    write(tmp_path / "without" / "checkpoints", kept, keep=1)
    with pytest.raises(ConfigError, match="no latent action model"):
        restore_latent_actions(made.lara, newest(tmp_path / "without"), encoder_id="", recipe=like)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"lara": {"kind": "joint", "after_block": 17}}, "after_block is 17; the network has 16"),
        ({"lara": {"kind": "joint", "action": 16}}, "a chunk has 16 actions"),
        ({"lara": {"kind": "joint", "lam": {"width": 30, "num_heads": 4}}}, "not divisible"),
    ],
)
def test_an_alignment_that_does_not_exist_is_refused(changed: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        TrainRecipe.model_validate({"name": "x", **changed})


def test_a_recipe_without_lara_has_the_digest_of_before() -> None:
    assert (
        load_recipe("lda_1b").digest()
        == "8b3263e24cfa97c8a13bf3bf4fef0368c33669cdde1cbd36168839f1bba53fd4"
    )  # of 0257c9b
    assert load_recipe("lara_joint").digest() != load_recipe("lda_1b", {"run": {"num_steps": 200000, "batch_size": 384}}).digest()  # fmt: skip


# --- data and sizes ---------------------------------------------------------------------------------------------------


def test_the_later_picture_is_that_of_its_time_in_the_segment(
    trainable: Trainable, manifest: Manifest
) -> None:
    lara = {"kind": "joint", "after_block": 1, "future_s": 0.9}
    made = loader(manifest, loader_recipe(lara=lara))
    seen = set()
    numbers = {uid: number for number, uid in trainable.uids.items()}
    for batch in made.every(Task.VISUAL_FORECASTING, batch_size=50, num_samples=60):
        assert batch.later is not None
        assert batch.has_later is not None
        assert batch.may_teach is not None
        for b, (index, now, _) in enumerate(addresses(batch)):
            row = manifest.row(index)
            inside = now + 9 < row.end
            assert bool(batch.has_later[b, 0]) == inside
            assert bool(batch.may_teach[b]) == (row.tier == "high")
            seen.add((inside, row.tier))
            if inside:
                wanted = tokens_of(numbers[row.uid], "front")[now + 9, NUM_PREFIX:]
                np.testing.assert_allclose(batch.later[b, :NUM_PATCHES].float(), wanted, atol=0.01)
    assert {inside for inside, _ in seen} == {True, False}
    assert len({tier for _, tier in seen}) == 3


def test_a_time_off_the_grid_of_pictures_is_refused(manifest: Manifest) -> None:
    with pytest.raises(ConfigError, match="offset 1 s is not a multiple"):
        loader(manifest, loader_recipe(lara={"kind": "joint", "after_block": 1, "future_s": 1.0}))


def test_sizes_are_those_of_the_release() -> None:
    """M-Former 29.46 M and decoder 91.1 M for ViT-MAE-Large's 197 x 1024 (`formats/exports.md` 7.1); the decoder of pixels has another last layer."""
    with torch.device("meta"):
        made = LatentActionModel(
            LatentActionSettings(decoder_layers=12),
            PictureShape(num_views=1, num_patches=197, latent_width=1024),
        )
    parts = made.num_parameters()
    assert parts["former"] == pytest.approx(29.46e6, rel=0.02)
    assert parts["decoder"] == pytest.approx(91.1e6, rel=0.02)
    assert parts["book"] == 128 * 32
