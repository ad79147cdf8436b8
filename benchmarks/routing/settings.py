"""What one run of the benchmark is: fixed when its folder is made, checked when it is resumed."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.routing.plan import Budget
from schemas.errors import ConfigError

ARMS = ("high", "everything", "routed")
NAMES = {
    "high": "(a) high tier only",
    "everything": "(b) everything with actions, behaviour cloning",
    "routed": "(c) high, low and actionless, routed",
    "high_routed": "(control) high tier only, routed",
    "high_brief": "(control) high tier only, as many policy samples as (c)",
    "routed_policy": "(control) routed, policy weighted 8",
}
_TASKS = ("policy", "forward_dynamics", "inverse_dynamics", "visual_forecasting")
_POLICY_ALONE = {task: float(task == "policy") for task in _TASKS}
_ALL_ALIKE = dict.fromkeys(_TASKS, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One way to train: which segments, and which tasks they are trained on."""

    name: str
    manifest: str  # its name; arms may share one
    where: str
    policy: str | None  # another tier policy than the one applied; a file beside this one
    weights: dict[str, float]
    as_brief_as: str | None = None  # an arm: only as many steps as give this one its policy samples


def arm_named(name: str) -> Arm:
    """Plain behaviour cloning is the policy task alone; routing is all four by the recipe's own weights."""
    high, all_of_it = "tier = 'high'", "tier IN ('high', 'low', 'actionless')"
    policy_first = _ALL_ALIKE | {"policy": 8.0}
    arms = {
        "high": ("high", high, None, _POLICY_ALONE),
        "everything": ("everything", high, "everything", _POLICY_ALONE),
        "routed": ("routed", all_of_it, None, _ALL_ALIKE),
        "high_routed": ("high", high, None, _ALL_ALIKE),
        "high_brief": ("high", high, None, _POLICY_ALONE),
        "routed_policy": ("routed", all_of_it, None, policy_first),
    }
    if name not in arms:
        raise ConfigError(f"no arm {name!r}; there are {', '.join(arms)}", where="--arms")
    manifest, where, policy, weights = arms[name]
    return Arm(
        name=name,
        manifest=manifest,
        where=where,
        policy=policy,
        weights=weights,
        as_brief_as="routed" if name == "high_brief" else None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that decides the figures."""

    seed: int = 0
    budget: Budget = field(default_factory=Budget)
    arms: tuple[str, ...] = ARMS
    num_seeds: int = 5
    num_rollouts: int = 10  # of each task, arm and seed; the same scenes for all
    num_steps: int = 2500
    encoder: str = "patch_dct_coarse"  # 16 tokens: what 15 trainings on two cores can bear
    weights: str | None = None  # folder of the encoder's weights, where it has any
    recipe: str = "tiny"  # what the arms' recipes extend

    def __post_init__(self) -> None:
        for name in self.arms:
            other = arm_named(name).as_brief_as
            if other is not None and other not in self.arms:
                raise ConfigError(f"{name} is as brief as {other}: name it too", where="--arms")
        if self.num_seeds < 1 or self.num_rollouts < 1 or self.num_steps < 1:
            raise ConfigError("seeds, rollouts and steps are at least 1", where=str(self))

    def as_dict(self) -> dict[str, Any]:
        """What every figure depends on. More arms and more seeds only add some."""
        return {k: v for k, v in asdict(self).items() if k not in ("arms", "num_seeds")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where everything of a run lies."""

    out: Path

    @property
    def raw(self) -> Path:
        return self.out / "raw"

    @property
    def corpus(self) -> Path:
        return self.out / "corpus"

    def recipe(self, arm: str, seed: int) -> Path:
        return self.out / "recipes" / f"{arm}-{seed}.yaml"

    def run(self, arm: str, seed: int) -> Path:
        return self.out / "runs" / f"{arm}-{seed}"
