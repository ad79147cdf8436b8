"""The evaluation over a corpus whose motions are known, with networks that know everything, or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from schemas import manifest as manifests
from schemas.errors import ConfigError
from schemas.supervision import Task
from tests.training.corpus import Trainable, body_of, poses_of, tokens_of
from tests.training.tiny import ScriptedNetwork
from training.batch import Batch
from training.conditioning.hashed_words import NoTextConditioner, NoTextReader
from training.data.action_layout import slot_names
from training.data.loader import Loader
from training.evaluation import draws
from training.evaluation.accumulate import Group
from training.evaluation.errors import image_errors
from training.evaluation.evaluate import Evaluation, means_of
from training.evaluation.examples import FORECAST, KNOWING, NOW, TRUE, Shown, colours, shown_of
from training.evaluation.summary import EVERY, compared, lines
from training.flow import sampled
from training.learner import Learner
from training.model.network import KnownInputs
from training.model.text import Text, equal_lengths
from training.recipe import TrainRecipe
from training.tasks import INDEX, TASKS

CPU = torch.device("cpu")
ENCODER = "tiny_vit"
NUM_ACTIONS = 6


class Knowing(ScriptedNetwork):
    """Leads from any noise straight to `batch`, whatever it is asked; `sign` -1 runs away from it."""

    def __init__(self, sign: float = 1.0) -> None:
        super().__init__()
        self.batch: Batch | None = None
        self.sign = sign
        self.asked: list[KnownInputs] = []

    def velocities(
        self, known: KnownInputs, action: Tensor, future: Tensor, t: Tensor
    ) -> tuple[Tensor, Tensor]:
        assert self.batch is not None
        self.asked.append(known)
        left = (1 - t)[:, None, None] * self.sign
        return (self.batch.action - action) / left, (self.batch.future - future) / left


@pytest.fixture(scope="module")
def loader(trainable: Trainable) -> Loader:
    recipe = TrainRecipe.model_validate(
        {
            "name": "test",
            "data": {
                "encoder": ENCODER,
                "cameras": ["front", "wrist"],
                "num_actions": NUM_ACTIONS,
                "num_history": 3,
                "future_s": 0.3,
            },
        }
    )
    return Loader(manifests.load(trainable.manifest), recipe, reader=NoTextReader(), split="train")


def evaluation_of(
    loader: Loader, network: nn.Module, trained: Sequence[Task] = TASKS
) -> Evaluation:
    learner = Learner(network, NoTextConditioner())  # type: ignore[arg-type]
    statistics = loader.manifest.facts.statistics
    assert statistics is not None
    means = means_of(statistics, loader.embodiments)
    sampler = draws.Sampler(learner=learner, precision="fp32", num_steps=4)
    return Evaluation(sampler, loader.normaliser, means, trained=trained)


def groups_of(loader: Loader, batch: Batch) -> list[Group]:
    rows = [loader.manifest.row(int(r)) for r in batch.origin.row]
    return [Group(row.embodiment, row.tier, row.uid) for row in rows]


def scored(loader: Loader, network: Knowing, batch_size: int = 64) -> Evaluation:
    found = evaluation_of(loader, network)
    for task in TASKS:
        for batch in loader.every(task, batch_size=batch_size):
            network.batch = batch
            found.add(batch, groups_of(loader, batch), task)
    return found


@pytest.fixture(scope="module")
def knowing(loader: Loader) -> Evaluation:
    return scored(loader, Knowing())


def test_who_knows_everything_is_never_wrong(knowing: Evaluation) -> None:
    found = lines(knowing.tally)
    assert {line.task for line in found} == {task.value for task in TASKS}
    for line in found:
        assert line.model.value == pytest.approx(0, abs=2e-5), line
        assert all(skill.value > 0.99 for skill in line.skill.values() if skill.value), line
    over_all = {(x.task, x.metric) for x in found if x.embodiment == EVERY and x.tier == EVERY}
    assert over_all >= {
        ("policy", "position_l1_m"),
        ("policy", "rotation_rad"),
        ("policy", "gripper_l1"),
        ("policy", "normalised_l1"),
        ("forward_dynamics", "latent_l2"),
        ("visual_forecasting", "latent_cosine_distance"),
    }
    said = {name: each.answer for name, each in compared(found).items()}
    assert said.pop("forward_dynamics_without_action") == "nothing to compare"  # perfect too
    assert set(said.values()) == {"better"}


def test_time_runs_from_noise_to_data(loader: Loader) -> None:
    found = compared(lines(scored(loader, Knowing(sign=-1.0)).tally))
    assert found.pop("zero_action_rotation").is_better is not None
    assert not any(each.is_better for each in found.values())


def test_what_was_constant_in_training_is_measured_as_it_is(loader: Loader) -> None:
    """A gripper that was never seen to move comes back as where it was; where it is now is still the truth."""
    made = evaluation_of(loader, network := Knowing())
    scale = made.normaliser.scale.clone()
    scale[:, slot_names().index("left.gripper_opening")] = 0
    made.normaliser = replace(made.normaliser, scale=scale)
    batch = next(loader.every(Task.POLICY, batch_size=64))
    network.batch = batch
    made.add(batch, groups_of(loader, batch), Task.POLICY)
    found = {x.metric: x.model.value for x in lines(made.tally) if x.embodiment == EVERY}
    assert found["gripper_l1"] > 0.05
    assert found["position_l1_m"] == pytest.approx(0, abs=2e-5)


def number_of(trainable: Trainable, uid: str) -> int:
    return next(number for number, each in trainable.uids.items() if each == uid)


def test_staying_is_as_wrong_as_the_hand_moves(
    trainable: Trainable, loader: Loader, knowing: Evaluation
) -> None:
    """From the raw poses of the corpus, in metres, by a loop: no normaliser, no layout, no motions."""
    total, count = np.zeros((2, NUM_ACTIONS))
    for batch in loader.every(Task.POLICY, batch_size=64):
        for row, t in zip(batch.origin.row, batch.origin.timestep, strict=True):
            segment = loader.manifest.row(int(row))
            number = number_of(trainable, segment.uid)
            if body_of(number) != "umi" or number == 2:  # not achieved; poses nobody believes
                continue
            T = poses_of(number)
            last = min(int(t) + NUM_ACTIONS, segment.end, len(T) - 1) - int(t)
            for k in range(last):
                moved = np.linalg.inv(T[t]) @ T[t + k + 1]
                total[k], count[k] = total[k] + np.abs(moved[:3, 3]).mean(), count[k] + 1
    tally, odd = knowing.tally, trainable.uids[2]
    keep = [p for g, p in tally.groups.items() if g.embodiment == "umi" and g.uid != odd]
    found = tally.columns["policy/stay/position_l1_m"]
    found.reach(len(tally.groups))
    assert count.min() > 20
    np.testing.assert_array_equal(found.count[keep].sum(axis=0), count)
    np.testing.assert_allclose(found.total[keep].sum(axis=0), total, rtol=1e-4)


def test_a_copy_is_as_wrong_as_the_picture_changes(
    trainable: Trainable, loader: Loader, knowing: Evaluation
) -> None:
    total, count = 0.0, 0
    for batch in loader.every(Task.VISUAL_FORECASTING, batch_size=64):
        for row, t in zip(batch.origin.row, batch.origin.timestep, strict=True):
            number = number_of(trainable, loader.manifest.row(int(row)).uid)
            for camera in ("front", "wrist")[: 2 if body_of(number) == "umi" else 1]:
                tokens = torch.from_numpy(tokens_of(number, camera)).bfloat16().double().numpy()
                apart = np.linalg.norm(tokens[t + 3, 1:] - tokens[t, 1:], axis=1)
                total, count = total + apart.sum(), count + len(apart)
    found = knowing.tally.of("visual_forecasting/copy/latent_l2")
    assert found.count.sum() == count
    assert found.mean() == pytest.approx(total / count, rel=1e-5)


def test_only_what_may_be_scored_is(loader: Loader, knowing: Evaluation) -> None:
    """Policy only of high segments; inverse dynamics only up to the future picture; videos only forecast."""
    tally = knowing.tally
    assert tally.of("policy/model/position_l1_m", tier="low").num_episodes == 0
    assert tally.of("policy/model/position_l1_m", tier="high").num_episodes > 0
    inverse = tally.of("inverse_dynamics/model/position_l1_m").by_step()
    assert [v is not None for v in inverse] == [True, True, True, False, False, False]
    videos = tally.of("visual_forecasting/model/latent_l2", embodiment="human_video")
    assert videos.num_episodes > 0
    for task in ("policy", "inverse_dynamics", "forward_dynamics"):
        metric = "latent_l2" if task == "forward_dynamics" else "normalised_l1"
        assert tally.of(f"{task}/model/{metric}", embodiment="human_video").num_episodes == 0


def test_scores_do_not_depend_on_batches(loader: Loader, knowing: Evaluation) -> None:
    other = scored(loader, Knowing(), batch_size=5)
    assert set(other.tally.columns) == set(knowing.tally.columns)
    for name in other.tally.columns:
        a, b = other.tally.of(name), knowing.tally.of(name)
        np.testing.assert_array_equal(a.count, b.count)
        np.testing.assert_allclose(a.total, b.total, rtol=1e-5, atol=1e-3)


def test_each_task_is_asked_as_itself_from_the_same_noise(loader: Loader) -> None:
    network = Knowing()
    found = evaluation_of(loader, network)
    batch = next(loader.every(Task.FORWARD_DYNAMICS, batch_size=8))
    network.batch = batch
    found.add(batch, groups_of(loader, batch), Task.FORWARD_DYNAMICS)
    asked = [int(known.task[0]) for known in network.asked]
    assert asked == [INDEX[Task.FORWARD_DYNAMICS]] * 4 + [INDEX[Task.VISUAL_FORECASTING]] * 4
    a = draws.noise_of(batch.origin, (3,), seed=0, place=0)
    again = draws.noise_of(
        SimpleNamespace(row=batch.origin.row[2:4], timestep=batch.origin.timestep[2:4]),  # type: ignore[arg-type]
        (3,),
        seed=0,
        place=0,
    )
    torch.testing.assert_close(a[2:4], again)
    assert (a != draws.noise_of(batch.origin, (3,), seed=0, place=1)).all()
    assert (a != draws.noise_of(batch.origin, (3,), seed=1, place=0)).all()


def test_a_task_that_was_not_trained_is_no_baseline(loader: Loader) -> None:
    """What an action is worth cannot be told by a network that never learned to do without."""
    trained = [Task.POLICY, Task.FORWARD_DYNAMICS]
    found = evaluation_of(loader, network := Knowing(), trained=trained)
    batch = next(loader.every(Task.FORWARD_DYNAMICS, batch_size=8))
    network.batch = batch
    found.add(batch, groups_of(loader, batch), Task.FORWARD_DYNAMICS)
    assert "forward_dynamics/copy/latent_l2" in found.tally.columns
    assert "forward_dynamics/without_action/latent_l2" not in found.tally.columns


@pytest.mark.parametrize("num_workers", [1, 3])
def test_batches_that_are_read_ahead_are_the_same_and_end(loader: Loader, num_workers: int) -> None:
    places = loader.places(Task.POLICY, 23)
    ahead = list(loader.at(places, batch_size=4, num_workers=num_workers))
    plain = list(loader.every(Task.POLICY, batch_size=4, num_samples=23))
    assert [len(batch.origin.row) for batch in ahead] == [4, 4, 4, 4, 4, 3]
    for a, b in zip(ahead, plain, strict=True):
        np.testing.assert_array_equal(a.origin.timestep, b.origin.timestep)
        torch.testing.assert_close(a.action, b.action, rtol=0, atol=0)
        torch.testing.assert_close(a.stored, b.stored, rtol=0, atol=0)


def test_what_a_body_does_not_have_is_not_asked(loader: Loader) -> None:
    """It stays 0 from the first step to the last, as in training; rows past the end are asked for."""
    seen: list[Tensor] = []

    class Noisy(Knowing):
        def forward(self, *args: Any, **options: Any) -> tuple[Tensor, Tensor]:
            seen.append(args[2])
            return torch.ones_like(args[2]), args[4]

    network = Noisy()
    batch = list(loader.every(Task.POLICY, batch_size=64))[-1]
    said = evaluation_of(loader, network).chunk(
        batch, Text(values=torch.zeros(0, 1), layout=equal_lengths(0, 0)), Task.POLICY
    )
    has = batch.has_action.any(dim=1)
    assert not batch.has_action[:, -1].any(dim=1).all()  # some end within the chunk
    for x in (*seen, said):
        assert (x.abs().sum(dim=1) > 0).eq(has).all()
        assert (x[:, -1][has] != 0).all()


def test_four_steps_find_the_mean_and_too_little_spread() -> None:
    """Data N(2, 0.5^2), the best possible velocity: each Euler step multiplies the noise by 1 + c(t) / (4 v(t)), with v = (1 - t)^2 + (t s)^2 and
    c = t s^2 - (1 - t): 0.75, 0.7027, 0.7, 0.9231. So four steps give the right mean and a spread of 0.3406 in place of 0.5."""
    mean, s = 2.0, 0.5

    def best(x: Tensor, t: Tensor) -> Tensor:
        t = t[:, None]
        return mean + (t * s**2 - (1 - t)) / ((1 - t) ** 2 + (t * s) ** 2) * (x - t * mean)

    noise = torch.randn(50_000, 1, generator=torch.Generator().manual_seed(0)).double()
    four, one = (sampled(noise, best, num_steps=n) for n in (4, 1))
    assert four.mean().item() == pytest.approx(mean, abs=0.01)
    assert four.std().item() == pytest.approx(0.3406, abs=0.005)
    torch.testing.assert_close(one, torch.full_like(one, mean))  # one step is the mean itself


def test_latents_by_hand() -> None:
    known = SimpleNamespace(has_past=torch.tensor([[[True, True]], [[True, False]]]))
    future = torch.tensor([[[1.0, 0], [0, 2]], [[3.0, 4], [9, 9]]])
    batch = SimpleNamespace(known=known, future=future, has_future=torch.tensor([[True, False], [True, True]]))  # fmt: skip
    said = torch.tensor([[[0.0, 1], [50, 50]], [[3.0, 0], [50, 50]]])
    found = image_errors(said, batch)  # type: ignore[arg-type]
    assert found["latent_l2"].total[:, 0].tolist() == pytest.approx([2**0.5, 4.0])
    assert found["latent_cosine_distance"].total[:, 0].tolist() == pytest.approx([1.0, 0.4])
    assert found["latent_l2"].count[:, 0].tolist() == [1, 1]


def test_colours_are_those_of_the_true_tokens() -> None:
    """Tokens along three directions of falling spread: red follows the widest one, and what is alike has one colour."""
    rng = np.random.default_rng(0)
    values = rng.uniform(-1, 1, size=(2, 20, 20, 3)) * [9, 3, 1]
    mix = np.linalg.qr(rng.normal(size=(7, 7)))[0][:3]
    shown = Shown(patches={TRUE: values @ mix + 5, NOW: (values * [1, 0, 0]) @ mix + 5}, names=["a", "b"])  # fmt: skip
    found = colours(shown)
    assert found[TRUE].min() == 0
    assert found[TRUE].max() == 1
    red = found[TRUE][..., 0].ravel()
    assert abs(np.corrcoef(red, values[..., 0].ravel())[0, 1]) > 0.99
    assert found[NOW][..., 1].std() < 0.2 * found[TRUE][..., 1].std()
    flat = Shown(patches={TRUE: np.ones((1, 2, 2, 7))}, names=["a"])
    assert np.isfinite(colours(flat)[TRUE]).all()


def test_samples_to_look_at(loader: Loader) -> None:
    network = Knowing()
    network.batch = next(loader.every(Task.FORWARD_DYNAMICS, batch_size=3, num_samples=3))
    shown = shown_of(loader, evaluation_of(loader, network), list(TASKS), 3, CPU)
    assert shown is not None
    assert list(shown.patches) == [NOW, TRUE, FORECAST, KNOWING]
    assert {p.shape for p in shown.patches.values()} == {(3, 2, 3, 8)}
    np.testing.assert_allclose(shown.patches[FORECAST], shown.patches[TRUE], atol=1e-4)
    assert shown_of(loader, evaluation_of(loader, network), [Task.POLICY], 3, CPU) is None


def test_a_split_with_nothing_in_it_is_said(trainable: Trainable, tmp_path: Path) -> None:
    recipe = TrainRecipe.model_validate({"name": "test", "data": {"encoder": ENCODER, "future_s": 30.0}})  # fmt: skip
    manifest = manifests.load(trainable.manifest)
    made = Loader(manifest, recipe, reader=NoTextReader(), split="val", cache=tmp_path)
    assert not list(made.every(Task.VISUAL_FORECASTING, batch_size=4))
    with pytest.raises(ConfigError, match="no sample"):
        Loader(manifest, recipe, reader=NoTextReader(), split="nosuch", cache=tmp_path)
