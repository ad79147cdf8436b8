"""Output of `eicorpus train`: text on standard error, the log of the run, TensorBoard and Weights & Biases."""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jobs.ui.output import duration, size_text, stderr, stdout, table
from schemas.errors import ConfigError
from schemas.regular_file import read_regular
from training.run.compute import USUAL_SHARE, Estimate
from training.run.metrics import EventLog, scalars
from training.run.parallel import Ranks
from training.run.run_folder import append_log
from training.run.session import Session

BLIND = "the text features contain no images: they were encoded without --vlm-frame-every-s, so images enter through the latents only"


def progress_note(line: dict[str, Any]) -> str:
    """What the progress line shows of a line of the log: loss, samples a second, MFU, share of time waited for data."""
    return (
        f"loss {line['loss']:.4f} · {line['samples_per_s']:,.0f} samples/s · "
        f"MFU {line['mfu']:.1%} · waiting for data {line['data_wait_share']:.0%}"
    )


def show_plan(session: Session, *, is_all: bool) -> None:
    """What there is to draw from, and what the network is; `is_all` also what it will need."""
    console, counts, needs = stderr if not is_all else stdout, session.loader.counts(), session.estimate()  # fmt: skip
    tasks = list(counts.rows[0].by_task) if counts.rows else []
    rows = [
        [r.embodiment, r.tier, r.segments, r.anchors, f"{r.share:.1%}", *r.by_task.values()]
        for r in counts.rows
    ]
    columns = ["embodiment", "tier", "segments", "samples", "sampling share", *tasks]
    console.print(table("samples available per task", columns, rows))
    if counts.per_batch:
        warning = ", ".join(f"{task} {number:,}" for task, number in counts.per_batch.items())
        console.print(f"samples per global batch: {warning}", highlight=False)
    for warning in _warnings(asdict(counts)):
        console.print(warning, style="yellow", highlight=False)
    told_by = session.learner.conditioner.text_settings
    if told_by is not None and told_by.picture_every_s is None:
        console.print(BLIND, style="bold yellow", highlight=False)
    recipe, ranks = session.request.recipe, session.ranks
    console.print(
        f"device: {session.device}, precision: {recipe.run.precision}, processes: {_processes(ranks)}{_threads(session)}",
        highlight=False,
    )
    parts = [[name, number] for name, number in needs.parameters.items()]
    console.print(table("parameters", ["part", "parameters"], parts))
    if not is_all:
        return
    facts = [
        *_language_model(session),
        ["tokens per sample", ", ".join(f"{k} {v}" for k, v in needs.tokens.items())],
        ["steps", f"{session.first_step:,} of {session.end:,} done"],
        ["epochs", f"{session.end / needs.steps_per_epoch:.2f} of {needs.samples_per_epoch:,} samples"],
        ["compute per sample", f"{needs.flops_per_sample / 1e9:,.2f} GFLOP (forward and backward)"],
        ["peak of this device", f"{needs.peak_flops / 1e12:,.3f} TFLOP/s ({recipe.run.precision})"],
        ["latents", _latents(needs.latents)],
        ["memory per rank", _memory(needs.memory)],
        ["gradient accumulation", _by_parts(needs)],
        ["sent per step and rank", _sent(needs.traffic)],
        ["time", f"about {needs.hours:,.2f} h at {USUAL_SHARE:.0%} of that peak (estimate)"],
    ]  # fmt: skip
    console.print(table("run", ["item", "value"], facts))


def _language_model(session: Session) -> list[list[str]]:
    """Rows of what it sees and of what it learns; none without one."""
    model, pairs, rows = session.language_model(), session.image_text(), list[list[str]]()
    if model:
        sees = "the instruction only, no image"
        if model["images"]:
            sees = f"the instruction and an image every {model['image_every_s']:g} s (first camera matching {model['camera']!r})"
        learns = "frozen"
        if layers := model["trained_layers"]:
            learns = f"layers {layers[0]} to {layers[-1]} are trained with lr {model['lr']:g}"
        rows.append(["language model", f"{model['text_id']} sees {sees}; {learns}"])
    if pairs:
        rows.append(
            [
                "image-text pairs",
                f"{pairs['batch_size']} of {pairs['pairs']:,} every {pairs['every']} steps, weight {pairs['weight']:g}",
            ]
        )
    return rows


def _processes(ranks: Ranks) -> str:
    is_on_one = ranks.local_world_size >= ranks.world_size
    return f"{ranks.world_size}" + ("" if is_on_one else f" ({ranks.local_world_size} per machine)")


def _threads(session: Session) -> str:
    num = session.request.num_threads
    return f", threads: {num}" if num is not None and session.device.type == "cpu" else ""


def _sent(traffic: dict[str, int]) -> str:
    within, between = (size_text(traffic[name]) for name in ("within_machine", "between_machines"))
    groups = f"{traffic['copies']} x {traffic['shard_ranks']} ranks"
    return f"{within} within a machine, {between} between machines (counted, weights on {groups})"


def _latents(read: dict[str, Any]) -> str:
    """Per sample, per step, and at the speed of the line `time`."""
    return (
        f"{read['pictures_per_sample']} images of {read['picture_bytes']:,} bytes per sample ({size_text(read['bytes_per_sample'])}), "
        f"{size_text(read['bytes_per_step'])} per global batch; at the speed below {read['pictures_per_s']:,.0f} random reads/s, {read['gb_per_s']:,.3f} GB/s"
    )


def _memory(bytes_of: dict[str, int]) -> str:
    parts = ", ".join(
        f"{name} {size_text(num)}" for name, num in bytes_of.items() if name != "total"
    )
    return f"about {size_text(bytes_of['total'])} (estimate): {parts}"


def _by_parts(needs: Estimate) -> str:
    """Of a few numbers of parts what a rank needs: which GPU a run fits is decided there, not on this machine."""
    shown = [n for n in needs.memory_by_parts if n <= 16]
    parts = ", ".join(f"{n}: {size_text(needs.memory_by_parts[n])}" for n in shown)
    of_80_gb = needs.accumulate_of_80_gb or "no number of parts fits"
    return (
        f"run.accumulate {needs.accumulate} (from the {needs.accumulate_by}); for a GPU of 80 GB: {of_80_gb}; "
        f"memory per rank by number of parts: {parts}"
    )


def _warnings(counts: dict[str, Any]) -> list[str]:
    out = []
    if counts["labelled_segments"]:
        out.append(
            f"the policy also says latent actions, of {counts['labelled_segments']:,} segments without actions ({counts['labelled_anchors']:,} samples)"
        )
    if counts["shortfalls"]:
        to_others = "; the other tasks get their share of each batch" if counts["per_batch"] else ""
        out.append(f"no segment is usable for {', '.join(counts['shortfalls'])}{to_others}")
    left = counts["unseen"] + counts["too_short"]
    if left:
        share = f"{counts['lost_weight']:.1%} of the sampling weight moves to other segments"
        out.append(
            f"{left:,} of {counts['segments']:,} segments are skipped: {counts['unseen']:,} without latents, "
            f"{counts['too_short']:,} too short for a window; {share}"
        )
    return out


def show_idle_gpus(num_gpus: int, words: Sequence[str]) -> None:
    """One process uses one of them. `words`: of the command, without the program's name."""
    # 900 s for a step and a checkpoint, by the environment because older torchruns refuse the option.
    torchrun = f"TORCH_ELASTIC_SHUTDOWN_TIMEOUT=900 torchrun --nproc-per-node {num_gpus}"
    command = f"{torchrun} -m jobs {shlex.join(words)}"
    note = f"1 of {num_gpus} GPUs is used; to use all, run: {command}"
    stderr.print(note, style="yellow", highlight=False, markup=False, soft_wrap=True)


def show_done(result: dict[str, Any]) -> None:
    """A table of what came of it."""
    names = ("run", "step", "loss", "samples_per_s", "mfu", "data_wait_share", "checkpoint")
    rows = [[name, result[name]] for name in names if result.get(name) is not None]
    rows.append(["elapsed_s", duration(result["elapsed_s"])])
    stdout.print(table("train", ["item", "value"], rows))


WANDB_ID = "wandb_id"  # in a run: which run of W&B has its lines


def sinks_of(session: Session, wandb: str | None, stack: ExitStack) -> list[Any]:
    """Destinations of log lines: the run's log, TensorBoard if it is installed, W&B if it is enabled."""
    out = session.request.out
    sinks: list[Any] = [lambda line: append_log(out, line)]
    try:
        events = EventLog(out, session.first_step)
    except ModuleNotFoundError:  # of the extra only tensorboard may be left out
        pass
    else:
        stack.callback(events.close)
        sinks.append(events.add)
    if wandb is not None:
        sinks.append(_to_wandb(session, wandb, stack))
    return sinks


def _to_wandb(session: Session, project: str, stack: ExitStack) -> Any:
    """Raises ConfigError where the extra is missing."""
    try:
        import wandb
    except ModuleNotFoundError as error:
        raise ConfigError(
            "wandb is not installed", remedy="run pip install 'eicorpus[wandb]'", where="--wandb"
        ) from error
    request = session.request
    run = wandb.init(
        project=project,
        name=request.out.name,
        id=_wandb_id(request.out),
        resume="allow",
        config=request.recipe.model_dump(mode="json"),
        dir=str(request.out),
    )
    stack.callback(run.finish)
    # The steps of W&B's own only go up: it drops what a run that resumed from an older checkpoint says of a step again.
    run.define_metric("step")
    run.define_metric("*", step_metric="step")
    return lambda line: run.log({"step": line["step"], **dict(scalars(line))})


def _wandb_id(out: Path) -> str:
    """Drawn once for a folder, and then its own: another folder is another run, though its recipe and manifest be the same. A copy of it takes it along."""
    path = out / WANDB_ID
    kept = read_regular(path, max_bytes=100).decode() if path.exists() else ""
    if not kept:  # or empty where power went as it was written
        path.write_text(kept := secrets.token_hex(8))
    return kept
