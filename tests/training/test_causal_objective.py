"""Noise levels, their weights, the loss of a batch by hand, and what each task of a sample trains."""

from __future__ import annotations

import dataclasses
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from schemas.supervision import Task
from tests.training.causal_cases import SETTINGS
from tests.training.tiny import inputs_of
from training.batch import Batch, Origin
from training.causal.learner import CausalLearner
from training.causal.network import CausalNetwork
from training.causal.objective import (
    bell_weight,
    frame_errors,
    level_of,
    mixed_with_noise,
    noise_velocity,
    sampling_levels,
    u_from,
    velocity_to,
)
from training.causal.settings import CausalObjective
from training.conditioning.inputs import TextInputs
from training.conditioning.protocol import Conditioner
from training.data.sequences import sequences_of
from training.flow import noised, velocity
from training.loss import weighted
from training.model.network import KnownInputs
from training.model.text import Text, padded
from training.run.micro_batch import parts
from training.tasks import INDEX, TASKS

POLICY, FORWARD, FORECAST = (
    INDEX[t] for t in (Task.POLICY, Task.FORWARD_DYNAMICS, Task.VISUAL_FORECASTING)
)
FRAMES, ROWS, ELEMENTS = 4, 2, 5


def test_the_sign_is_minus_that_of_our_own_flow() -> None:
    """x_s at s is x_t at t = 1 - s, and the velocities point against each other."""
    g = torch.Generator().manual_seed(0)
    data, eps, s = (
        torch.randn(3, 4, generator=g),
        torch.randn(3, 4, generator=g),
        torch.rand(3, generator=g),
    )
    torch.testing.assert_close(mixed_with_noise(data, eps, s), noised(data, eps, 1 - s))
    assert torch.equal(noise_velocity(data, eps), -velocity(data, eps))
    ds = 1e-3
    slope = (mixed_with_noise(data, eps, s + ds) - mixed_with_noise(data, eps, s)) / ds
    torch.testing.assert_close(slope, noise_velocity(data, eps), atol=1e-3, rtol=1e-3)


def test_true_data_say_the_true_velocity() -> None:
    """A frame and row of levels each; near 0, where nothing is known of the noise, the answer stays finite."""
    g = torch.Generator().manual_seed(0)
    data, eps = torch.randn(2, 2, 3, 4, 5, generator=g)
    level = torch.rand(2, 3, generator=g) * 0.9 + 0.1
    noisy = mixed_with_noise(data, eps, level)
    torch.testing.assert_close(velocity_to(data, noisy, level), noise_velocity(data, eps))
    assert torch.equal(velocity_to(data, data, torch.zeros(2, 3)), torch.zeros_like(data))
    assert velocity_to(eps, data, torch.zeros(2, 3)).isfinite().all()


def test_an_euler_walk_down_the_levels_finds_the_data() -> None:
    """With the true velocity, whatever the shift: a wrong sign walks away."""
    data, eps = torch.tensor([2.0, -1.0]), torch.tensor([0.3, 0.4])
    for shift in (5.0, 1.0, 0.05):
        levels = sampling_levels(7, shift, torch.device("cpu"))
        assert len(levels) == 8
        torch.testing.assert_close(levels[[0, -1]], torch.tensor([1.0, 0.0]).double())
        assert (levels[1:] < levels[:-1]).all()
        x = eps.clone().double()
        for level, later in pairwise(levels):
            x = x + (later - level) * noise_velocity(data, eps)
        torch.testing.assert_close(x, data.double())


@pytest.mark.parametrize(("shift", "half"), [(5.0, 5 / 6), (1.0, 0.5), (0.05, 1 / 21)])
def test_levels_by_hand(shift: float, half: float) -> None:
    at = level_of(torch.tensor([0.0, 0.5, 1.0]), shift)
    torch.testing.assert_close(at, torch.tensor([0.0, half, 1.0]))


def test_u_is_uniform_and_that_of_a_history_stays_below_one_half() -> None:
    drawn = torch.rand(20_000, generator=torch.Generator().manual_seed(0))
    whole, near = u_from(drawn), u_from(drawn, highest=0.5)
    most = torch.tensor(1 - 2.0**-24)  # the largest that is drawn
    assert [u_from(most).item(), u_from(torch.tensor(0.0)).item()] == pytest.approx([1.0, 0.001])
    assert whole.min() > 0
    assert whole.max() <= 1
    assert whole.mean().item() == pytest.approx(0.5005, abs=0.01)
    assert near.max() <= 0.5
    assert near.mean().item() == pytest.approx(0.2505, abs=0.005)


@pytest.mark.parametrize("shift", [5.0, 1.0])
def test_bell_weights_are_those_of_a_plain_loop(shift: float) -> None:
    """exp(-2 ((t - 500) / 1000)^2) over 1000 shifted timesteps, less the least, with the mean 1."""
    steps = [
        1000 * shift * u / (1 + (shift - 1) * u) for u in (i / 1000 for i in range(1000, 0, -1))
    ]
    raw = [math.exp(-2 * ((t - 500) / 1000) ** 2) for t in steps]
    mean = sum(y - min(raw) for y in raw) / 1000
    expected = torch.tensor([(y - min(raw)) / mean for y in raw])
    weight = bell_weight(torch.tensor(steps) / 1000, shift)
    torch.testing.assert_close(weight, expected, atol=1e-4, rtol=1e-4)
    assert weight.mean().item() == pytest.approx(1.0, abs=1e-4)
    assert weight.min() >= -1e-4


def test_a_frame_counts_once_however_much_of_it_was_recorded() -> None:
    error = torch.tensor([[[4.0, 2.0], [9.0, 100.0], [5.0, 5.0]]])
    scored = torch.tensor([[[True, True], [True, False], [False, False]]])
    means, counted = frame_errors(error, scored)
    assert means.tolist() == [[3.0, 9.0, 0.0]]
    assert counted.tolist() == [[True, True, False]]


class Plain(Conditioner):
    """Features that are text already."""

    width = SETTINGS.text_width

    def forward(self, inputs: TextInputs) -> Text:
        return Text(values=inputs.by_token["values"], layout=inputs.layout)


def batch(tasks: list[int], seed: int = 0) -> Batch:
    """Sequences of 4 frames; the second sample begins a frame late and lacks an element, the third has no view of its last frame."""
    g, s, size = torch.Generator().manual_seed(seed), SETTINGS, len(tasks)

    def normal(*shape: int) -> Tensor:
        return torch.randn(size, *shape, generator=g)

    has = torch.ones(size, FRAMES, 1, dtype=torch.bool)
    has_action = torch.ones(size, FRAMES * ROWS, ELEMENTS, dtype=torch.bool)
    if size > 1:
        has[1, 0] = False
        has_action[1, : 2 * ROWS] = False
        has_action[1, 5, 2] = False
    if size > 2:
        has[2, 3] = False
    history = (FRAMES - 1) * ROWS
    return Batch(
        known=KnownInputs(
            past=normal(FRAMES - 1, s.num_latents, s.latent_width),
            has_past=has[:, :-1],
            history=normal(history, ELEMENTS),
            has_history=has_action[:, :history],
            embodiment=torch.arange(size) % 3,
            task=torch.tensor(tasks),
        ),
        action=normal(ROWS, ELEMENTS),
        has_action=has_action[:, history:],
        asked=torch.ones(size, ELEMENTS, dtype=torch.bool),
        future=normal(s.num_latents, s.latent_width),
        has_future=has[:, -1],
        action_t_s=torch.tensor([0.1, 0.2]),
        future_t_s=0.2,
        text_inputs=inputs_of(normal(3, s.text_width), torch.ones(size, 3, dtype=torch.bool)),
        origin=Origin(row=np.arange(size), timestep=np.zeros(size, dtype=np.int64)),
    )


def learner(**objective: float) -> CausalLearner:
    settings = SETTINGS.model_copy(
        update={"objective": CausalObjective.model_validate({"window": (64, 64), **objective})}
    )
    torch.manual_seed(0)
    out = CausalLearner(CausalNetwork(settings), Plain())
    with torch.no_grad():
        for p in out.parameters():
            p.add_((p == 0) * 0.05 * torch.randn_like(p))
    return out


def terms(made: CausalLearner, here: Batch, step: int = 0) -> tuple[Tensor, Tensor]:
    out = made(here, *made.drawn(here, seed=1, step=step, first=0, num_draws=1))
    return out.sums, out.counts


def test_what_each_task_scores() -> None:
    """Frames of all; actions of the policy alone; the first frame not where it is known."""
    four = [POLICY, POLICY, FORWARD, FORECAST]
    plain, known = learner(), learner(known_first=True)
    # present frames: 4, 3, 3, 4. Actions: of sample 1 frame 1 (its first) has none and frame 0 is absent.
    expected = torch.zeros(len(TASKS), dtype=torch.long)
    expected[POLICY], expected[FORWARD], expected[FORECAST] = 4 + 2, 4 + 3 + 3, 4
    assert torch.equal(plain.num_scored(batch(four)), expected)
    expected[FORWARD], expected[FORECAST] = 3 + 2 + 2, 3
    assert torch.equal(known.num_scored(batch(four)), expected)
    for each in (plain, known):
        sums, counts = terms(each, batch(four))
        assert torch.equal(counts, each.num_scored(batch(four)))
        assert (sums[[POLICY, FORWARD, FORECAST]] > 0).all()
        assert sums[INDEX[Task.INVERSE_DYNAMICS]] == 0


def test_only_the_policy_trains_what_says_actions() -> None:
    for task, trains in ((POLICY, True), (FORWARD, False), (FORECAST, False)):
        made = learner()
        sums, counts = terms(made, batch([task, task, task]))
        weighted(sums, counts, dict.fromkeys(TASKS, 1.0)).backward()  # type: ignore[no-untyped-call]
        gradient = made.network.action_out.own.weight.grad
        assert gradient is not None  # DDP waits for it
        assert bool(gradient.any()) is trains


def test_low_tier_actions_are_context_and_actionless_ones_are_not_seen() -> None:
    """Other recorded actions change what is said of frames under forward_dynamics, and nothing at all under visual_forecasting."""
    for task, is_context in ((FORWARD, True), (FORECAST, False)):
        here = batch([task])
        moved = dataclasses.replace(
            here,
            known=dataclasses.replace(here.known, history=here.known.history + 1),
            action=here.action + 1,
        )
        one, two = (terms(learner(noisy_history=0.0), each)[0] for each in (here, moved))
        assert torch.equal(one, two) is not is_context


def test_a_robot_that_stands_still_is_not_one_whose_actions_are_absent() -> None:
    here = batch([FORWARD])
    still = dataclasses.replace(
        here,
        known=dataclasses.replace(here.known, history=torch.zeros_like(here.known.history)),
        action=torch.zeros_like(here.action),
    )
    absent = dataclasses.replace(
        still,
        known=dataclasses.replace(
            still.known, has_history=torch.zeros_like(here.known.has_history)
        ),
        has_action=torch.zeros_like(here.has_action),
    )
    assert not torch.equal(terms(learner(), still)[0], terms(learner(), absent)[0])


def test_a_batch_is_its_parts_and_each_sample_alone() -> None:
    """Draws belong to the place in the global batch, and no sample hears of another."""
    four, made = [POLICY, FORWARD, FORECAST, POLICY], learner()
    whole, counts = terms(made, batch(four))
    summed, counted = torch.zeros_like(whole), torch.zeros_like(counts)
    for i, part in enumerate(parts(batch(four), 4)):
        out = made(part, *made.drawn(part, seed=1, step=0, first=i, num_draws=1))
        summed, counted = summed + out.sums, counted + out.counts
    torch.testing.assert_close(summed, whole, atol=1e-5, rtol=1e-5)
    assert torch.equal(counted, counts)


def test_rows_add_up_to_the_terms() -> None:
    here, made = batch([POLICY, FORWARD, FORECAST]), learner()
    out = made(here, *made.drawn(here, seed=1, step=0, first=0, num_draws=1))
    rows = made.rows_of(here)
    assert rows.sample.tolist() == [0, 1, 2, 0]
    assert rows.task.tolist() == [FORWARD, FORWARD, FORECAST, POLICY]
    added = torch.zeros(4).index_add(0, rows.task, out.sample_sums)
    torch.testing.assert_close(added, out.sums)
    assert torch.equal(torch.zeros(4).long().index_add(0, rows.task, out.sample_counts), out.counts)


def test_the_loss_of_a_network_that_says_nothing_is_known() -> None:
    """Zero heads: the error of a frame is the mean of (eps - x)^2, of actions over what was recorded."""
    here = batch([POLICY, POLICY])
    made = CausalLearner(CausalNetwork(SETTINGS), Plain())
    (draw,) = made.drawn(here, seed=1, step=0, first=0, num_draws=1)
    out = made(here, draw)
    like = sequences_of(here)
    video = action = 0.0
    for b in range(2):
        for f in range(FRAMES):
            if not like.has_video[b, f, 0]:
                continue
            target = draw.video_noise[b, f] - like.latents[b, f]
            level = 5 * draw.video_u[b, f] / (1 + 4 * draw.video_u[b, f])
            video += float(target.square().mean() * bell_weight(level, 5.0))
            has = like.has_action[b, f]
            if has.any():
                target = (draw.action_noise[b, f] - like.action[b, f])[has]
                action += float(target.square().mean() * bell_weight(draw.action_u[b, f], 1.0))
    assert out.sums[FORWARD].item() == pytest.approx(video, rel=1e-4)
    assert out.sums[POLICY].item() == pytest.approx(action, rel=1e-4)


def test_half_of_the_histories_are_noisy_and_actions_never() -> None:
    made, here = learner(), batch([POLICY] * 400)
    (draw,) = made.drawn(here, seed=1, step=0, first=0, num_draws=1)
    noisy = (draw.history_u > 0).any(dim=1)
    assert noisy.float().mean().item() == pytest.approx(0.5, abs=0.08)
    assert draw.history_u.max() <= 0.5
    assert draw.drops_text.float().mean().item() == pytest.approx(0.1, abs=0.05)
    text = padded(made.conditioner(here.text_inputs))
    shown = made.inputs(sequences_of(here), draw, text)
    assert torch.equal(shown.clean_action, sequences_of(here).action)
    changed = (shown.clean_video != sequences_of(here).latents).flatten(1).any(dim=1)
    assert torch.equal(changed, noisy)


def test_text_is_dropped_in_training_alone() -> None:
    here, made = batch([POLICY] * 6), learner(text_dropout=0.5)
    changed = {"values": here.text_inputs.by_token["values"] + 1}
    inputs = dataclasses.replace(here.text_inputs, by_token=changed)
    other = dataclasses.replace(here, text_inputs=inputs)
    drawn = made.drawn(here, seed=1, step=0, first=0, num_draws=1)
    dropped = drawn[0].drops_text
    assert 0 < dropped.sum() < 6
    is_policy_row = slice(6, None)
    for is_training, expected in ((True, dropped), (False, torch.zeros_like(dropped))):
        made.train(is_training)
        same = made(here, *drawn).sample_sums == made(other, *drawn).sample_sums
        assert torch.equal(same[is_policy_row], expected)
