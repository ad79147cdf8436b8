"""The benchmark of planning: what it compares, and the policy that a study plays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.plan import (
    KEYS,
    chunks_of,
    figure_of,
    latencies,
    observations_of,
    save_figure,
    untrained_policy,
)
from benchmarks.plan_world import (
    STEP_M,
    Size,
    TableTop,
    demonstrations,
    encode,
    head_of,
    is_near,
    played,
    policy_of_world,
    spec_of_arm,
    starts_of,
    tokens_of,
    trained,
)
from schemas.errors import ConfigError
from training.recipe import load_recipe


def test_numbers_of_chunks_begin_with_one() -> None:
    assert chunks_of("16,4, 4") == [1, 4, 16]
    for odd in ("", "0", "1,-2", "many"):
        with pytest.raises(ConfigError, match="expected numbers from 1"):
            chunks_of(odd)


def test_latencies_have_a_meaning_and_a_figure(tmp_path: Path) -> None:
    recipe = load_recipe("tiny", {"architecture": {"width": 16, "num_heads": 2, "num_layers": 1}})
    policies = {num: untrained_policy(recipe, num_chunks=num) for num in (1, 3)}
    assert policies[1].planner is None
    assert policies[3].facts()["plan"] == {"num_chunks": 3}
    shown = observations_of(policies[1])
    # The same weights: what is compared is planning alone. Values are all equal, so the first candidate stays.
    for each in shown:
        one, three = (policies[num].act(each).targets for num in (1, 3))
        np.testing.assert_allclose(one, three, atol=1e-6)
    figures = latencies(policies, rounds=1)
    assert figures["latency_ratio_1"] == 1
    stars = {key.removesuffix("*") for key in KEYS if key.endswith("*")}
    # How far values are apart says something of a trained head alone, and of none is a figure on the page.
    shown_names = {name for name in figures if not name.startswith("value_std_")}
    assert all(any(name.startswith(star) for star in stars) for name in shown_names)
    figures |= {"success_3": 0.5, "success_low_3": 0.4, "success_high_3": 0.7}
    paths = [
        save_figure(figure_of([1, 3], figures), tmp_path / name) for name in ("a.svg", "b.svg")
    ]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert "success in the simulator" in paths[0].read_text()


@pytest.mark.slow
def test_a_world_shows_what_it_means_to_and_planning_is_the_only_difference() -> None:
    """Images hold hand and goal; a demonstration that reaches the goal ends there; the loop drives the policy."""
    at = starts_of(np.random.default_rng(1), 5)
    world = TableTop(spec_of_arm())
    for each in at:
        world.at = each
        np.testing.assert_allclose(encode(world.shown()["camera"][None])[0], tokens_of(each), atol=1e-3)  # fmt: skip
    shown = demonstrations(50, 3)
    assert 0 < shown.succeeds.mean() < 1
    ends = shown.at[np.arange(50), shown.end]
    assert (is_near(ends) == shown.succeeds).all()
    learner, samples = trained(Size.quick(), 0)
    head, _ = head_of(learner, samples, Size.quick(), 0)
    for num in (1, 3):
        policy = policy_of_world(learner, head, samples, num, 0)
        assert (policy.planner is None) == (num == 1)
        assert len(played(policy, 1, 0)) == 1


def test_a_world_hand_that_goes_straight_succeeds() -> None:
    world = TableTop(spec_of_arm())
    world.reset(4)
    for _ in range(60):
        target = world.in_force()
        target[world.spec.slice("left.position_m")] = [*world.at[2:], 0.0]
        before = world.at[:2].copy()
        world.carry_out(target)
        assert np.linalg.norm(world.at[:2] - before) <= STEP_M + 1e-12
    assert world.is_success
