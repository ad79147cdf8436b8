"""Sign and direction of time, from a distribution whose velocity is known in closed form."""

from __future__ import annotations

import torch

from training.flow import noised, sampled, times_from, velocity


def test_times_lie_in_the_unit_interval_and_near_noise() -> None:
    t = times_from(torch.rand(200_000, generator=torch.Generator().manual_seed(0)))
    assert t.min() >= 0
    assert t.max() <= 1
    # u ~ Beta(1.5, 1): E[u] = 0.6; clipping at 0.999 takes 0.15 % of u and moves the mean by less than 1e-5
    assert abs(t.mean().item() - (0.999 - 0.6) / 0.999) < 2e-3
    assert abs((t > 0.5).float().mean().item() - (0.999 * 0.5) ** 1.5) < 4e-3


def test_ends_of_the_path() -> None:
    x, eps = torch.randn(3, 2, 4), torch.randn(3, 2, 4)
    torch.testing.assert_close(noised(x, eps, torch.zeros(3)), eps)
    torch.testing.assert_close(noised(x, eps, torch.ones(3)), x)
    step = 1e-3
    t = torch.full((3,), 0.4)
    speed = (noised(x, eps, t + step) - noised(x, eps, t)) / step
    torch.testing.assert_close(speed, velocity(x, eps), atol=1e-3, rtol=1e-3)


def test_the_sampler_finds_an_analytic_gaussian() -> None:
    """Data N(mean, s^2): E[x - eps | x_t] is linear in x_t. The wrong sign, or time the other way round, ends elsewhere."""
    mean, s = 2.0, 0.5

    def best(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        t = t[:, None]
        variance = (1 - t) ** 2 + (t * s) ** 2
        covariance = t * s**2 - (1 - t)
        return mean + covariance / variance * (x - t * mean)

    noise = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(0))
    found = sampled(noise, best, num_steps=100)
    assert abs(found.mean().item() - mean) < 0.02
    assert abs(found.std().item() - s) < 0.02
