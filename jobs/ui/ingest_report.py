"""The output of `ingest`: the plan, the progress line and the report."""

from __future__ import annotations

import time
from collections import Counter
from shlex import quote
from typing import Any

from ingest.pipeline.cost import IngestCost
from ingest.pipeline.plan import Plan
from ingest.pipeline.tally import Tally
from jobs.ui.output import duration, size_text, stderr, stdout, table
from jobs.ui.progress import ProgressLine

# Hours of recording that one worker core brings in per hour, one 640x480 camera at 30 Hz: a guess from the order of
# magnitude that `benchmarks/ingest.py` measures (docs/results/benchmarks.md).
# Only for the estimate before work starts; afterwards the measured speed decides.
HOURS_PER_CORE_HOUR = 15.0


def plan_as_json(plan: Plan, workers: int) -> dict[str, Any]:
    return {
        "source": plan.info.source,
        "dataset": plan.info.dataset,
        "discovered": plan.discovered,
        "to_do": len(plan.todo),
        "known_broken": plan.known_broken,
        "committed_before": plan.done,
        "stale": plan.stale,
        "poisoned": len(plan.poisoned),
        "forgotten": len(plan.forgotten),
        "other_roots": list(plan.other_roots),
        "hours": plan.hours,
        "num_bytes": plan.num_bytes,
        "estimated_s": estimated_s(plan, workers),
        "licence": plan.info.licence.name,
        "notes": list(plan.info.notes),
        "facts": [fact.as_row() for fact in plan.info.facts],
    }


def cost_as_json(cost: IngestCost | None) -> dict[str, Any] | None:
    """`eicorpus ingest` uses no GPU unless `--mano-device` names one, which this does not count."""
    if cost is None:
        return None
    return {
        "probed_episodes": cost.num_probed,
        "hours": cost.hours,
        "core_hours": cost.core_hours,
        "gpu_hours": 0.0,
        "video_tb": cost.video_bytes / 1e12,
        "objects": cost.num_objects,
        "puts": cost.num_puts,
    }


def show_cost(cost: IngestCost | None) -> None:
    """The estimate on standard error, below the plan."""
    if cost is None:
        stderr.print("     cost unknown: none of the probed episodes can be read")
        return
    stderr.print(
        f"     cost: about {cost.core_hours:,.3g} core-hours, 0 GPU-hours, {cost.video_bytes / 1e12:,.3g} TB of video, "
        f"{cost.num_objects:,} objects ({cost.num_puts:,} PUTs in a bucket); an estimate from the cameras of {cost.num_probed} episodes "
        "and the speed of one core in docs/results/benchmarks.md",
        highlight=False,
    )


def estimated_s(plan: Plan, workers: int) -> float:
    """A rough guess from the recording's length; metadata without lengths gives 0."""
    return plan.hours * 3600 / (HOURS_PER_CORE_HOUR * max(workers, 1))


def _estimate(seconds: float) -> str:
    """A minute is what the guess does not resolve: the start of the workers is not part of it."""
    return f"about {duration(seconds)}" if seconds >= 60 else "less than a minute"


def show_plan(plan: Plan, workers: int) -> None:
    """The plan on stderr, before any work."""
    seconds = estimated_s(plan, workers)
    known = f"{duration(plan.hours * 3600)} of recordings" if plan.hours else "duration unknown"
    size = size_text(plan.num_bytes) if plan.num_bytes else "size unknown"
    guess = f", {_estimate(seconds)} on {max(workers, 1)} cores" if seconds else ""
    stderr.print(
        f"[bold]plan[/bold] {plan.info.dataset}: {len(plan.todo)} of {plan.discovered} episodes to ingest, "
        f"{known}, {size}{guess}"
    )
    for what, count in (
        ("known to be broken", plan.known_broken),
        ("already committed", plan.done),
        ("committed with another recipe or adapter version, kept", plan.stale),
        ("crashed a worker in an earlier run, skipped (--retry-crash-looping)", len(plan.poisoned)),
        ("erased by `forget`, skipped (--restore)", len(plan.forgotten)),
    ):
        if count:
            stderr.print(f"     {count} {what}")
    for note in plan.info.notes:
        stderr.print(f"     note: {note}", highlight=False)


class IngestProgress:
    """One progress line on stderr: episodes, speed in hours of video per second, ETA, quarantine by code."""

    def __init__(self, plan: Plan) -> None:
        self.line = ProgressLine(stderr, "ingest", len(plan.todo))
        self.skipped = plan.discovered - len(plan.todo)
        self.started = time.monotonic()

    def __enter__(self) -> IngestProgress:
        self.line.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.line.__exit__(*error)

    def update(self, tally: Tally) -> None:
        done = tally.ended - self.skipped
        elapsed = max(time.monotonic() - self.started, 1e-9)
        speed = f"{done / elapsed:.1f} episodes/s, {tally.video_s / 3600 / elapsed:.4f} video h/s"
        codes = " ".join(f"{code}={count}" for code, count in tally.codes.most_common(3))
        suspects = ", ".join(f"suspect node {node}" for node in sorted(tally.suspect_nodes))
        self.line.update(done, note=" ".join(filter(None, [speed, codes, suspects])))


def report(tally: Tally, plan: Plan, out: str, elapsed_s: float) -> dict[str, Any]:
    """The closing report as data."""
    return {
        "corpus": out,
        "source": plan.info.source,
        "dataset": plan.info.dataset,
        "discovered": tally.discovered,
        "committed": tally.committed,
        "committed_before": tally.committed_before,
        "stale": tally.stale,
        "filtered": tally.filtered,
        "quarantined": tally.quarantined,
        "failed": tally.failed,
        "lacks_cameras": tally.lacks_cameras,
        "absent": tally.absent,
        "notes": list(plan.info.notes),
        "adds_up": tally.adds_up,
        "codes": dict(tally.codes),
        "suspect_nodes": sorted(tally.suspect_nodes.values()),
        "timesteps": tally.timesteps,
        "video_hours": tally.video_s / 3600,
        "elapsed_s": elapsed_s,
    }


def show_report(tally: Tally, out: str, elapsed_s: float) -> None:
    camera_rows = [["  without a camera", tally.lacks_cameras, "missing_cameras: keep"]]
    rows: list[list[Any]] = [
        ["committed", tally.committed, f"{tally.committed_before} in earlier runs"],
        *(camera_rows if tally.lacks_cameras else []),
        ["filtered", tally.filtered, ""],
        ["quarantined", tally.quarantined, _counts_text(tally.codes - tally.failures)],
        ["  not downloaded", tally.absent, "a partial download" if tally.absent else ""],
        ["failed", tally.failed, _counts_text(tally.failures)],
        [
            "= discovered",
            tally.discovered,
            "OK" if tally.adds_up else "MISMATCH: please report this bug",
        ],
    ]
    stdout.print(table("", ["episodes", "count", ""], rows))
    speed = f"{tally.timesteps / max(elapsed_s, 1e-9):,.0f} timesteps/s"
    stdout.print(f"{tally.timesteps:,} timesteps in {duration(elapsed_s)} ({speed}) -> {out}")
    for text in sorted(tally.suspect_nodes.values()):
        stdout.print(f"suspect: {text}", highlight=False, markup=False)
    if tally.quarantined or tally.failed:
        stdout.print(
            f'reasons: eicorpus query {quote(str(out))} "select code, message, episode_id from quarantine"'
        )


def _counts_text(codes: Counter[str]) -> str:
    return ", ".join(f"{count} {code}" for code, count in codes.most_common() if count)
