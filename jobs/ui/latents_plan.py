"""The plan of `eicorpus latents images`: the work, the device, the size on disk and the estimated time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from ingest.latents.cost_estimate import STORAGES, CostEstimate, bytes_of
from ingest.latents.plan import LatentTodo, Packing
from ingest.models.encoder import ImageEncoder
from jobs.machine import free_bytes
from jobs.ui.output import answer_json, duration, size_text, stderr, stdout

SHOWN_CAMERAS = 12  # by name


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodePlace:
    """Where the work is done. `workers`: that decode at once, and `encoders`; None on a cluster that is not connected yet.

    is_measured: whether encoders are on what the probe is on. On Ray they are not: it is on a CPU of this machine.
    idle_gpus: of this machine.
    """

    name: Literal["cpu", "cuda", "Ray"]
    workers: int | None
    encoders: int | None = 1
    is_measured: bool = True
    idle_gpus: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LatentsPlan:
    """The work and its resources. `probe` is None when there is nothing to do or nothing can be decoded. `cameras`: the requested ones."""

    todo: LatentTodo
    encoder: ImageEncoder
    probe: CostEstimate | None
    place: EncodePlace
    cameras: tuple[str, ...] = ()
    packing: Packing | None = None  # None: each file is an object

    @property
    def num_pictures(self) -> int:
        return self.todo.num_pictures(self.encoder.choice.grid_stride)

    @property
    def num_bytes(self) -> int:
        """That will be written."""
        return bytes_of(self.encoder.choice, self.num_pictures, self.encoder.choice.storage)

    @property
    def estimated_s(self) -> float | None:
        """None where the speed of the encoder is unknown."""
        if not self.place.is_measured or self.place.encoders is None:
            return None
        return self._seconds(self.place.encoders)

    @property
    def decoding_s(self) -> float | None:
        """Of decoding alone, however fast encoders are."""
        return self._seconds(math.inf)

    @property
    def cost(self) -> dict[str, Any]:
        """Hours are None where the probe does not tell. GPU-hours are those of the GPU that it ran on."""
        probe, is_on_cpus = self.probe, self.place.is_measured and self.place.name != "cuda"
        decode_h = self._at(probe.decode_per_s) if probe is not None else None
        encode_h = self._at(probe.encode_per_s) if probe is not None else None
        both_h = None if decode_h is None or encode_h is None else decode_h + encode_h
        gpu_h = encode_h if self.place.name == "cuda" else None
        return {
            "core_hours": both_h if is_on_cpus else decode_h,
            "gpu_hours": 0.0 if is_on_cpus else gpu_h,
            "latents_tb": self.num_bytes / 1e12,
            "objects": (objects := self.todo.num_units(self.packing)),
            "puts": objects,
        }

    def _at(self, pictures_per_s: float) -> float | None:
        return self.num_pictures / pictures_per_s / 3600.0 if pictures_per_s else None

    def _seconds(self, encoders: float) -> float | None:
        if self.probe is None or self.place.workers is None:
            return None
        workers = self.place.workers
        return 3600.0 * self.probe.hours(self.num_pictures, workers=workers, num_encoders=encoders)

    def as_json(self) -> dict[str, Any]:
        choice, probe, place = self.encoder.choice, self.probe, self.place
        sizes = {name: bytes_of(choice, self.num_pictures, name) for name in STORAGES}
        out: dict[str, Any] = {
            "encoder_id": self.encoder.id,
            "weights_sha256": self.encoder.weights_sha256,
            "device": place.name,
            "encoders": place.encoders,
            "workers": place.workers,
            "idle_gpus": place.idle_gpus,
            "dtype": choice.storage,
            "tokens": [choice.num_tokens, choice.spec.width],
            "files": len(self.todo),
            "cameras": self.todo.cameras(),
            "episodes": self.todo.num_episodes,
            "up_to_date": self.todo.up_to_date,
            "pictures": self.num_pictures,
            "num_bytes": sizes,
            "free_bytes": free_bytes(self.todo.corpus.root),
            "estimated_s": _rounded(self.estimated_s),
            "decoding_s": _rounded(self.decoding_s),
        }
        out["cost"] = self.cost
        if probe is not None:
            out["probe"] = {
                "measured_on": f"{self.encoder.device} of this machine",
                "pictures": probe.num_pictures,
                "encode_per_s": round(probe.encode_per_s, 2),
                "decode_per_s": round(probe.decode_per_s, 1),
                "cosine_error_mean": probe.stored_error[0],
                "cosine_error_worst": probe.stored_error[1],
                "storage_cosine_error_mean": probe.storage_error[0],
                "storage_cosine_error_worst": probe.storage_error[1],
            }
        return out


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)


def show_plan(plan: LatentsPlan, *, as_json: bool, is_all: bool = False) -> None:
    """The plan: on stderr before any work, on stdout when it `is_all` that was asked for."""
    if as_json:
        answer_json({"plan": plan.as_json()})
        return
    out = stdout if is_all else stderr
    for line in plan_lines(plan):
        out.print(line, highlight=False, markup=False)


def plan_lines(plan: LatentsPlan) -> list[str]:
    """The plan as text."""
    page = plan.as_json()
    sizes = ", ".join(f"{size_text(count)} as {name}" for name, count in page["num_bytes"].items())
    return [
        f"plan {page['encoder_id']} on {page['device']}: {page['pictures']:,} images of {page['files']:,} videos in "
        f"{page['episodes']:,} episodes; {page['up_to_date']:,} videos are up to date",
        *_camera_lines(plan),
        f"     {sizes}; stored as {page['dtype']}; {size_text(page['free_bytes'])} free on disk",
        *([] if plan.probe is None else _probe_lines(plan, plan.probe)),
        _cost_line(page["cost"]),
    ]


def _cost_line(cost: dict[str, Any]) -> str:
    return (
        f"     cost: {_hours(cost['core_hours'])} core-hours, {_hours(cost['gpu_hours'])} GPU-hours, "
        f"{cost['latents_tb']:,.3g} TB of latents, {cost['objects']:,} objects (PUTs)"
    )


def _hours(hours: float | None) -> str:
    return "unknown" if hours is None else f"about {hours:,.3g}" if hours else "0"


def _camera_lines(plan: LatentsPlan) -> list[str]:
    counts = plan.todo.cameras()
    if not counts:
        return []
    shown = ", ".join(f"{name} {count:,}" for name, count in list(counts.items())[:SHOWN_CAMERAS])
    if len(counts) > SHOWN_CAMERAS:
        shown += f" and {len(counts) - SHOWN_CAMERAS} more"
    all_of_them = "cameras" if plan.cameras else "every camera (select some with --camera NAME)"
    return [f"     {all_of_them}: {shown}"]


def _probe_lines(plan: LatentsPlan, estimate: CostEstimate) -> list[str]:
    measured = f"{estimate.num_pictures} images on the {plan.encoder.device} of this machine"
    rates = f"{estimate.encode_per_s:,.1f} images/s per encoder, {estimate.decode_per_s:,.0f} images/s per decoder process"
    lines = [
        f"     {_time_line(plan)}: an estimate from {measured} ({rates})",
        f"     against float32: 1 - cosine of a token {estimate.stored_error[0]:.1e} on average, {estimate.stored_error[1]:.1e} at "
        f"worst; from the number format alone {estimate.storage_error[0]:.1e}, {estimate.storage_error[1]:.1e}",
    ]
    if idle := plan.place.idle_gpus:
        lines.append(
            f"     {idle} of {idle + 1} GPUs of this machine stay idle; --ray runs an encoder on each"
        )
    return lines


def _time_line(plan: LatentsPlan) -> str:
    place = plan.place
    if plan.estimated_s is not None:
        return f"about {duration(plan.estimated_s)} with {_encoders(place)} and {place.workers} decoder processes"
    unknown = "duration unknown: the GPUs of the cluster are not measured"
    if plan.decoding_s is None:
        return unknown
    return (
        f"{unknown}; with {_encoders(place)} and {place.workers} decoder processes, decoding takes "
        f"about {duration(plan.decoding_s)}"
    )


def _encoders(place: EncodePlace) -> str:
    return "1 encoder" if place.encoders == 1 else f"{place.encoders} encoders"
