"""What of a training step is counted and not timed: launches, reads, arithmetic, what autograd keeps, what torch.compile fuses."""

from __future__ import annotations

import dataclasses

from benchmarks.fusion_counts import ends_counts
from benchmarks.op_counts import OpCounts, counted
from benchmarks.step_case import (
    TEXT_WIDTH,
    Case,
    batch_of,
    host_batches,
    lda_1b,
    loop_of,
    text_layout,
)
from training.model.settings import Architecture, ModelSettings
from training.model.text import equal_lengths
from training.run.compute import flops_by_operator
from training.run.memory import footprint_of
from training.tasks import TASKS

LONGEST_TEXT, STEP_SAMPLES, STEP_TEXTS = 200, 192, 32  # of what is counted


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
    architecture = lda_1b().model_dump()
    out = {}
    for residual in ("fp32", "bf16"):
        s = ModelSettings(**architecture | {"residual": residual, "text_width": TEXT_WIDTH})
        footprint = footprint_of(s, 200, 1, "bf16")
        unit = s.width * (s.num_registers + s.num_image_tokens + s.num_action_tokens)
        out[f"all_{residual}"] = round(footprint.block / unit, 1)
        out[f"selective_{residual}"] = round((footprint.stream + footprint.products) / unit, 1)
        out[f"checkpointed_{residual}"] = round(footprint.stream / unit, 1)
    return out


def arithmetic() -> dict[str, float]:
    """GFLOP of a sample by operator, as it is, and as it was before frozen text went without a gradient."""
    architecture = lda_1b().model_dump()
    s = ModelSettings(**architecture | {"text_width": TEXT_WIDTH})
    out: dict[str, float] = {}
    for suffix, is_frozen in (("", True), ("_before", False)):
        layout = equal_lengths(len(TASKS), LONGEST_TEXT)
        by_operator = flops_by_operator(s, layout, is_text_frozen=is_frozen)
        by_operator["all"] = sum(by_operator.values())
        out |= {f"{name}{suffix}": round(n / 1e9, 2) for name, n in by_operator.items() if n > 1e7}
    return out


def arithmetic_of_text() -> dict[str, float]:
    """TFLOP of a step of `lda_1b` by how its text lies."""
    architecture = lda_1b().model_dump()
    s = ModelSettings(**architecture | {"text_width": TEXT_WIDTH})
    layouts = {
        "padded": equal_lengths(STEP_SAMPLES, LONGEST_TEXT),
        "end_to_end": text_layout(STEP_SAMPLES, STEP_SAMPLES, LONGEST_TEXT),
        "distinct": text_layout(STEP_SAMPLES, STEP_TEXTS, LONGEST_TEXT),
        "no_text": equal_lengths(STEP_SAMPLES, 0),
    }
    of_step = {
        name: sum(flops_by_operator(s, layout).values()) * STEP_SAMPLES / 1e12
        for name, layout in layouts.items()
    }
    return {name: round(value, 1) for name, value in of_step.items()}


def ends() -> dict[str, float]:
    """Kernels and bytes outside of the blocks, eager and compiled."""
    case = Case(architecture=lda_1b(), device="cpu", batch_size=1, num_steps=1)
    return ends_counts(
        case.settings, lambda size: batch_of(dataclasses.replace(case, batch_size=size))
    )


def counted_of() -> dict[str, float]:
    """All that is counted and not timed."""
    out = {f"op_gflop_{name}": value for name, value in arithmetic().items()}
    out |= {f"kept_{name}": value for name, value in kept().items()}
    out |= {f"step_tflop_{name}": value for name, value in arithmetic_of_text().items()}
    out |= {f"ends_{name}": value for name, value in ends().items()}
    for size in (8, 64):
        out |= {f"{name}_batch_{size}": value for name, value in counts(size).items()}
    return out
