"""Planning where the best chunk is known by hand: a network whose actions are its noise, and whose future image is where the actions lead."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from schemas.errors import ConfigError
from schemas.supervision import Task
from tests.training.tiny import SETTINGS, ScriptedNetwork, batch, chosen, network, text_of
from training.conditioning.hashed_words import NoTextConditioner
from training.evaluation.draws import Sampler, asked
from training.learner import Learner
from training.model.network import KnownInputs
from training.model.text import Text
from training.policy.plan import Planner, check_can_plan, repeated
from training.recipe import TrainRecipe
from training.tasks import INDEX

NUM = 7


class Pusher(ScriptedNetwork):
    """The chunk is the noise it starts from. Under forward dynamics every number of the future image is the sum of the chunk's first element, whatever
    noise the image has; under another task it is the noise."""

    def __init__(self) -> None:
        super().__init__()
        self.settings = SETTINGS
        self.place = nn.Parameter(torch.zeros(1))
        self.num_passes = 0
        self.sizes: set[int] = set()

    def velocities(
        self, known: KnownInputs, action: Tensor, future: Tensor, t: Tensor
    ) -> tuple[Tensor, Tensor]:
        self.num_passes += 1
        self.sizes.add(len(action))
        where = action[..., 0].sum(dim=1)[:, None, None].expand_as(future)
        is_forward = (known.task == INDEX[Task.FORWARD_DYNAMICS])[:, None, None]
        velocity = torch.where(is_forward, (where - future) / (1 - t)[:, None, None], 0.0)
        return torch.zeros_like(action), velocity


def near(goal: float) -> Any:
    """A value head that likes images whose numbers are near `goal`."""

    def value(future: Tensor, has_future: Tensor, text: Text, state: Tensor | None) -> Tensor:
        return -(future.mean(dim=(1, 2)) - goal).abs()

    return value


def planner_of(model: nn.Module, value: Any, *, num: int = NUM, seed: int = 0) -> Planner:
    learner = Learner(model, NoTextConditioner()).eval()  # type: ignore[arg-type]
    sampler = Sampler(learner=learner, precision="fp32", num_steps=2)
    first = torch.randn(1, SETTINGS.num_actions, SETTINGS.action_width)
    noise = first if isinstance(model, Pusher) else torch.zeros_like(first)
    return Planner(sampler, value, noise=noise, num_chunks=num, seed=seed)


def inputs_of(size: int = 3) -> tuple[KnownInputs, Text, dict[str, Tensor]]:
    made = batch([INDEX[Task.POLICY]] * size)
    known = replace(made.known, has_past=torch.ones_like(made.known.has_past))
    scored = torch.ones_like(made.has_action)
    return known, text_of(made), {"future": torch.zeros_like(made.future), "scored": scored}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(5)


@pytest.mark.parametrize("goal", [-3.0, 0.5, 4.0])
def test_the_chunk_that_leads_nearest_to_the_goal_is_chosen(goal: float) -> None:
    planner = planner_of(Pusher(), near(goal))
    known, text, more = inputs_of()
    planned = planner.chosen(known, text, **more)
    ends = planner.noise[..., 0].sum(dim=1)  # where each candidate leads
    best = int((ends - goal).abs().argmin())
    assert planned.values.shape == (3, NUM)
    torch.testing.assert_close(planned.values[0], -(ends - goal).abs())
    for action in planned.action:
        torch.testing.assert_close(action, planner.noise[best])
    # A sign mistake in the values would choose the worst.
    assert best != int((ends - goal).abs().argmax())


def test_goals_far_apart_choose_different_chunks() -> None:
    known, text, more = inputs_of()
    model = Pusher()
    low, high = (
        planner_of(model, near(goal)).chosen(known, text, **more).action[0] for goal in (-99, 99)
    )
    assert low[:, 0].sum() < high[:, 0].sum()


def test_all_chunks_of_all_observations_are_one_batch() -> None:
    model = Pusher()
    known, text, more = inputs_of(3)
    planner_of(model, near(0.0)).chosen(known, text, **more)
    assert model.num_passes == 2 * 2  # Euler steps of actions, and of images
    assert model.sizes == {3 * NUM}


def test_fewer_candidates_are_the_first_of_more_and_a_seed_gives_the_same() -> None:
    first = torch.randn(1, SETTINGS.num_actions, SETTINGS.action_width)
    sampler = planner_of(Pusher(), near(0.0)).sampler

    def noise(num: int, seed: int) -> Tensor:
        return Planner(sampler, near(0.0), noise=first, num_chunks=num, seed=seed).noise

    assert noise(3, 1).equal(noise(8, 1)[:3])
    assert noise(8, 1)[0].equal(first[0])
    assert not noise(3, 1)[1:].equal(noise(3, 2)[1:])
    assert len({tuple(each.flatten().tolist()) for each in noise(8, 1)}) == 8


def test_a_network_gives_each_candidate_what_it_gives_it_alone() -> None:
    """Text that observations share, masks and states land with the observation that they are of."""
    model = network(state_width=4)
    s = model.settings
    planner = planner_of(model, lambda future, has, text, state: future.mean(dim=(1, 2)), num=4)
    made = batch([INDEX[Task.POLICY]] * 3, s=s)
    text, future = text_of(made), torch.zeros_like(made.future)
    scored = made.asked[:, None].expand_as(made.has_action)
    with torch.no_grad():
        planned = planner.chosen(made.known, text, future=future, scored=scored)
        for b in range(3):
            one = SimpleNamespace(known=repeated(made.known, 1))
            known = KnownInputs(
                **{
                    name: None if (x := getattr(one.known, name)) is None else x[b : b + 1]
                    for name in KnownInputs.__dataclass_fields__
                }
            )
            words = chosen(text, [b])
            for n in range(4):
                alone = planner.sampler.action(
                    known,
                    words,
                    future=future[b : b + 1],
                    scored=scored[b : b + 1],
                    noise=planner.noise[n : n + 1],
                )
                torch.testing.assert_close(alone[0], planned.candidates[b, n], atol=1e-5, rtol=1e-4)
                image = planner.sampler.future(
                    asked(known, Task.FORWARD_DYNAMICS),
                    words,
                    action=alone,
                    has_action=scored[b : b + 1],
                    noise=planner.image_noise[None],
                    has_future=known.has_past[:, -1],
                )
                torch.testing.assert_close(image.mean(), planned.values[b, n], atol=1e-5, rtol=1e-4)
    best = planned.values.argmax(dim=1)
    assert planned.action.equal(planned.candidates[torch.arange(3), best])
    assert len(np.unique(planned.values.numpy().round(5))) > 4  # chunks differ, so do their images


@pytest.mark.parametrize(
    "change",
    [
        {"routing": {"shares": {"policy": 1}}},
        {"run": {"loss_weights": {"forward_dynamics": 0}}},
    ],
)
def test_a_run_without_forward_dynamics_cannot_plan(change: dict[str, Any]) -> None:
    check_can_plan(TrainRecipe.model_validate({"name": "test"}), where="run")
    recipe = TrainRecipe.model_validate({"name": "test", **change})
    with pytest.raises(ConfigError, match="planning needs forward_dynamics"):
        check_can_plan(recipe, where="run")
