"""What a tally says: a mean with its interval for every task, body and metric, and by how much it is better than a baseline.

Every metric is an error: less is better. Skill is 1 - error / error of the baseline: 0 is no better, 1 is perfect, negative is worse. Its interval is
that of the paired difference: it leaves out 0 exactly where the interval of error - error of the baseline does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from schemas.supervision import Task
from training.evaluation.accumulate import ByEpisode, ErrorTable, interval
from training.evaluation.errors import L2, POSITION, ROTATION
from training.evaluation.evaluate import COPY, MODEL, WITHOUT_ACTION

EVERY = "all"
BASELINES = {
    "copy_last_frame": (Task.VISUAL_FORECASTING, L2, COPY),
    "zero_action": (Task.POLICY, POSITION, "stay"),
    "zero_action_rotation": (Task.POLICY, ROTATION, "stay"),
    "repeat_action": (Task.POLICY, POSITION, "repeat"),
    "mean_action": (Task.POLICY, POSITION, "mean"),
    "inverse_dynamics_zero_action": (Task.INVERSE_DYNAMICS, POSITION, "stay"),
    "forward_dynamics_copy_last_frame": (Task.FORWARD_DYNAMICS, L2, COPY),
    "forward_dynamics_without_action": (Task.FORWARD_DYNAMICS, L2, WITHOUT_ACTION),
}
NEGLIGIBLE = 1e-5  # error of a baseline (m, rad, ...) that leaves nothing to be better than


@dataclass(frozen=True, slots=True, kw_only=True)
class IntervalEstimate:
    """`low` and `high` hold 95 %; None where there are too few episodes to say."""

    value: float
    low: float | None
    high: float | None

    @property
    def is_clear(self) -> bool | None:
        """Whether the interval leaves out 0; None where there is none."""
        if self.low is None or self.high is None:
            return None
        return self.low > 0 or self.high < 0

    def as_object(self) -> dict[str, float | None]:
        """For JSON."""
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The network beside one baseline, over all bodies. `skill` is None where there is nothing to compare."""

    skill: IntervalEstimate | None
    num_episodes: int

    @property
    def is_better(self) -> bool | None:
        """By the mean; None: nothing to compare."""
        return None if self.skill is None else self.skill.value > 0

    @property
    def is_clear(self) -> bool | None:
        """Whether other episodes would give the same result; None: unknown."""
        return None if self.skill is None else self.skill.is_clear

    @property
    def answer(self) -> str:
        """In words that cannot be taken for more than they say."""
        if self.skill is None:
            return "nothing to compare"
        doubt = {True: "", False: ", interval includes 0", None: ", too few episodes to be certain"}
        return ("better" if self.is_better else "not better") + doubt[self.is_clear]

    def as_object(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "answer": self.answer,
            "is_better": self.is_better,
            "is_clear": self.is_clear,
            "skill": None if self.skill is None else self.skill.as_object(),
            "num_episodes": self.num_episodes,
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MetricLine:
    """One metric of one task over some segments. `num` is how many things were scored, by_step their mean at each step of the chunk."""

    task: str
    embodiment: str
    tier: str
    metric: str
    num_episodes: int
    num: int
    model: IntervalEstimate
    baselines: dict[str, float]
    skill: dict[str, IntervalEstimate]
    by_step: dict[str, list[float | None]]

    def as_object(self) -> dict[str, Any]:
        """For JSON."""
        names = ("task", "embodiment", "tier", "metric", "num_episodes", "num", "baselines")
        return {
            **{name: getattr(self, name) for name in names},
            "model": self.model.as_object(),
            "skill": {name: each.as_object() for name, each in self.skill.items()},
            "by_step": self.by_step,
        }


def lines(tally: ErrorTable, *, seed: int = 0) -> list[MetricLine]:
    """Over everything first, then by body, then by tier; tasks and metrics in the order in which they were met."""
    bodies = sorted({group.embodiment for group in tally.groups})
    tiers = sorted({group.tier for group in tally.groups})
    shares: list[tuple[str | None, str | None]] = [(None, None)]
    shares += [(body, None) for body in bodies] + [(None, tier) for tier in tiers]
    names = [name.split("/") for name in tally.columns]
    asked = [(task, metric) for task, who, metric in names if who == MODEL]
    all_lines = [
        _line(tally, task, metric, body, tier, seed)
        for task, metric in asked
        for body, tier in shares
    ]
    return [line for line in all_lines if line is not None]


def _line(
    tally: ErrorTable, task: str, metric: str, body: str | None, tier: str | None, seed: int
) -> MetricLine | None:
    by_who = {
        name.split("/")[1]: tally.of(name, embodiment=body, tier=tier)
        for name in tally.columns
        if name.startswith(f"{task}/") and name.endswith(f"/{metric}")
    }
    model = by_who.pop(MODEL)
    mean = model.mean()
    if mean is None:
        return None
    draws = model.resampled(seed=seed)
    others = {who: value for who, each in by_who.items() if (value := each.mean()) is not None}
    return MetricLine(
        task=task,
        embodiment=body or EVERY,
        tier=tier or EVERY,
        metric=metric,
        num_episodes=model.num_episodes,
        num=round(model.count.sum()),
        model=_estimate(mean, draws),
        baselines=others,
        skill={
            who: _skill(mean, draws, by_who[who], seed)
            for who, v in others.items()
            if v > NEGLIGIBLE
        },
        by_step={MODEL: model.by_step()} | {who: each.by_step() for who, each in by_who.items()},
    )


def _skill(mean: float, draws: Any, other: ByEpisode, seed: int) -> IntervalEstimate:
    """Both means of the same draws of episodes: what makes an episode hard is hard for both."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = draws / other.resampled(seed=seed)
    return _estimate(1 - mean / (other.mean() or np.nan), 1 - ratio)


def _estimate(value: float, draws: Any) -> IntervalEstimate:
    low, high = interval(draws) or (None, None)
    return IntervalEstimate(value=value, low=low, high=high)


def compared(all_lines: Sequence[MetricLine]) -> dict[str, Comparison]:
    """Over all bodies: is the forecast nearer (L2) than a copy of the picture of now, and the hand nearer to where it went than without any
    motion, going on as before, or by the mean motion.

    In metres and radians, not in normalised units: an element that hardly varies has a tiny scale, and no motion at all is then absurdly wrong in it.
    """
    over_all = {
        (line.task, line.metric): line
        for line in all_lines
        if line.embodiment == EVERY and line.tier == EVERY
    }
    out: dict[str, Comparison] = {}
    for name, (task, metric, who) in BASELINES.items():
        line = over_all.get((task, metric))
        skill = None if line is None else line.skill.get(who)
        out[name] = Comparison(skill=skill, num_episodes=0 if line is None else line.num_episodes)
    return out
