"""How well the tiers that the built-in policy found tell success from failure. It never saw the labels: the adapter does not read them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.routing.plan import Play
from benchmarks.routing.statistics import auroc_estimate
from benchmarks.routing.stored import Judged


def report(judged: Sequence[Judged], *, seed: int) -> dict[str, Any]:
    """Of episodes with actions: AUROC of the share of timesteps that are high, against the success flag and against kinds of play.

    `expert_against`: only the expert's episodes and those of one kind; there the label is the kind, not whether it happened to succeed.
    """
    acted = [one for one in judged if one.label["has_actions"]]
    rng = np.random.default_rng([seed, 2])
    experts = [one for one in acted if one.label["play"] == Play.EXPERT.value]
    kinds = {}
    for kind in sorted({kind_of(one) for one in acted} - {Play.EXPERT.value}):
        others = [one for one in acted if kind_of(one) == kind]
        is_expert = [True] * len(experts) + [False] * len(others)
        score = [one.high_share for one in experts + others]
        kinds[kind] = auroc_estimate(score, is_expert, rng).as_dict()
    scores, success = zip(
        *((o.high_share, bool(o.label["is_success"])) for o in acted), strict=True
    )
    tasks = sorted({one.episode_id.partition("/")[0] for one in acted})
    return {
        "episodes": len(acted),
        "videos": len(judged) - len(acted),
        "success_auroc": auroc_estimate(scores, success, rng).as_dict(),
        "success_auroc_by_task": {
            task: auroc_estimate(
                [o.high_share for o in acted if o.episode_id.startswith(f"{task}/")],
                [bool(o.label["is_success"]) for o in acted if o.episode_id.startswith(f"{task}/")],
                rng,
            ).as_dict()
            for task in tasks
        },
        "expert_against": kinds,
        "counts": counts(judged),
    }


def kind_of(one: Judged) -> str:
    """The kind of play, noise with its size."""
    play, sigma = one.label["play"], one.label["sigma"]
    return f"{play} {sigma:g}" if sigma else str(play)


def counts(judged: Sequence[Judged]) -> list[dict[str, Any]]:
    """How many episodes of each kind got which tier, by which rules."""
    tally = Counter(
        (
            kind_of(one) if one.label["has_actions"] else "video",
            bool(one.label["is_success"]),
            one.tier,
            ", ".join(one.codes),
        )
        for one in judged
    )
    keys = ("play", "is_success", "tier", "rules")
    return [dict(zip(keys, key, strict=True)) | {"episodes": n} for key, n in sorted(tally.items())]
