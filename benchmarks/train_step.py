"""A training step: seconds, samples a second, share of the matmul peak measured in the same run, memory, and which attention kernels ran.

    python -m benchmarks.train_step [--json] [--quick] [--counts] [--device auto|cpu|cuda] [--batch N] [--steps N]

On a CPU a small network of the same make; on a GPU `lda_1b`. Each case runs in a process of its own, so that its memory is its own; batches
are seeded numbers of the true shapes (196 patches of 384, up to 64 tokens of text), made before the clock starts. Steps are those of the run's own
loop: the copy of a batch to the device, noise, forward, backward, clip, AdamW, averages, what is added up for the log and a line of it. `--counts`
times nothing: launches and reads of a step, and what autograd keeps.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
import typer
from torch import Tensor

from benchmarks import result
from benchmarks.op_counts import OpCounts, counted
from benchmarks.synthetic import in_own_process, peak_rss_mib
from training.batch import Batch, Origin
from training.conditioning.protocol import Conditioner
from training.data.prefetch import tensors_mapped
from training.learner import Learner
from training.model.attention import kernels_of
from training.model.network import KnownInputs, Network, Text
from training.model.settings import Architecture, ModelSettings
from training.recipe import TrainRecipe, load_recipe
from training.run.compile_blocks import prepare_blocks
from training.run.compute import SampleFlops, flops_per_sample, matmul_peak
from training.run.memory import footprint_of
from training.run.metrics import Grouping, Losses
from training.run.optimiser import adamw
from training.run.parallel import Ranks
from training.run.trainer import Hooks, Loop, Trainer
from training.tasks import TASKS

# Figure -> what it is, for docs/results/benchmarks.md.
KEYS = {
    "step_s_*": "Mean of `--steps` steps of the loop after two, by its log.",
    "first_step_s_*": "The first step, with compilation.",
    "samples_per_s_*": "Samples a second.",
    "matmul_peak_tflops_*": "Best of 6 square matrix products of that precision in the same process.",
    "mfu_ratio_*": "Arithmetic of the network, without padding of text, over that peak. Target on a GPU: at least 0.4.",
    "launches_*": "Operators of a step of the loop that are no views, counted on a CPU with two small layers.",
    "waits_*": "Reads of the device by the host in that step.",
    "kept_*": "Bytes of a token and width that a block of `lda_1b` keeps for the backward pass in bf16, counted.",
    "peak_rss_mib_*": "Memory of the case above the imports.",
    "gflop_per_sample": "Arithmetic of a sample, counted.",
    "tokens": "Tokens of a sample.",
    "batch_size": "Samples of a batch.",
}

SMALL = Architecture(width=384, num_layers=4, num_heads=8)
HEAD_WIDTHS = (48, 64, 128)
NUM_TEXT, TEXT_WIDTH, NUM_EMBODIMENTS = 64, 2560, 16
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One way to run a step."""

    architecture: Architecture
    device: str
    batch_size: int
    num_steps: int
    precision: Literal["bf16", "fp32"] = "bf16"
    is_compiled: bool = False
    is_checkpointed: bool = False
    num_patches: int = 196

    @property
    def settings(self) -> ModelSettings:
        return ModelSettings(
            **self.architecture.model_dump(),
            text_width=TEXT_WIDTH,
            num_embodiments=NUM_EMBODIMENTS,
            num_patches=self.num_patches,
        )


class FixedText(Conditioner):
    """Text features as they come."""

    width = TEXT_WIDTH

    def forward(self, inputs: dict[str, Tensor]) -> Text:
        return Text(values=inputs["values"], has=inputs["has"])

    def num_tokens(self, inputs: dict[str, Tensor]) -> Tensor:
        return inputs["has"].sum()


def batch_of(case: Case) -> Batch:
    """Seeded; the four tasks in turn; text of different lengths."""
    s, size = case.settings, case.batch_size
    generator = torch.Generator(case.device).manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(size, *shape, generator=generator, device=case.device)

    def ones(*shape: int) -> Tensor:
        return torch.ones(size, *shape, dtype=torch.bool, device=case.device)

    index = torch.arange(size, device=case.device)
    length = NUM_TEXT // 2 + index % (NUM_TEXT // 2 + 1)
    return Batch(
        known=KnownInputs(
            past=normal(s.num_past, s.num_image_tokens, s.latent_width),
            has_past=ones(s.num_past, s.num_views),
            history=normal(s.num_history, s.action_width),
            has_history=ones(s.num_history, s.action_width),
            embodiment=index % s.num_embodiments,
            task=index % len(TASKS),
        ),
        action=normal(s.num_actions, s.action_width),
        has_action=ones(s.num_actions, s.action_width),
        asked=ones(s.action_width),
        future=normal(s.num_image_tokens, s.latent_width),
        has_future=ones(s.num_views),
        action_t_s=0.1 * torch.arange(1, s.num_actions + 1, device=case.device),
        future_t_s=0.6,
        text_inputs={
            "values": normal(NUM_TEXT, TEXT_WIDTH),
            "has": torch.arange(NUM_TEXT, device=case.device) < length[:, None],
        },
        origin=Origin(row=np.arange(size), timestep=np.arange(size)),
    )


def trainer_of(case: Case) -> Trainer:
    run = {
        "num_steps": 10**6,
        "batch_size": case.batch_size,
        "precision": case.precision,
        "log_every": 10**6,  # the last step of a loop has a line anyway
    }
    recipe = TrainRecipe.model_validate({"name": "bench", "run": run})
    device = torch.device(case.device)
    torch.manual_seed(0)
    learner = Learner(Network(case.settings), FixedText()).to(device)
    prepare_blocks(learner, checkpointed=case.is_checkpointed, compiled=case.is_compiled)
    return Trainer(
        learner=learner,
        model=learner,
        optimiser=adamw(learner, recipe.optimiser),
        averages=None,
        recipe=recipe,
        ranks=Ranks(),
        device=device,
        uid_of=str,
    )


def loop_of(case: Case, peak: float, lines: list[dict[str, Any]]) -> Loop:
    """That of a run, without checkpoints."""
    flops = SampleFlops.of(lambda num: flops_per_sample(case.settings, num))
    hooks = Hooks(
        clock_s=time.perf_counter,
        should_stop=lambda: False,
        on_log=lines.append,
        save=lambda done: None,
    )
    tiers = Grouping.of(["high", "low"] * case.batch_size)
    return Loop(
        trainer=trainer_of(case),
        losses=Losses({"tier": tiers}),
        flops_per_sample=flops.without_text,
        flops_per_text_token=flops.per_text_token,
        peak=peak,
        hooks=hooks,
    )


def host_batches(case: Case) -> Iterator[Batch]:
    """As the loader gives them: on the CPU, pinned where there is a GPU."""
    batch = batch_of(dataclasses.replace(case, device="cpu"))
    if case.device == "cuda":
        batch = tensors_mapped(batch, Tensor.pin_memory)
    while True:
        yield batch


def measured(case: Case) -> dict[str, Any]:
    """The peak, the first step (which compiles), and the mean of the others. In a process of its own."""
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
        "peak_rss_mib": peak_rss_mib() - before_mib,
    }
    if device.type == "cuda":
        figures["peak_gpu_mib"] = torch.cuda.max_memory_allocated() / 2**20
    return {key: round(value, 4) for key, value in figures.items()}


def counts(batch_size: int) -> dict[str, int]:
    """Launches and reads of a step: what a run of three steps has more than one of two. Both end with a line."""
    small = Architecture(width=32, num_layers=2, num_heads=2, num_registers=4, adapter_width=8)
    case = Case(architecture=small, device="cpu", batch_size=batch_size, num_steps=3, num_patches=4)

    def run(num_steps: int) -> OpCounts:
        loop = loop_of(case, 1.0, [])
        return counted(lambda: loop.run(host_batches(case), 0, num_steps))

    two, three = run(2), run(3)
    return {
        "launches": three.launches - two.launches,
        "waits": three.num_waits - two.num_waits,
    }


def kept() -> dict[str, float]:
    """Bytes of a token and width of a block, by how activations are kept."""
    architecture = load_recipe("lda_1b").architecture.model_dump()
    out = {}
    for residual in ("fp32", "bf16"):
        s = ModelSettings(**architecture | {"residual": residual, "text_width": TEXT_WIDTH})
        footprint = footprint_of(s, 200, 1, "bf16")
        unit = s.width * (s.num_registers + s.num_image_tokens + s.num_action_tokens)
        out[f"all_{residual}"] = round(footprint.block / unit, 1)
        out[f"selective_{residual}"] = round((footprint.stream + footprint.products) / unit, 1)
        out[f"checkpointed_{residual}"] = round(footprint.stream / unit, 1)
    return out


def counted_of() -> dict[str, float]:
    """All that is counted and not timed."""
    out = {f"kept_{name}": value for name, value in kept().items()}
    for size in (8, 64):
        out |= {f"{name}_batch_{size}": value for name, value in counts(size).items()}
    return out


def kernels(case: Case) -> dict[str, int]:
    """Attention kernels of one forward pass, as the profiler saw them."""
    trainer, batch = trainer_of(case), batch_of(case)
    t = torch.rand(1, case.batch_size, device=case.device)
    noise = (torch.randn_like(batch.action)[None], torch.randn_like(batch.future)[None])

    def once() -> None:
        with torch.no_grad(), torch.autocast(case.device, torch.bfloat16):
            trainer.learner(batch, t, *noise)

    return kernels_of(once)


def main(
    as_json: Annotated[bool, typer.Option("--json")] = False,
    quick: Annotated[bool, typer.Option(help="Shows that it runs; do not quote it.")] = False,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option()] = "auto",
    batch: Annotated[int, typer.Option(help="0: by the device.")] = 0,
    steps: Annotated[int, typer.Option(min=1)] = 5,
    counts_only: Annotated[bool, typer.Option("--counts", help="Time nothing.")] = False,
) -> None:
    """Measure and print."""
    counted_figures = counted_of()
    if counts_only:
        document = result.as_json("train_step", result.machine(), counted_figures)
        print(document if as_json else json.dumps(counted_figures, indent=1))
        return
    has_gpu = torch.cuda.is_available()
    chosen = ("cuda" if has_gpu else "cpu") if device == "auto" else device
    architecture = load_recipe("lda_1b").architecture if chosen == "cuda" else SMALL
    if quick:
        architecture = architecture.model_copy(update={"num_layers": 1})
    case = Case(
        architecture=architecture,
        device=chosen,
        batch_size=batch or (128 if chosen == "cuda" else 8),
        num_steps=1 if quick else steps,
    )
    measured_on = result.machine()
    figures: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if chosen == "cuda" else "cpu",
        "torch": torch.__version__,
        "batch_size": case.batch_size,
        "gflop_per_sample": round(flops_per_sample(case.settings, NUM_TEXT) / 1e9, 2),
        "tokens": case.settings.num_registers + case.settings.num_image_tokens + case.settings.num_action_tokens,
        "not_run": [] if has_gpu else ["cuda: there is no GPU here"],
        **counted_figures,
    }  # fmt: skip
    cases = {
        "fp32": dataclasses.replace(case, precision="fp32"),
        "bf16": case,
        "bf16_compiled": dataclasses.replace(case, is_compiled=True),
        "bf16_checkpointed": dataclasses.replace(case, is_checkpointed=True),
    }
    for name, each in cases.items():
        figures |= {f"{key}_{name}": v for key, v in in_own_process(measured, each).items()}
    figures["compiled_over_eager_speed_ratio"] = round(figures["step_s_bf16"] / figures["step_s_bf16_compiled"], 3)  # fmt: skip
    for width in HEAD_WIDTHS:
        heads = architecture.model_copy(update={"num_heads": architecture.width // width})
        other = dataclasses.replace(case, architecture=heads)
        figures[f"kernels_{width}"] = in_own_process(kernels, other)
        of_width = in_own_process(measured, other)
        figures |= {f"{key}_heads_{width}": of_width[key] for key in ("step_s", "mfu_ratio")}
    document = result.as_json("train_step", measured_on, figures)
    print(document if as_json else json.dumps(figures, indent=1))


if __name__ == "__main__":
    typer.run(main)
