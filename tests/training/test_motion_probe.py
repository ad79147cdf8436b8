"""The probe of latent actions: displacement against SciPy, ridge against the normal equations, and that it tells knowledge from none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.spatial.transform import Rotation

from schemas.errors import ConfigError
from schemas.manifest import Manifest
from schemas.supervision import Task
from tests.training.corpus import Trainable, body_of, poses_of
from tests.training.loader_cases import loader
from tests.training.loader_cases import recipe as loader_recipe
from training.evaluation.motion_probe import (
    FEATURES,
    ProbeSamples,
    displacement_m,
    probed,
    ridge,
    samples_of,
)
from training.lara.lara import Lara
from training.lara.latent_action import LatentActionModel, PictureShape
from training.lara.settings import JointStage, LatentActionSettings

Array = npt.NDArray[np.float64]
SMALL = LatentActionSettings(width=32, num_heads=2, num_layers=2, decoder_layers=2, num_queries=2, code_width=8, num_codes=16)  # fmt: skip


def test_a_displacement_is_that_of_composed_poses() -> None:
    rng = np.random.default_rng(0)
    motions = rng.normal(size=(5, 7, 6)) * 0.4
    for each, said in zip(motions, displacement_m(motions), strict=True):
        T = np.eye(4)
        for step in each:
            move = np.eye(4)
            move[:3, :3], move[:3, 3] = Rotation.from_rotvec(step[3:]).as_matrix(), step[:3]
            T = T @ move
        np.testing.assert_allclose(said, T[:3, 3], atol=1e-12)


def test_ridge_is_the_normal_equations_with_the_penalty_that_folds_choose() -> None:
    rng = np.random.default_rng(1)
    x, noise = rng.normal(size=(60, 4)), rng.normal(size=(60, 2)) * 0.1
    y = x @ rng.normal(size=(4, 2)) + 3 + noise
    at = rng.normal(size=(5, 4))
    said = ridge(x, y, np.arange(60) // 6, at)
    z, w = (x - x.mean(0)) / x.std(0), (at - x.mean(0)) / x.std(0)
    by_hand = [
        y.mean(0) + w @ np.linalg.solve(z.T @ z + alpha * np.eye(4), z.T @ (y - y.mean(0)))
        for alpha in (0.001, 0.01, 0.1, 1.0)
    ]
    assert min(np.abs(said - each).max() for each in by_hand) < 1e-9


def made_up(knows: float, seed: int, num: int = 200) -> ProbeSamples:
    """Samples whose latent action has this share of the target, and whose other features have nothing."""
    rng = np.random.default_rng(seed)
    target = rng.normal(size=(num, 6)) * 0.1
    features = {name: rng.normal(size=(num, 6)) for name in FEATURES if name != "nothing_moves"}
    features["latent_action"] = knows * target * 10 + (1 - knows) * features["latent_action"]
    return ProbeSamples(
        features=features,
        target=target,
        has=np.ones((num, 6), bool),
        body=np.zeros(num, np.int64),
        episode=np.arange(num) // 10,
        sums=np.array([1.0, 3.0, 2.0]),
        code=np.tile([0, 1, 2, 3], num // 2),
    )


def test_a_probe_tells_knowledge_from_none() -> None:
    said = probed(made_up(1.0, 0), made_up(1.0, 1), num_codes=8)
    assert said.r2["latent_action"].value > 0.99
    for name in ("code", "random_code", "picture_of_now"):
        assert abs(said.r2[name].value) < 0.1
        low, high = said.r2[name].low, said.r2[name].high
        assert low is not None
        assert high is not None
        assert low <= said.r2[name].value <= high
    assert said.r2["nothing_moves"].value == pytest.approx(0, abs=0.05)
    assert probed(made_up(0.0, 0), made_up(0.0, 1), num_codes=8).r2["latent_action"].value < 0.1
    assert (said.reconstruction, said.reconstruction_with_other) == (0.5, 1.5)
    assert said.perplexity == pytest.approx(4)
    assert (said.num_fitted, said.num_scored, said.num_episodes) == (200, 200, 20)


def test_one_episode_is_too_few() -> None:
    with pytest.raises(ConfigError, match="no body has 2 episodes"):
        probed(made_up(1.0, 0), made_up(1.0, 1, num=8), num_codes=8)


def test_samples_are_whole_motions_to_the_later_picture(
    trainable: Trainable, manifest: Manifest
) -> None:
    lara = {"kind": "joint", "after_block": 1, "future_s": 0.9, "lam": SMALL.model_dump()}
    made = loader(manifest, loader_recipe(lara=lara))
    settings = made.recipe.lara
    assert isinstance(settings, JointStage)
    s = made.shapes()
    shape = PictureShape(num_views=s.num_views, num_patches=s.num_patches, latent_width=s.latent_width)  # fmt: skip
    torch.manual_seed(0)
    model = Lara(settings, shape, change_std=1.0, policy_width=None)
    found = samples_of(made, model, max_samples=None, batch_size=16, device=torch.device("cpu"))
    numbers = {uid: number for number, uid in trainable.uids.items()}
    places = made.places(Task.FORWARD_DYNAMICS)
    rows = made.draws.anchors.segments["row"][places.segment]
    each = [(numbers[manifest.row(int(r)).uid], int(now), now + 9 < manifest.row(int(r)).end) for r, now in zip(rows, places.now, strict=True)]  # fmt: skip
    kept = [(number, now) for number, now, is_inside in each if is_inside]
    assert len(found.target) <= len(kept) < len(each)
    # Of the bodies with one hand, all of whose poses are believed: in order.
    chosen = [(number, now) for number, now in kept if body_of(number) == "umi" and number != 2]
    poses = {number: poses_of(number) for number, _ in chosen}
    wanted = np.array([(np.linalg.inv(poses[n][now]) @ poses[n][now + 9])[:3, 3] for n, now in chosen])  # fmt: skip
    told = np.sort(np.linalg.norm(found.target[:, :3], axis=1))
    for size in np.linalg.norm(wanted, axis=1):  # the stored hand has other axes than the source's
        assert np.abs(told - size).min() < 1e-5
    assert len(chosen) > 20


@pytest.mark.slow
def test_a_latent_action_model_learns_what_the_picture_of_now_does_not_tell() -> None:
    """One of six changes happens: with its own codes it says which, with another sample's it is worse than saying nothing."""
    torch.manual_seed(0)
    made = LatentActionModel(SMALL, PictureShape(num_views=1, num_patches=6, latent_width=8))
    changes, has = torch.randn(6, 6, 8), torch.ones(64, 6, dtype=torch.bool)
    optimiser = torch.optim.AdamW(made.parameters(), lr=2e-3)
    own = other = copied = 0.0
    for step in range(600):
        now = torch.randn(64, 6, 8)
        change = changes[torch.randint(6, (64,))]
        said = made(now, now + change, has)
        quantised = said.quantised
        vectors = (quantised.codebook + 0.25 * quantised.commitment).sum() / (64 * 16)
        optimiser.zero_grad()
        ((said.change - change).square().mean() + vectors).backward()
        torch.nn.utils.clip_grad_norm_(made.parameters(), 1.0)
        optimiser.step()
        with torch.no_grad():
            z, code = said.z.detach().flatten(0, 1), quantised.code.flatten()
            made.book.codes.copy_(made.book.moved_codes(made.book.codes.detach(), z, code, seed=0, step=step))  # fmt: skip
            if step >= 580:
                own += (said.change - change).square().mean().item()
                strange = made.decoder(now, quantised.values.roll(1, 0))
                other += (strange - change).square().mean().item()
                copied += change.square().mean().item()
    assert own < 0.3 * copied
    assert other > copied


@pytest.mark.parametrize("still", ["hands", "pictures"])
def test_of_what_never_changes_no_share_is_told(still: str) -> None:
    """Else the page would hold NaN, which is no JSON."""
    fitted, scored = made_up(0.5, 0), made_up(0.5, 1)
    if still == "hands":
        fitted, scored = (
            replace(each, target=np.zeros_like(each.target)) for each in (fitted, scored)
        )
    else:
        scored = replace(scored, sums=np.zeros(3))
    with pytest.raises(ConfigError, match="no hand moves"):
        probed(fitted, scored, num_codes=8)
