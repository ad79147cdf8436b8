"""What people see of `eicorpus latents`: the plan before, one line during, a report that adds up after."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ingest.latents.plan import Todo
from ingest.latents.probe import STORAGES, Probe, bytes_of
from ingest.latents.run import LatentTally
from ingest.models.encoder import ImageEncoder
from ingest.models.encoders import ENCODERS
from jobs.output import answer_json, duration, gigabytes, stderr, stdout, table


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plan:
    """What will be done, with what. `probe` is None when there is nothing to do or nothing can be decoded."""

    todo: Todo
    encoder: ImageEncoder
    probe: Probe | None
    workers: int

    @property
    def num_pictures(self) -> int:
        return self.todo.num_pictures(self.encoder.choice.grid_stride)

    @property
    def estimated_s(self) -> float | None:
        if self.probe is None:
            return None
        hours = self.probe.hours(self.num_pictures, workers=self.workers, num_encoders=1)
        return 3600.0 * hours

    def as_json(self) -> dict[str, Any]:
        choice, found = self.encoder.choice, self.probe
        sizes = {name: bytes_of(choice, self.num_pictures, name) for name in STORAGES}
        out: dict[str, Any] = {
            "encoder_id": self.encoder.id,
            "weights_sha256": self.encoder.weights_sha256,
            "device": self.encoder.device,
            "dtype": choice.storage,
            "tokens": [choice.num_tokens, choice.spec.width],
            "files": len(self.todo),
            "episodes": self.todo.num_episodes,
            "up_to_date": self.todo.up_to_date,
            "pictures": self.num_pictures,
            "num_bytes": sizes,
            "estimated_s": None if self.estimated_s is None else round(self.estimated_s, 1),
        }
        if found is not None:
            out["probe"] = {
                "pictures": found.num_pictures,
                "encode_per_s": round(found.encode_per_s, 2),
                "decode_per_s": round(found.decode_per_s, 1),
                "cosine_error_mean": found.stored_error[0],
                "cosine_error_worst": found.stored_error[1],
                "storage_cosine_error_mean": found.storage_error[0],
                "storage_cosine_error_worst": found.storage_error[1],
            }
        return out


def show_plan(plan: Plan, *, as_json: bool, is_all: bool = False) -> None:
    """The plan: on stderr before any work, on stdout when it `is_all` that was asked for."""
    if as_json:
        answer_json({"plan": plan.as_json()})
        return
    out = stdout if is_all else stderr
    for line in _lines(plan):
        out.print(line, highlight=False, markup=False)


def _lines(plan: Plan) -> list[str]:
    said = plan.as_json()
    sizes = ", ".join(f"{gigabytes(count)} as {name}" for name, count in said["num_bytes"].items())
    lines = [
        f"plan {said['encoder_id']} on {said['device']}: {said['pictures']:,} pictures of {said['files']:,} videos in "
        f"{said['episodes']:,} episodes; {said['up_to_date']:,} videos are up to date",
        f"     {sizes}; {said['dtype']} is written",
    ]
    found = plan.probe
    if found is not None and plan.estimated_s is not None:
        lines += [
            f"     about {duration(plan.estimated_s)} on this machine: an estimate from {found.num_pictures} pictures "
            f"({found.encode_per_s:,.1f} encoded, {found.decode_per_s:,.0f} decoded a second)",
            f"     against float32: 1 - cosine of a token {found.stored_error[0]:.1e} on average, {found.stored_error[1]:.1e} at "
            f"worst; of the storage alone {found.storage_error[0]:.1e}, {found.storage_error[1]:.1e}",
        ]
    return lines


class Live:
    """One progress line on stderr: videos, pictures a second, how busy the encoder is, how long it has no pictures."""

    def __init__(self, plan: Plan, monotonic_s: Callable[[], float]) -> None:
        self._monotonic_s, self._began_s = monotonic_s, monotonic_s()
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[told]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=stderr,
        )
        self._task = self._bar.add_task("latents", total=len(plan.todo), told="")

    def update(self, tally: LatentTally) -> None:
        elapsed_s = self._monotonic_s() - self._began_s
        shares = shares_of(tally, elapsed_s)
        failed = f", {tally.failed} failed" if tally.failed else ""
        told = f"{shares['pictures_per_s']:,.1f} pictures/s, encoder busy {shares['encoder_busy_share']:.0%}, "
        told += f"waits {shares['decode_wait_share']:.0%}{failed}"
        self._bar.update(self._task, completed=tally.encoded + tally.failed, told=told)

    def __enter__(self) -> Live:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()


def shares_of(tally: LatentTally, elapsed_s: float) -> dict[str, float]:
    """Pictures a second, and the shares of all encoders' time in which they worked and had no pictures."""
    all_s = elapsed_s * tally.num_encoders
    return {
        "pictures_per_s": round(tally.num_pictures / elapsed_s, 2) if elapsed_s else 0.0,
        "encoder_busy_share": round(tally.busy_s / all_s, 3) if all_s else 0.0,
        "decode_wait_share": round(tally.wait_s / all_s, 3) if all_s else 0.0,
    }


def show_report(
    plan: Plan, tally: LatentTally, number: int, elapsed_s: float, *, as_json: bool
) -> None:
    """discovered = encoded + up_to_date + failed, in videos."""
    told: dict[str, Any] = {
        "encoder_id": plan.encoder.id,
        "discovered": tally.discovered,
        "up_to_date": tally.up_to_date,
        "encoded": tally.encoded,
        "failed": tally.failed,
        "errors": dict(tally.errors),
        "pictures": tally.num_pictures,
        "num_bytes": tally.num_bytes,
        **shares_of(tally, elapsed_s),
        "encoders": tally.num_encoders,
        "snapshot": number,
        "elapsed_s": round(elapsed_s, 3),
    }
    if as_json:
        answer_json(told | {"failures": tally.failures, "plan": plan.as_json()})
        return
    for failure in tally.failures:
        stderr.print(f"failed {failure}", highlight=False, markup=False)
    shown = told | {"num_bytes": gigabytes(tally.num_bytes), "elapsed_s": duration(elapsed_s)}
    stdout.print(table("latents", ["what", "value"], [[k, v] for k, v in shown.items()]))


def show_list(*, as_json: bool) -> None:
    """Every encoder: its tokens, where its weights are, and its licence."""
    columns = ["encoder", "picture_px", "patches", "width", "prefix", "hub_id", "licence", "gated"]
    rows = [
        [
            spec.name,
            spec.size_px,
            spec.grid**2,
            spec.width,
            spec.num_prefix,
            spec.hub_id or ("none: --untrained only" if spec.has_weights else "none: needs none"),
            spec.licence,
            "yes" if spec.is_gated else "no",
        ]
        for spec in ENCODERS.values()
    ]
    if as_json:
        answer_json({"encoders": [dict(zip(columns, row, strict=True)) for row in rows]})
    else:
        stdout.print(table("encoders", columns, rows))
