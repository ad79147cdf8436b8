"""Which elements each task scores, and that a batch may have none of a task."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from schemas.supervision import Task
from tests.training.tiny import batch, chosen, network, noise_of, text_of
from training.data.action_layout import part_of_slots, part_slots
from training.learner import Learner
from training.loss import LossOver, action_weights, loss_of, num_scored, scored_actions, weighted
from training.model.network import KnownInputs
from training.tasks import INDEX, TASKS

ALL = dict.fromkeys(TASKS, 1.0)


@pytest.mark.parametrize("tasks", [[0], [1], [2], [3], [0, 0, 3], [1, 2], [0, 1, 2, 3], [2] * 5])
def test_any_number_of_samples_of_a_task_is_finite(tasks: list[int]) -> None:
    made, b = network(), batch(tasks)
    terms = loss_of(made, b, text_of(b), *noise_of(b))
    loss = weighted(terms.sums, terms.counts, ALL)
    loss.backward()
    assert loss.isfinite()
    assert (terms.counts > 0).tolist() == [i in tasks for i in range(4)]
    assert all(p.grad is None or p.grad.isfinite().all() for p in made.parameters())


def test_a_task_scores_the_same_beside_others_as_alone() -> None:
    made, b = network(), batch()
    t, action_noise, future_noise = noise_of(b)
    together = loss_of(made, b, text_of(b), t, action_noise, future_noise)
    names = [name for name in KnownInputs.__slots__ if name != "state"]
    for i in range(4):
        one = slice(i, i + 1)
        part = replace(
            b,
            known=KnownInputs(**{name: getattr(b.known, name)[one] for name in names}),
            action=b.action[one],
            has_action=b.has_action[one],
            asked=b.asked[one],
            future=b.future[one],
            has_future=b.has_future[one],
        )
        text = chosen(text_of(b), [i])
        terms = loss_of(made, part, text, t[one], action_noise[one], future_noise[one])
        torch.testing.assert_close(terms.sums[i], together.sums[i])
        torch.testing.assert_close(terms.sample_sums[0], together.sample_sums[i])
        assert terms.counts[i] == together.counts[i] == together.sample_counts[i]


def test_scored_elements_by_hand() -> None:
    b = batch()
    all_valid = replace(b, has_action=torch.ones_like(b.has_action))
    found = scored_actions(all_valid).sum(dim=(1, 2)).tolist()
    # 6 steps of 5 elements; inverse dynamics until 0.3 s: 3 steps
    by_task = {
        Task.POLICY: 30,
        Task.INVERSE_DYNAMICS: 15,
        Task.FORWARD_DYNAMICS: 0,
        Task.VISUAL_FORECASTING: 0,
    }
    assert found == [by_task[task] for task in TASKS]


def test_what_is_masked_has_no_gradient_and_a_true_zero_has() -> None:
    b = batch([INDEX[Task.POLICY]] * 2)
    b = replace(b, action=torch.zeros_like(b.action), has_action=torch.ones_like(b.has_action))
    masked = b.has_action.clone()
    masked[:, :, 2] = False
    terms = loss_of(network(), b, text_of(b), *noise_of(b))
    fewer = loss_of(network(), replace(b, has_action=masked), text_of(b), *noise_of(b))
    assert terms.counts[0] == b.action.numel()  # zeros are actions
    assert fewer.counts[0] == b.action.numel() * 4 // 5
    wild = replace(b, has_action=masked, action=torch.where(masked, b.action, 1e6))
    found = loss_of(network(), wild, text_of(b), *noise_of(b))
    torch.testing.assert_close(found.sums, fewer.sums)


@pytest.mark.parametrize("task", [Task.POLICY, Task.INVERSE_DYNAMICS, Task.FORWARD_DYNAMICS])
def test_who_is_to_say_actions_is_not_told_where_the_segment_ends(task: Task) -> None:
    b = batch([INDEX[task]] * 3)
    inside = torch.ones_like(b.has_action)
    inside[:, 4:] = False  # two rows beyond the end, and what they hold means nothing
    asked = torch.ones_like(b.asked)
    whole = replace(b, has_action=torch.ones_like(inside), asked=asked)
    cut = replace(b, has_action=inside, asked=asked)
    seen: list[torch.Tensor] = []
    made = network()
    plain = made.tokens

    def noted(known: KnownInputs, *given: Any) -> Any:
        seen.extend(given[:2])
        return plain(known, *given)

    made.tokens = noted  # type: ignore[method-assign]
    noise = noise_of(b)
    for each in (whole, cut):
        loss_of(made, each, text_of(b), *noise)
    (acting, shown), (acting_cut, shown_cut) = seen[:2], seen[2:]
    if task is Task.FORWARD_DYNAMICS:  # it is given actions: those that there are
        assert torch.equal(shown_cut, inside)
        assert not acting_cut[:, 4:].any()
        return
    assert torch.equal(shown_cut, shown)
    torch.testing.assert_close(acting_cut[:, :4], acting[:, :4])
    t, action_noise, _ = noise
    pure = (1 - t)[:, None, None] * action_noise
    torch.testing.assert_close(acting_cut[:, 4:], pure[:, 4:])


def test_errors_are_weighed_by_what_the_linear_guess_leaves_by_hand() -> None:
    b = batch([INDEX[Task.POLICY], INDEX[Task.VISUAL_FORECASTING]])
    b = replace(b, has_action=torch.ones_like(b.has_action), asked=torch.ones_like(b.asked))
    stds = (0.1, 0.5, 1.0, 2.0, 0.3), (0.2, 0.1, 0.4, 1.0, 3.0, 0.02)
    made = network(action_std=stds[0], change_std=stds[1])
    t, action_noise, future_noise = noise_of(b)
    terms = loss_of(made, b, text_of(b), t, action_noise, future_noise)
    at = t[:, None, None]
    acting = (1 - at) * action_noise + at * b.action
    seeing = (1 - at) * future_noise + at * b.future
    given = [
        torch.cat(x)
        for x in zip((acting[:1], b.future[:1]), (b.action[1:], seeing[1:]), strict=True)
    ]
    said = made(b.known, text_of(b), given[0], b.has_action, given[1], t)
    wrong = (said[0] - (b.action - action_noise), said[1] - (b.future - future_noise))
    for sample, (error, std) in enumerate(zip(wrong, map(np.array, stds), strict=True)):
        time = t[sample].item()
        weight = ((1 - time) ** 2 + (time * std) ** 2) / std**2
        expected = (error[sample].detach().numpy() ** 2 * weight).sum()
        assert terms.sample_sums[sample].item() == pytest.approx(expected, rel=1e-4)


def test_a_future_that_is_not_there_is_not_scored() -> None:
    b = batch([INDEX[Task.FORWARD_DYNAMICS], INDEX[Task.VISUAL_FORECASTING]])
    has = torch.tensor([[False], [True]])
    terms = loss_of(network(), replace(b, has_future=has), text_of(b), *noise_of(b))
    assert terms.counts.tolist() == [0, 0, 0, b.future[0].numel()]


def test_pictures_are_one_mean_over_both_their_tasks() -> None:
    forward, forecast, policy = (
        INDEX[t] for t in (Task.FORWARD_DYNAMICS, Task.VISUAL_FORECASTING, Task.POLICY)
    )
    sums, counts = torch.zeros(4), torch.zeros(4, dtype=torch.long)
    sums[forward], counts[forward] = 6.0, 2
    sums[forecast], counts[forecast] = 4.0, 8
    sums[policy], counts[policy] = 7.0, 14
    assert weighted(sums, counts, ALL).item() == pytest.approx(7 / 14 + (6 + 4) / (2 + 8))
    half = ALL | {Task.FORWARD_DYNAMICS: 0.5}
    assert weighted(sums, counts, half).item() == pytest.approx(7 / 14 + (3 + 4) / (2 + 8))
    whole = 2 * counts  # of a batch of which this is a part
    assert weighted(sums, whole, ALL).item() == pytest.approx(7 / 28 + 10 / 20)
    assert counts[forward] == 2  # nothing of the terms is changed


def test_the_loss_falls() -> None:
    made, b = network(awake=False).train(), batch([0, 1, 2, 3] * 2)
    step = torch.optim.AdamW(made.parameters(), lr=3e-3)
    t, action_noise, future_noise = noise_of(b)
    losses = []
    for _ in range(40):
        terms = loss_of(made, b, text_of(b), t, action_noise, future_noise)
        loss = weighted(terms.sums, terms.counts, ALL)
        step.zero_grad()
        loss.backward()
        step.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_of_two_views_only_the_one_that_is_there_is_scored() -> None:
    made = network(num_views=2)
    b = batch([INDEX[Task.VISUAL_FORECASTING]] * 2, s=made.settings)
    b = replace(b, has_future=torch.tensor([[True, False], [True, True]]))
    terms = loss_of(made, b, text_of(b), *noise_of(b))
    one_view = made.settings.num_patches * made.settings.latent_width
    assert terms.sample_counts.tolist() == [one_view, 2 * one_view]


def hands_and_grippers() -> torch.Tensor:
    """[3, 2, 5] scored: a hand with all elements, a gripper with the first, and one that was not seen. Parts of elements: 0 0 1 1 1."""
    scored = torch.zeros(3, 2, 5, dtype=torch.bool)
    scored[0] = True
    scored[1, :, 0] = True
    return scored


PARTS = torch.tensor([0, 0, 1, 1, 1])


@pytest.mark.parametrize(
    ("loss_over", "hand", "gripper"),
    [
        ("elements", [[1.0] * 5] * 2, 1.0),
        ("samples", [[1 / 10] * 5] * 2, 1 / 2),
        ("parts", [[1 / 8, 1 / 8, 1 / 12, 1 / 12, 1 / 12]] * 2, 1 / 2),
    ],
)
def test_what_an_element_counts_by_hand(
    loss_over: LossOver, hand: list[list[float]], gripper: float
) -> None:
    found = action_weights(hands_and_grippers(), loss_over, PARTS)
    torch.testing.assert_close(found[0], torch.tensor(hand, dtype=torch.float32))
    torch.testing.assert_close(found[1], torch.tensor([[gripper, 0.0, 0, 0, 0]] * 2))
    assert not found[2].any()


@pytest.mark.parametrize(
    ("loss_over", "wanted"),
    # errors: 4 of a hand's position, 0 of its joints; 1 of a gripper. 4 * 4 + 2 over 12 elements; (1.6 + 1) / 2; (2 + 1) / 2
    [("elements", 18 / 12), ("samples", 2.6 / 2), ("parts", 3 / 2)],
)
def test_the_policy_loss_by_hand(loss_over: LossOver, wanted: float) -> None:
    scored = hands_and_grippers()
    error = torch.zeros(scored.shape)
    error[0, :, :2], error[1] = 4.0, 1.0
    weight = action_weights(scored, loss_over, PARTS)
    made = batch([0, 0, 0])
    made = replace(
        made, action=made.action[:, :2], has_action=scored, action_t_s=made.action_t_s[:2]
    )
    count = num_scored(made, loss_over)[INDEX[Task.POLICY]]
    assert ((error * weight).sum() / count).item() == pytest.approx(wanted)


@pytest.mark.parametrize("loss_over", ["elements", "samples", "parts"])
def test_a_step_divides_by_what_was_counted_before(loss_over: LossOver) -> None:
    """Sums are of the same weights, and counts known from masks are those of the pass; pictures are as ever."""
    made, b = network(), batch([0, 0, 1, 2, 3])
    parts = torch.tensor([0, 0, 1, 2, 2])
    terms, plain = (
        loss_of(made, b, text_of(b), *noise_of(b), loss_over=each, part_of=parts)
        for each in (loss_over, "elements")
    )
    assert torch.equal(terms.counts, num_scored(b, loss_over))
    assert torch.equal(terms.counts[2:], plain.counts[2:])
    torch.testing.assert_close(terms.sums[2:], plain.sums[2:])
    if loss_over != "elements":
        assert terms.counts[:2].tolist() == [2, 1]
        assert (terms.sums[:2] < plain.sums[:2]).all()


def test_parts_of_slots_are_those_of_the_layout() -> None:
    parts = part_of_slots()
    assert len(set(parts.tolist())) == 10
    for name in ("left.delta_position_m", "right.hand_keypoints_m", "left.gripper_opening"):
        (number,) = set(parts[part_slots(name)].tolist())
        assert (parts == number).sum() == len(part_slots(name))


def test_a_learner_scores_as_it_was_told() -> None:
    from tests.training.running import Told

    assert Learner(network(), Told(), "parts").loss_over == "parts"
