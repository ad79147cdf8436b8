"""The answer as Markdown, for docs/results/routing.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.routing.cells import ALL, LABEL

Table = tuple[list[str], list[list[object]]]


def page(answer: Mapping[str, Any]) -> str:
    """What there is so far, step by step."""
    parts = [
        _recorded(answer["record"]) if "record" in answer else (),
        _tiers(answer["judge"]) if "judge" in answer else (),
        _replay(answer["replay"]) if "replay" in answer else (),
        _study(answer["study"]) if answer.get("study") else (),
    ]
    return "\n".join(line for part in parts for line in part)


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(str(cell) for cell in row)} |"
    yield ""


def _interval(
    estimate: Mapping[str, Any], *, is_bold: bool = False, is_signed: bool = False
) -> str:
    if estimate["value"] is None:
        return "–"
    form = "+.3f" if is_signed else ".3f"
    value, low, high = (format(estimate[k], form) for k in ("value", "low", "high"))
    mark = "**" if is_bold else ""
    return f"{mark}{value}{mark} ({low} to {high})"


def _recorded(record: Mapping[str, Any]) -> Iterator[str]:
    rows = [[k["play"], k["is_success"], k["episodes"], k["timesteps"]] for k in record["kinds"]]
    yield from _table(["played", "succeeded", "episodes", "timesteps"], rows)


def _tiers(judge: Mapping[str, Any]) -> Iterator[str]:
    estimates = {"success, all tasks": judge["success_auroc"]}
    estimates |= {f"success, {task}": e for task, e in judge["success_auroc_by_task"].items()}
    estimates |= {f"expert against {kind}": e for kind, e in judge["expert_against"].items()}
    rows = [[name, _interval(e), e["count"]] for name, e in estimates.items()]
    yield from _table(["share of timesteps that are high, AUROC", "(95 % interval)", "n"], rows)
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
    return f"{row['method']} x{row['scale']}{variant_of(row)}"


def variant_of(row: Mapping[str, Any]) -> str:
    """In what it differs from others of its method and scale."""
    plan = f", best of {row['num_chunks']} chunks" if row["num_chunks"] > 1 else ""
    by = "" if row["tiers"] == LABEL else f", tiers by {row['tiers']}"
    of = "" if row["others"] == ALL else f", {row['others']} alone"
    return f"{plan}{by}{of}"


def _study(by_experts: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    yield from _table(*success_table(by_experts))
    yield from _table(*contrast_table(by_experts))
    yield f"{sum(of['core_minutes'] for of in by_experts.values()):.0f} core-minutes."
    yield ""


def success_table(by_experts: Mapping[str, Mapping[str, Any]]) -> Table:
    """Of what `compared_cells` gives. What a chunk costs is shown where some plan."""
    every = [(num, row) for num, of in by_experts.items() for row in of["success"]]
    tasks = list(every[0][1]["by_task"])
    has_plans = any(row["num_chunks"] > 1 for _, row in every)
    head = ["experts a task", "cell", "success", *map(_code, tasks), "by seed", "rollouts"]
    head += ["error of the first chunk, mm", *(["CPU time of a chunk, ms"] * has_plans)]
    rows = []
    for num, row in every:
        cost = [_thousandths(row["chunk_cpu_s"])] if has_plans else []
        by_task = [f"{row['by_task'][task]:.2f}" for task in tasks]
        by_seed = " ".join(f"{value:.2f}" for value in row["by_seed"].values())
        means = [_interval(row["success"], is_bold=True), *by_task, by_seed]
        error = _thousandths(row["start_error_m"])
        rows.append([num, _code(name_of(row)), *means, row["success"]["count"], error, *cost])
    return head, rows


def contrast_table(by_experts: Mapping[str, Mapping[str, Any]]) -> Table:
    """Of what `compared_cells` gives."""
    head = ["experts a task", "difference of success", "scales", "mean", "t interval", "by seed"]
    rows = [
        [
            num,
            name,
            f"{of['scale']} and 0",
            _interval(each, is_signed=True),
            "–"
            if each["t_interval"] is None
            else " to ".join(f"{x:+.3f}" for x in each["t_interval"]),
            " ".join(f"{value:+.2f}" for value in each["by_seed"]),
        ]
        for num, of in by_experts.items()
        for name, each in of["contrasts"].items()
    ]
    return head, rows


def _code(text: str) -> str:
    return f"`{text}`"


def _thousandths(value: float | None) -> str:
    return "–" if value is None else f"{1e3 * value:.0f}"
