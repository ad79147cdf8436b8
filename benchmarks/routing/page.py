"""The answer as Markdown, for docs/results/routing.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.routing.settings import NAMES


def page(answer: Mapping[str, Any]) -> str:
    """What there is so far, step by step."""
    parts = [
        _recorded(answer["record"]) if "record" in answer else (),
        _tiers(answer["judge"]) if "judge" in answer else (),
        _replay(answer["replay"]) if "replay" in answer else (),
        _compared(answer["compare"]) if "compare" in answer else (),
    ]
    return "\n".join(line for part in parts for line in part)


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(str(cell) for cell in row)} |"
    yield ""


def _interval(estimate: Mapping[str, Any], *, digits: int = 3) -> str:
    if estimate["value"] is None:
        return "–"
    value, low, high = (f"{estimate[k]:.{digits}f}" for k in ("value", "low", "high"))
    return f"{value} ({low} to {high}), n = {estimate['count']}"


def _recorded(record: Mapping[str, Any]) -> Iterator[str]:
    rows = [[k["play"], k["is_success"], k["episodes"], k["timesteps"]] for k in record["kinds"]]
    yield from _table(["played", "succeeded", "episodes", "timesteps"], rows)


def _tiers(judge: Mapping[str, Any]) -> Iterator[str]:
    rows = [["success, all tasks", _interval(judge["success_auroc"])]]
    rows += [[f"success, {t}", _interval(e)] for t, e in judge["success_auroc_by_task"].items()]
    rows += [[f"expert against {k}", _interval(e)] for k, e in judge["expert_against"].items()]
    yield from _table(["share of timesteps that are high, AUROC", "(95 % interval)"], rows)
    rows = [
        [c["play"], c["is_success"], c["tier"], c["rules"], c["episodes"]] for c in judge["counts"]
    ]
    yield from _table(["played", "succeeded", "tier", "rules", "episodes"], rows)


def _replay(replay: Mapping[str, Any]) -> Iterator[str]:
    rows = [
        [task, *(row[k] for k in ("episodes", "recorded", "raw", "corpus"))]
        for task, row in replay["by_task"].items()
    ]
    head = ["task", "episodes", "succeeded", "raw commands again", "by way of the corpus"]
    yield from _table(head, rows)
    yield (
        f"Another outcome than the raw commands: {replay['different_outcome']} of {replay['episodes']}; "
        f"targets at most {replay['worst_target_error_m']:.1e} m beside those commanded."
    )
    yield ""


def _compared(compare: Mapping[str, Any]) -> Iterator[str]:
    arms = list(compare["success"])
    tasks = dict.fromkeys(t for a in arms for t in compare["by_task"][a])
    rows = [["all tasks", *(_interval(compare["success"][a]) for a in arms)]]
    rows += [[t, *(_interval(compare["by_task"][a][t]) for a in arms)] for t in tasks]
    rows += [
        [f"seed {s}", *(f"{compare['by_seed'][a].get(s, '–')}" for a in arms)]
        for s in dict.fromkeys(s for a in arms for s in compare["by_seed"][a])
    ]
    yield from _table(["success in the simulator", *(NAMES[a] for a in arms)], rows)
    rows = [[name, _interval(e)] for name, e in compare["difference"].items()]
    yield from _table(["difference by seed", "mean (95 % bootstrap)"], rows)
    metrics = dict.fromkeys(m for a in arms for m in compare["error"][a])
    rows = [[m, *(_by_seed(compare["error"][a].get(m, {})) for a in arms)] for m in metrics]
    yield from _table(["held-out error of the policy", *(NAMES[a] for a in arms)], rows)
    rows = [[name, _interval(e, digits=5)] for name, e in compare["error_difference"].items()]
    yield from _table(["difference of errors by seed", "mean (95 % bootstrap)"], rows)


def _by_seed(values: Mapping[str, float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values.values()) or "–"
