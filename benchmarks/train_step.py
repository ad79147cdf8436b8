"""A training step: seconds, samples a second, share of the matmul peak measured in the same run, memory, and which attention kernels ran.

    python -m benchmarks.train_step [--json] [--quick] [--counts] [--device auto|cpu|cuda] [--batch N] [--steps N] [--only CASE] [--manifest FOLDER] [--kernels FOLDER]

On a CPU a small network of the same make; on a GPU `lda_1b`, and what its kernels are. Each case runs in a process of its own, so that its memory is its own. Steps are those of the
run's own loop: batches from the run's loader with its threads, over a corpus that is made first (196 patches of 384); their copy to the device, noise, forward,
backward, clip, AdamW, averages, whether the step before was finite, what is added up for the log and a line of it in a file. Only the text is made up: seeded features of
32 to 64 tokens, not read from disk. `--counts` times nothing: launches, reads and arithmetic of a step, what autograd keeps,
and what torch.compile fuses outside of the blocks.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks import gpu_kernels, result
from benchmarks.own_process import in_own_process, peak_rss_mib
from benchmarks.step_case import (
    NUM_TEXT,
    Case,
    batch_that_fits,
    estimated,
    host_batches,
    lda_1b,
    loop_of,
)
from benchmarks.step_counts import counted_of
from training.model.attention import kernels_of
from training.model.settings import Architecture
from training.run.compute import flops_per_sample, matmul_peak

# Figure -> what it is, for docs/results/benchmarks.md.
KEYS = {
    "step_s_*": "Mean of `--steps` steps of the loop after two, by its log.",
    "first_step_s_*": "The first step, with compilation.",
    "samples_per_s_*": "Samples a second.",
    "matmul_peak_tflops_*": "Best of 6 square matrix products of that precision in the same process.",
    "mfu_ratio_*": "Arithmetic of the network, without padding of text, over that peak. Target on a GPU: at least 0.4.",
    "launches_*": "Operators of a step of the loop that are no views, counted on a CPU with two small layers.",
    "waits_*": "Reads of the device by the host in that step, of stored text features. `text.kind: online` has 2 more, and with pictures dozens, most of them in transformers.",
    "kept_*": "Bytes of a token and width that a block of `lda_1b` keeps for the backward pass in bf16, counted.",
    "data_wait_share_*": "Share of a step that waits for the loader.",
    "op_gflop_*": "Arithmetic of a sample of `lda_1b` with 200 tokens of text, by operator, counted; `_before`: with a gradient of frozen text.",
    "step_tflop_*": "Arithmetic of a step of 192 samples of `lda_1b` with 100 to 200 tokens of text, counted with a mask: keys and values of every sample padded to the longest, of every sample, of 32 distinct texts, of none.",
    "ends_*": "Outside of the blocks of `lda_1b`, forward and backward in bf16: kernels of a step, MB that they read and write of a sample and of a step of any size. Counted.",
    "peak_rss_mib_*": "Memory of the case above the imports; in runs 1 to 6 above the peak of the process that started it, if that was more.",
    "peak_gpu_mib_*": "Most memory of the GPU that tensors took.",
    "estimated_gpu_mib_*": "What a run's estimate (`training/run/memory.py`) says of it, eager.",
    "kernels_*": "Attention kernels of a step, forwards, as the profiler saw them.",
    "products_ms_*": "Kernels of a step by kind, of steps after the timed ones, with the profiler: matrix products (GEMM).",
    "attention_ms_*": "Attention to images and actions, and to text.",
    "compiled_ms_*": "What torch.compile fused.",
    "eager_ms_*": "Other operators.",
    "optimiser_ms_*": "AdamW, norm and clipping of gradients; averages of weights are among other operators.",
    "copies_ms_*": "Copies to the GPU, beside the others.",
    "idle_ms_*": "No kernel ran.",
    "gpu_launches_*": "Kernels and copies of a step.",
    "batch_size_*": "Samples of a batch of the case.",
    "gflop_per_sample": "Arithmetic of a sample, counted.",
    "tokens": "Tokens of a sample.",
    "batch_size": "Samples of a batch.",
}

SMALL = Architecture(width=384, num_layers=4, num_heads=8)
HEAD_WIDTHS = (48, 64, 128)
EPISODES = 8  # of the corpus, of 250 timesteps
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def measured(case: Case) -> dict[str, Any]:
    """The peak, the first step (which compiles), and the mean of the others; then what ran in further steps. In a process of its own."""
    device = torch.device(case.device)
    before_mib = peak_rss_mib()
    peak = matmul_peak(device, DTYPES[case.precision], time.perf_counter)
    lines: list[dict[str, Any]] = []
    loop, batches = loop_of(case, peak, lines), host_batches(case)
    last = case.num_steps + 2
    for first, end in ((0, 1), (1, 2), (2, last)):  # each ends with a line
        loop.run(batches, first, end)
    figures = {
        "first_step_s": lines[0]["step_s"],
        "step_s": lines[-1]["step_s"],
        "samples_per_s": lines[-1]["samples_per_s"],
        "matmul_peak_tflops": peak / 1e12,
        "mfu_ratio": lines[-1]["mfu"],
        "data_wait_share": lines[-1]["data_wait_share"],
        "batch_size": case.batch_size,
        "peak_rss_mib": peak_rss_mib() - before_mib,
    }
    if device.type == "cuda":
        figures["peak_gpu_mib"] = torch.cuda.max_memory_allocated() / 2**20
        figures["estimated_gpu_mib"] = estimated(case)(case.batch_size).total / 2**20
    rounded: dict[str, Any] = {key: round(value, 4) for key, value in figures.items()}
    rounded["kernels"] = kernels_of(lambda: loop.run(batches, last, last + 1))
    if device.type == "cuda":
        first, end = last + 1, last + 1 + case.num_steps
        launched = gpu_kernels.profiled(lambda: loop.run(batches, first, end))
        by_kind = gpu_kernels.by_kind(launched, case.num_steps)
        rounded |= {f"{kind}_ms": value for kind, value in by_kind.items()}
        rounded["gpu_launches"] = round(len(launched) / case.num_steps)
        if case.out:
            lines_of_kernels = gpu_kernels.as_text(launched, case.num_steps)
            (Path(case.out) / "kernels.txt").write_text(lines_of_kernels)
    return rounded


def cases_of(case: Case) -> dict[str, Case]:
    """The same by precision and by how blocks are computed; on a GPU the fastest first."""
    change = dataclasses.replace
    compiled = change(case, is_compiled=True)
    half = case.architecture.model_copy(update={"residual": "bf16"})
    on_gpu = {
        "bf16_compiled": compiled,
        "bf16_compiled_selective": change(compiled, checkpointed="selective"),
        "bf16_compiled_residual": change(compiled, architecture=half),
        "bf16_compiled_checkpointed": change(compiled, checkpointed=True),
    }
    both = {
        "bf16": case,
        "bf16_compiled": compiled,
        "bf16_checkpointed": change(case, checkpointed=True),
        "fp32": change(case, precision="fp32"),
    }
    own = case.settings.head_width
    widths = [width for width in HEAD_WIDTHS if width != own]
    heads = {f"heads_{width}": _with_heads(case, width) for width in widths}
    return (on_gpu if case.device == "cuda" else {}) | both | heads


def _with_heads(case: Case, width: int) -> Case:
    num_heads = case.architecture.width // width
    architecture = case.architecture.model_copy(update={"num_heads": num_heads})
    is_compiled = case.device == "cuda"
    return dataclasses.replace(case, architecture=architecture, is_compiled=is_compiled)


def main(
    as_json: Annotated[bool, typer.Option("--json")] = False,
    quick: Annotated[bool, typer.Option(help="Shows that it runs; do not quote it.")] = False,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option()] = "auto",
    batch: Annotated[int, typer.Option(help="0: by the device.")] = 0,
    steps: Annotated[int, typer.Option(min=1)] = 5,
    counts_only: Annotated[bool, typer.Option("--counts", help="Time nothing.")] = False,
    only: Annotated[list[str] | None, typer.Option(help="Cases; and count nothing.")] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(help="Folder of one that is published; else a corpus is made."),
    ] = None,
    kernels: Annotated[
        Path | None, typer.Option(help="Folder for a list of the GPU's kernels of each case.")
    ] = None,
) -> None:
    """Measure and print."""
    if only and counts_only:
        raise typer.BadParameter("--counts times nothing, so --only has nothing to choose from")
    counted_figures = {} if only else counted_of()
    if counts_only:
        _show(result.machine(), counted_figures, as_json=as_json)
        return
    has_gpu = torch.cuda.is_available()
    chosen = ("cuda" if has_gpu else "cpu") if device == "auto" else device
    architecture = lda_1b() if chosen == "cuda" else SMALL
    if quick:
        architecture = architecture.model_copy(update={"num_layers": 1})
    case = Case(
        architecture=architecture,
        device=chosen,
        batch_size=batch or (256 if chosen == "cuda" else 8),
        num_steps=1 if quick else steps,
    )
    cases = cases_of(case)
    if unknown := set(only or ()) - cases.keys():
        raise typer.BadParameter(f"--only {min(unknown)}: expected {', '.join(cases)}")
    measured_on = result.machine() | result.gpu()
    not_run = [] if has_gpu else ["cuda: there is no GPU here"]
    figures: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if chosen == "cuda" else "cpu",
        "torch": torch.__version__,
        "gflop_per_sample": round(flops_per_sample(case.settings, NUM_TEXT) / 1e9, 2),
        "tokens": case.settings.num_registers + case.settings.num_image_tokens + case.settings.num_action_tokens,
        "not_run": not_run,
        **counted_figures,
    }  # fmt: skip
    cases = {name: each for name, each in cases.items() if not only or name in only}
    if chosen == "cuda" and not batch:
        total = torch.cuda.get_device_properties(0).total_memory
        sizes = {name: batch_that_fits(each, total) for name, each in cases.items()}
        cases = {n: dataclasses.replace(c, batch_size=sizes[n]) for n, c in cases.items()}
    else:
        figures["batch_size"] = case.batch_size
    with tempfile.TemporaryDirectory() as folder:
        published = manifest or _published(Path(folder))
        figures |= _timed(cases, str(published), kernels or Path(folder), not_run)
    _show(measured_on, figures, as_json=as_json)


def _published(folder: Path) -> Path:
    """A corpus made here, and its manifest."""
    # they import what ingest needs; a machine that only trains may lack it
    from benchmarks.loader import write_manifest
    from ingest.corpus.manifest_folders import manifest_folder

    manifest = write_manifest(folder, EPISODES)
    return manifest_folder(manifest.corpus, manifest.facts.name)


def _timed(
    cases: dict[str, Case], manifest: str, folder: Path, not_run: list[str]
) -> dict[str, Any]:
    """Each case in its own process. A case that fails has a line of `not_run`, and the others their figures."""
    figures: dict[str, Any] = {}

    def tried(name: str, work: Callable[[Case], dict[str, Any]], case: Case) -> dict[str, Any]:
        try:
            of_case, reason = in_own_process(_or_reason, work, case)
        except SystemExit:
            of_case, reason = {}, "its process was killed: out of memory?"
        not_run.extend([f"{name}: {reason}"] if reason else [])
        return of_case

    for name, each in cases.items():
        out = folder / name  # of its log and its kernels
        out.mkdir(parents=True, exist_ok=True)
        of_case = tried(name, measured, dataclasses.replace(each, manifest=manifest, out=str(out)))
        if of_case.get("gpu_launches") == 0:
            not_run.append(f"{name}: the profiler saw no kernel")
        sys.stderr.write(f"{name}: {json.dumps(of_case)}\n")  # a table of a GPU takes minutes
        figures |= {f"{key}_{name}": value for key, value in of_case.items()}
    if {"step_s_bf16", "step_s_bf16_compiled"} <= figures.keys():
        figures["compiled_over_eager_speed_ratio"] = round(figures["step_s_bf16"] / figures["step_s_bf16_compiled"], 3)  # fmt: skip
    return figures


def _or_reason(work: Callable[[Case], dict[str, Any]], case: Case) -> tuple[dict[str, Any], str]:
    """What `work` returns, or why it failed: too little memory is a RuntimeError of torch on every device, and what torch.compile cannot do is one."""
    try:
        return work(case), ""
    except (RuntimeError, MemoryError) as error:
        first = (str(error).splitlines() or [""])[0]
        return {}, f"{type(error).__name__}: {first}"


def _show(measured_on: dict[str, Any], figures: dict[str, Any], *, as_json: bool) -> None:
    """The object of docs/results, or a table of cases and a line for each other figure."""
    if as_json:
        print(result.as_json("train_step", measured_on, figures))
        return
    patterns = [key.removesuffix("*") for key in KEYS if key.endswith("_*")]
    kinds = {
        pattern: {k.removeprefix(pattern): v for k, v in figures.items() if k.startswith(pattern)}
        for pattern in patterns
    }
    kinds = {pattern: by_case for pattern, by_case in kinds.items() if by_case}
    table = Table("case", *(pattern.removesuffix("_") for pattern in kinds))
    for name in dict.fromkeys(name for by_case in kinds.values() for name in by_case):
        table.add_row(name, *(str(by_case.get(name, "-")) for by_case in kinds.values()))
    console = Console(width=200)
    console.print(table)
    for key, value in figures.items():
        if not key.startswith(tuple(kinds)):
            console.print(f"{key}: {value}")
    if figures.get("device", "cpu") == "cpu":
        console.print("not measured on a GPU")


if __name__ == "__main__":
    typer.run(main)
