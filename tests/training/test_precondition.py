"""The linear guess of a velocity: against regression on samples, and at the ends of the path."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from schemas.supervision import Task
from tests.training.tiny import SETTINGS, batch, network, text_of
from training.flow import noised, sampled, velocity
from training.model.network import Network
from training.model.precondition import channel_std, error_weight, velocity_from
from training.model.settings import ModelSettings
from training.tasks import INDEX


@pytest.mark.parametrize("t", [0.0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("std", [0.2, 1.5])
def test_it_is_what_regression_finds(t: float, std: float) -> None:
    rng = np.random.default_rng(0)
    noise, rest = rng.standard_normal((2, 200_000)) * np.array([[1.0], [std]])
    mean = 3.0
    noisy = (1 - t) * noise + t * (mean + rest)
    slope, offset = np.polyfit(noisy, mean + rest - noise, 1)
    given = torch.tensor(noisy[:1000], dtype=torch.float64).view(1, -1, 1)

    def guess(said: float) -> np.ndarray:
        like = torch.full_like(given, said)
        time = torch.tensor([t], dtype=torch.float64)
        s = torch.tensor([std], dtype=torch.float64)
        actual = velocity_from(like, given, torch.full_like(given, mean), time, s)
        return actual.numpy().ravel()

    np.testing.assert_allclose(guess(0.0), slope * noisy[:1000] + offset, atol=0.03)
    left = mean + rest - noise - (slope * noisy + offset)
    np.testing.assert_allclose(guess(1.0) - guess(0.0), left.std(), rtol=0.01)


def test_the_ends_by_hand() -> None:
    said, noisy, mean = (torch.tensor([[[x]]]) for x in (0.5, 2.0, 3.0))
    s = torch.tensor([0.2])
    at_noise = velocity_from(said, noisy, mean, torch.tensor([0.0]), s)
    at_data = velocity_from(said, noisy, mean, torch.tensor([1.0]), s)
    assert at_noise.item() == pytest.approx(3.0 - 2.0 + 0.2 * 0.5)  # m - eps + s F
    assert at_data.item() == pytest.approx(2.0 + 0.5)  # x + F, where F is to be -eps


def test_half_precision_of_what_is_said_does_not_reach_the_guess() -> None:
    """Of bf16, 0.999 is 1: the guess would be another."""
    noisy, mean, t = torch.tensor([[[2.0]]]), torch.tensor([[[3.0]]]), torch.tensor([0.999])
    silent = torch.zeros(1, 1, 1)
    s = torch.tensor([0.02])
    exact = velocity_from(silent, noisy, mean, t, s)
    assert torch.equal(velocity_from(silent.bfloat16(), noisy, mean, t, s), exact)


@pytest.mark.parametrize("at", [0.0, 0.3, 0.9, 1.0])
def test_the_linear_guess_leaves_an_error_of_one_at_every_time_in_every_channel(at: float) -> None:
    g = torch.Generator().manual_seed(3)
    std = torch.tensor([0.05, 0.5, 2.0])
    noise, rest = (torch.randn(1, 200_000, 3, generator=g) for _ in range(2))
    mean, data = torch.full_like(noise, 3.0), 3.0 + std * rest
    t = torch.tensor([at])
    guess = velocity_from(torch.zeros_like(noise), noised(data, noise, t), mean, t, std)
    error = (guess - velocity(data, noise)).square() * error_weight(t, std)
    assert error.mean(dim=(0, 1)).tolist() == pytest.approx([1.0] * 3, rel=0.02)


def test_one_spread_of_all_channels_is_the_same_number_of_each() -> None:
    assert torch.equal(channel_std(0.3, 2), channel_std((0.3, 0.3), 2))


@pytest.mark.parametrize("name", ["action_std", "change_std"])
def test_a_network_takes_a_spread_of_each_channel_and_no_other_number_of_them(name: str) -> None:
    size = {"action_std": SETTINGS.action_width, "change_std": SETTINGS.latent_width}[name]
    each = tuple(0.1 + 0.1 * c for c in range(size))
    settings = ModelSettings.model_validate(SETTINGS.model_dump() | {name: each})
    assert ModelSettings.model_validate_json(settings.model_dump_json()) == settings
    assert getattr(Network(settings), name).tolist() == pytest.approx(each)
    with pytest.raises(ValidationError, match=f"{name} has {size - 1} channels, expected {size}"):
        ModelSettings.model_validate(SETTINGS.model_dump() | {name: each[1:]})
    with pytest.raises(ValidationError):
        ModelSettings.model_validate(SETTINGS.model_dump() | {name: (0.0, *each[1:])})


def test_a_network_that_says_nothing_yet_forecasts_no_change() -> None:
    made, b = network(awake=False), batch([INDEX[Task.VISUAL_FORECASTING]] * 3)
    noise = torch.randn(b.future.shape, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        seen = sampled(
            noise,
            lambda x, t: made(b.known, text_of(b), b.action, b.has_action, x, t)[1],
            num_steps=1,
        )
    has_now = b.known.has_past[:, -1].repeat_interleave(made.settings.num_patches, dim=1)
    torch.testing.assert_close(seen, b.known.past[:, -1] * has_now[..., None])


def test_a_network_that_says_nothing_yet_does_not_move() -> None:
    made, b = network(awake=False), batch([INDEX[Task.POLICY]] * 3)
    noise = torch.randn(b.action.shape, generator=torch.Generator().manual_seed(6))
    with torch.no_grad():
        done = sampled(
            noise,
            lambda x, t: made(b.known, text_of(b), x, b.has_action, b.future, t)[0],
            num_steps=1,
        )
    torch.testing.assert_close(done, torch.zeros_like(done))
