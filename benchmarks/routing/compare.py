"""The arms beside each other: success pooled over seeds with Wilson's interval, and the difference seed by seed."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np

from benchmarks.routing.statistics import paired_difference, wilson

_OF_ITS_OWN_UNIT = {"normalised_l1"}  # arms have other statistics, and so other units
Answers = Mapping[str, Mapping[int, Mapping[str, Any]]]


def compared(rollouts: Answers, errors: Answers, *, seed: int) -> dict[str, Any]:
    """`rollouts`: arm -> seed -> answer of `rollout_report`; `errors`: -> answer of `eicorpus eval`.

    Rollouts of one seed share a network, so the pooled interval is too narrow where seeds differ: the differences are by seed.
    """
    rng = np.random.default_rng([seed, 3])
    return {
        "success": {arm: _pooled(answers) for arm, answers in rollouts.items()},
        "by_task": {arm: _by_task(answers) for arm, answers in rollouts.items()},
        "by_seed": {
            arm: {str(s): a["success"]["value"] for s, a in answers.items()}
            for arm, answers in rollouts.items()
        },
        "error": {arm: _errors(answers) for arm, answers in errors.items()},
        "error_difference": _error_differences(errors, rng),
        "difference": {
            f"{one} - {other}": _difference(rollouts[one], rollouts[other], rng)
            for one, other in combinations(reversed(list(rollouts)), 2)
        },
    }


def _pooled(answers: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    return _wilson_of([a["rollouts"] for a in answers.values()])


def _by_task(answers: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    tasks = dict.fromkeys(r["task"] for a in answers.values() for r in a["rollouts"])
    return {
        task: _wilson_of(
            [[r for r in a["rollouts"] if r["task"] == task] for a in answers.values()]
        )
        for task in tasks
    }


def _wilson_of(rollouts: list[list[dict[str, Any]]]) -> dict[str, Any]:
    flat = [r["success_at"] is not None for of in rollouts for r in of]
    return wilson(sum(flat), len(flat)).as_dict()


def _difference(
    one: Mapping[int, Mapping[str, Any]],
    other: Mapping[int, Mapping[str, Any]],
    rng: np.random.Generator,
) -> dict[str, Any]:
    seeds = [s for s in one if s in other]
    values = [[a[s]["success"]["value"] for s in seeds] for a in (one, other)]
    return paired_difference(values[0], values[1], rng).as_dict()


def _errors(answers: Mapping[int, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Metric of the policy task -> seed -> error over the held-out episodes of all tasks; not those in the unit of an arm's own manifest."""
    out: dict[str, dict[str, float]] = {}
    for seed, answer in answers.items():
        for line in answer["lines"]:
            of_all = (line["task"], line["embodiment"], line["tier"]) == ("policy", "all", "all")
            if of_all and line["metric"] not in _OF_ITS_OWN_UNIT:
                out.setdefault(line["metric"], {})[str(seed)] = line["model"]["value"]
    return out


def _error_differences(errors: Answers, rng: np.random.Generator) -> dict[str, Any]:
    """As `difference`, of every metric: below 0 the first arm is better."""
    by_arm = {arm: _errors(answers) for arm, answers in errors.items()}
    out: dict[str, Any] = {}
    for one, other in combinations(reversed(list(by_arm)), 2):
        for metric in sorted(by_arm[one].keys() & by_arm[other].keys()):
            a, b = by_arm[one][metric], by_arm[other][metric]
            seeds = [s for s in a if s in b]
            difference = paired_difference([a[s] for s in seeds], [b[s] for s in seeds], rng)
            out[f"{one} - {other}, {metric}"] = difference.as_dict()
    return out
