"""What decays, the rate of a step, averages of weights, and the clip: by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from tests.training.running import learner
from training.model.adapters import Bank
from training.recipe import OptimiserSettings
from training.run.optimiser import EMA, adamw, clip, decaying, gradient_norm, lr_at, set_lr, trained

SCHEDULE = OptimiserSettings(lr=1.0, min_lr=0.1, warmup_steps=4)


def test_rates_by_hand() -> None:
    found = [lr_at(step, SCHEDULE, num_steps=12) for step in (0, 1, 3, 4, 8, 12, 99)]
    # up by quarters; then half a cosine over 8 steps from 1 to 0.1, in the middle of it 0.55
    assert found == pytest.approx([0.25, 0.5, 1.0, 1.0, 0.55, 0.1, 0.1])
    quarter = 0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2
    assert lr_at(6, SCHEDULE, num_steps=12) == pytest.approx(quarter)


def test_a_schedule_without_warm_up_starts_at_full_rate() -> None:
    assert lr_at(0, OptimiserSettings(lr=2.0, warmup_steps=0), num_steps=10) == 2.0


def test_only_weights_of_layers_decay() -> None:
    made = learner()
    decays, every = decaying(made), trained(made)
    assert decays < every.keys()
    assert {"network.merge.weight", "network.action_in.own.weight", "conditioner.learned.weight"} <= decays  # fmt: skip
    for name in every.keys() - decays:
        words = ("bias", "norms", "registers", "missing", "no_text", "task.weight", "places")
        assert any(word in name for word in words), name
    assert not {name for name in decays if "bias" in name or "frozen" in name}
    groups = adamw(made, OptimiserSettings(weight_decay=0.5)).param_groups
    assert [group["weight_decay"] for group in groups] == [0.5, 0.0]
    assert [len(group["params"]) for group in groups] == [len(decays), len(every) - len(decays)]


def test_shared_modulation_offsets_do_not_decay() -> None:
    made = learner(adaln="shared", positions="rope")
    assert "network.shared_modulation.weight" in decaying(made)
    assert not {name for name in decaying(made) if name.endswith("offset")}


def test_an_absent_embodiment_moves_by_momentum_and_decay() -> None:
    """Of three, the first was in the first batch only, and the third in none: decay is all that moves it, and its bias stays."""
    bank = Bank(3, 4, 2)
    optimiser = adamw(bank, OptimiserSettings(weight_decay=0.5))
    set_lr(optimiser, 0.1)
    seen: list[torch.Tensor] = []
    for embodiment in (0, 1, 1):
        optimiser.zero_grad()
        bank(torch.ones(2, 3, 4), torch.full((2,), embodiment)).sum().backward()
        optimiser.step()
        seen.append(bank.weight.detach().clone())
    _, before, after = seen
    torch.testing.assert_close(after[2], 0.95 * before[2])  # 1 - 0.1 * 0.5
    assert not bank.bias[2].any()
    assert bank.weight.grad is not None
    assert not bank.weight.grad[0].any()
    assert ((after[0] - 0.95 * before[0]) < -0.01).all()  # against the gradient of two steps ago


def test_decay_shrinks_what_decays_and_nothing_else() -> None:
    made = learner()
    before = {name: p.detach().clone() for name, p in trained(made).items()}
    optimiser = adamw(made, OptimiserSettings(weight_decay=0.5))
    for p in trained(made).values():
        p.grad = torch.zeros_like(p)
    set_lr(optimiser, 0.1)
    optimiser.step()
    for name, p in trained(made).items():
        factor = 0.95 if name in decaying(made) else 1.0  # 1 - 0.1 * 0.5
        torch.testing.assert_close(p.detach(), before[name] * factor)


def test_layers_of_a_language_model_have_a_rate_of_their_own() -> None:
    """With zero gradients a step shrinks what decays by rate times decay; norms and biases of the layers do not decay."""
    made = learner()
    made.conditioner.layers = nn.ModuleDict({"7": nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))})
    before = {name: p.detach().clone() for name, p in trained(made).items()}
    optimiser = adamw(made, OptimiserSettings(lr=0.1, weight_decay=0.5), text_lr=0.01)
    assert sum(len(group["params"]) for group in optimiser.param_groups) == len(before)
    for p in trained(made).values():
        p.grad = torch.zeros_like(p)
    set_lr(optimiser, 0.04)  # so far down the schedule: 0.4 of the rate of each
    optimiser.step()
    for name, p in trained(made).items():
        shrunk = 1 - 0.004 * 0.5 if "layers.7" in name else 1 - 0.04 * 0.5
        factor = shrunk if name in decaying(made) else 1.0
        torch.testing.assert_close(p.detach(), before[name] * factor, rtol=1e-7, atol=0)
    assert "conditioner.layers.7.0.weight" in decaying(made)
    assert "conditioner.layers.7.1.weight" not in decaying(made)


def test_averages_by_hand() -> None:
    made = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        made.weight.fill_(1.0)
    averages = EMA(made, 0.75)
    for value in (5.0, 3.0):
        with torch.no_grad():
            made.weight.fill_(value)
        averages.update(made, torch.tensor(True))
    # 0.75 * 1 + 0.25 * 5 = 2, then 0.75 * 2 + 0.25 * 3
    assert averages.values["weight"].item() == pytest.approx(2.25)
    assert made.weight.item() == 3.0


def test_the_norm_is_of_all_gradients_and_the_clip_keeps_their_direction() -> None:
    made = nn.ModuleList([nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False), Bank(1, 1, 1)])
    for p, value in zip(made.parameters(), (3.0, 4.0, 0.0, 12.0), strict=True):
        p.grad = torch.full_like(p, value)
    norm = gradient_norm(made)
    assert norm.item() == pytest.approx(13.0)
    clip(made, norm, 26.0)
    assert gradient_norm(made).item() == pytest.approx(13.0)
    clip(made, norm, 1.3)
    found = [p.grad.item() for p in made.parameters() if p.grad is not None]
    assert found == pytest.approx([0.3, 0.4, 0.0, 1.2], rel=1e-4)
