"""What is said of a network beside a baseline: by how much, and how sure it is."""

from __future__ import annotations

import numpy as np
import pytest

from training.evaluation.accumulate import FEWEST, Error, ErrorTable, Group
from training.evaluation.summary import Comparison, MetricLine, compared, lines

EACH = 1000  # samples of an episode: they are alike, and make nothing surer


def by_episode(model: list[float], copy: list[float], *, each: int = EACH) -> list[MetricLine]:
    """Forecasts of episodes whose samples all have these errors."""
    tally = ErrorTable()
    for number, errors in enumerate(zip(model, copy, strict=True)):
        named = {
            f"visual_forecasting/{who}/latent_l2": Error(
                total=np.array([[error * each]]), count=np.array([[float(each)]])
            )
            for who, error in zip(("model", "copy"), errors, strict=True)
        }
        tally.add([Group("arm", "high", str(number))], named)
    return lines(tally)


def of(model: list[float], copy: list[float]) -> Comparison:
    return compared(by_episode(model, copy))["copy_last_frame"]


HARD = [float(2**n) for n in range(8)]  # episodes of 1 to 128: nobody knows the mean


def test_what_is_better_in_every_episode_is_better() -> None:
    """2 % of each, although their errors are 128 times apart: both means are of the same episodes. Taken apart, the intervals would overlap by far."""
    found = of([0.98 * error for error in HARD], HARD)
    assert found.answer == "better"
    assert found.skill is not None
    assert found.skill.as_object() == pytest.approx({"value": 0.02, "low": 0.02, "high": 0.02})
    (line, *_) = by_episode([0.98 * error for error in HARD], HARD)
    assert line.model.low is not None
    assert line.model.low < 0.5 * line.baselines["copy"]


def test_better_by_one_episode_is_not_sure() -> None:
    """One of eight is far better, the others are a little worse: 1000 samples of each do not make it clear."""
    found = of([0.2] + [1.05] * 7, [1.0] * 8)
    assert found.is_better is True
    assert found.is_clear is False
    assert found.answer == "better, interval includes 0"
    worse = of([1.0] * 8, [0.2] + [1.05] * 7)
    assert worse.answer == "not better, interval includes 0"


def test_the_interval_is_that_of_the_difference() -> None:
    """Over the same draws, by an own bootstrap: how often the model is worse decides whether 0 is inside."""
    rng = np.random.default_rng(3)
    copy = rng.uniform(1, 2, size=12)
    for shift in (0.0, 0.05, 0.1, 0.2):
        model = copy - shift + rng.normal(0, 0.15, size=12)
        rows = np.random.default_rng(9).integers(12, size=(4000, 12))
        share = np.mean((model - copy)[rows].mean(axis=1) > 0)
        if 0.01 < min(share, 1 - share) < 0.05:
            continue  # too near to the edge for two different bootstraps
        assert of(list(model), list(copy)).is_clear is bool(min(share, 1 - share) < 0.025)


def test_few_episodes_are_never_sure() -> None:
    few = of([0.1] * (FEWEST - 1), [1.0] * (FEWEST - 1))
    assert few.answer == "better, too few episodes to be certain"
    assert few.is_clear is None
    assert of([1.0] * FEWEST, [0.5] * FEWEST).answer == "not better"
    nothing = compared([])["zero_action"]
    assert nothing.answer == "nothing to compare"
    assert nothing.as_object() == {"answer": "nothing to compare", "is_better": None, "is_clear": None, "skill": None, "num_episodes": 0}  # fmt: skip
