"""The answer as Markdown, for docs/results/routing.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def page(answer: Mapping[str, Any]) -> str:
    """What there is so far, step by step."""
    parts = [
        _recorded(answer["record"]) if "record" in answer else (),
        _tiers(answer["judge"]) if "judge" in answer else (),
        _replay(answer["replay"]) if "replay" in answer else (),
        *(_study(num, of) for num, of in answer.get("study", {}).items()),
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


def name_of(row: Mapping[str, Any]) -> str:
    """Of a row of `compared_cells`."""
    plan = f", best of {row['num_chunks']} chunks" if row["num_chunks"] > 1 else ""
    return f"{row['method']} x{row['scale']}{plan}"


def _study(num_experts: str, of: Mapping[str, Any]) -> Iterator[str]:
    tasks = list(of["success"][0]["by_task"])
    head = [f"{num_experts} experts a task", "success", *tasks, "by seed", "error at the start, mm"]
    rows = [
        [
            name_of(each),
            _interval(each["success"]),
            *(f"{each['by_task'][task]:.2f}" for task in tasks),
            " ".join(f"{value:.2f}" for value in each["by_seed"].values()),
            f"{1e3 * each['start_error_m']:.1f}",
        ]
        for each in of["success"]
    ]
    yield from _table(head, rows)
    rows = [[name, _interval(each), each["num_seeds"]] for name, each in of["contrasts"].items()]
    head = [f"difference of success, scale {of['scale']}", "mean (95 % bootstrap)", "seeds"]
    yield from _table(head, rows)
    yield f"{of['core_minutes']} core-minutes."
    yield ""
