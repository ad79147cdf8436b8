"""Text and JSON of `eicorpus plan` and `eicorpus build`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ingest.corpus.remote_link import address_of
from jobs.build.plan import PlannedTarget
from jobs.build.run import BuildResult, TargetResult
from jobs.ui.output import duration, size_text, stdout, table


def plan_as_object(plan: Sequence[PlannedTarget], corpus: Path) -> dict[str, Any]:
    return {
        "corpus": address_of(corpus),
        "up_to_date": all(each.state.is_up_to_date for each in plan),
        "estimated_s": total_s(plan),
        "targets": [
            {
                "target": each.target,
                "state": each.state.status.value,
                "why": each.state.why,
                "unit": each.unit,
                "to_do": 0 if each.state.is_up_to_date else each.state.todo.count,
                "hours": each.state.todo.hours,
                "num_bytes": each.state.todo.num_bytes,
                "estimated_s": _rounded(each.estimated_s),
            }
            for each in plan
        ],
    }


def total_s(plan: Sequence[PlannedTarget]) -> float | None:
    """None where the time of one target is unknown."""
    known = [each.estimated_s for each in plan if each.estimated_s is not None]
    return _rounded(sum(known)) if len(known) == len(plan) else None


def show_plan(plan: Sequence[PlannedTarget], corpus: Path) -> None:
    rows = [
        [
            each.target,
            each.state.status.value,
            each.state.why,
            _todo(each),
            "" if each.state.todo.hours is None else f"{each.state.todo.hours:.3g}",
            "" if each.state.todo.num_bytes is None else size_text(each.state.todo.num_bytes),
            "" if each.state.is_up_to_date else _time(each.estimated_s),
        ]
        for each in plan
    ]
    stdout.print(table("", ["target", "state", "why", "to do", "hours", "size", "time"], rows))
    waiting = sum(not each.state.is_up_to_date for each in plan)
    if not waiting:
        stdout.print(
            f"everything is up to date: {address_of(corpus)}", highlight=False, markup=False
        )
        return
    time = _time(total_s(plan))
    stdout.print(f"{waiting} of {len(plan)} targets to build, time {time}", highlight=False)


def _todo(each: PlannedTarget) -> str:
    count = each.state.todo.count
    if each.state.is_up_to_date:
        return ""
    return f"? {each.unit}" if count is None else f"{count:,} {each.unit}"


def _time(seconds: float | None) -> str:
    return "unknown" if seconds is None else duration(seconds)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)


def build_as_object(done: BuildResult, corpus: Path) -> dict[str, Any]:
    return {
        "corpus": address_of(corpus),
        "snapshot": done.snapshot,
        "adds_up": done.adds_up,
        "built": [each.target for each in done.targets if each.outcome == "built"],
        "targets": [
            {
                "target": each.target,
                "outcome": each.outcome,
                "unit": each.unit,
                **each.counts.model_dump(),
                "note": each.note,
                "failure": each.failure,
                "elapsed_s": round(each.elapsed_s, 3),
            }
            for each in done.targets
        ],
        "elapsed_s": round(done.elapsed_s, 3),
    }


def show_build(done: BuildResult, corpus: Path) -> None:
    """One table over all stages: of each target, total = up to date + done + left out + failed + left."""
    columns = ["target", "outcome", "total", "", "= up to date", "+ done", "+ left out"]
    columns += ["+ failed", "+ left", "time", "note"]
    stdout.print(table("", columns, [_row(each) for each in done.targets]))
    for each in done.targets:
        if each.failure:
            stdout.print(f"{each.target}: {each.failure}", markup=False, highlight=False)
    where = f"{address_of(corpus)}, snapshot {done.snapshot}"
    stdout.print(f"{where}, {duration(done.elapsed_s)}", markup=False, highlight=False)


def _row(each: TargetResult) -> list[Any]:
    counts = each.counts
    return [
        each.target,
        each.outcome,
        counts.total,
        each.unit,
        counts.up_to_date,
        counts.done,
        counts.left_out,
        counts.failed,
        counts.left,
        duration(each.elapsed_s) if each.outcome != "up to date" else "",
        each.note,
    ]
