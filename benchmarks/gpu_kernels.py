"""Time of a GPU by what it computes: every kernel of some steps, sorted by its name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch.autograd.profiler_util import DeviceType, FunctionEvent
from torch.profiler import ProfilerActivity, profile

# The first kind with a part that the name has. Names are those of Inductor, NCCL, cuDNN, FlashAttention, cuBLAS, CUTLASS and PyTorch.
KINDS = {
    "compiled": ("triton_",),  # first: a fused kernel has the names of the operators beside it
    "communication": ("nccl",),
    "attention": ("flash", "fmha", "sdpa", "attention", "cudnn::fusion"),
    "products": ("gemm", "nvjet", "xmma", "wgmma", "cutlass", "cublas", "splitk"),
    "optimiser": ("multi_tensor_apply", "adam"),
    "copies": ("memcpy", "memset"),
}
OTHER = "eager"  # operators of PyTorch that are kernels of their own
LONGEST_NAME, NUM_GAPS = 110, 20  # characters; pairs of kernels


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """One launch, in microseconds."""

    name: str
    begin_us: float
    end_us: float


def kind_of(name: str) -> str:
    lower = name.lower()
    kinds = (kind for kind, parts in KINDS.items() if any(part in lower for part in parts))
    return next(kinds, OTHER)


def profiled(run: Callable[[], object]) -> list[Kernel]:
    """Kernels and copies of `run` on the GPU. Ranges that code names are none."""
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as profiler:
        run()
        torch.cuda.synchronize()
    return [_kernel_of(event) for event in profiler.events() if _is_kernel(event)]


def _is_kernel(event: FunctionEvent) -> bool:
    return event.device_type == DeviceType.CUDA and not event.is_user_annotation


def _kernel_of(event: FunctionEvent) -> Kernel:
    return Kernel(name=event.name, begin_us=event.time_range.start, end_us=event.time_range.end)


def busy_us(kernels: Iterable[Kernel]) -> float:
    """Time in which at least one of them runs."""
    total, until = 0.0, float("-inf")
    for each in sorted(kernels, key=lambda kernel: kernel.begin_us):
        total += max(0.0, each.end_us - max(each.begin_us, until))
        until = max(until, each.end_us)
    return total


def by_kind(kernels: list[Kernel], num_steps: int) -> dict[str, float]:
    """Milliseconds of a step by kind; the time from the first to the last kernel in which none runs. Nothing where the profiler saw none."""
    if not kernels:
        return {}
    milliseconds: defaultdict[str, float] = defaultdict(float)
    for each in kernels:
        milliseconds[kind_of(each.name)] += (each.end_us - each.begin_us) / 1000
    span_us = max(k.end_us for k in kernels) - min(k.begin_us for k in kernels)
    milliseconds["idle"] = (span_us - busy_us(kernels)) / 1000
    return {kind: round(total / num_steps, 2) for kind, total in sorted(milliseconds.items())}


def as_text(kernels: list[Kernel], num_steps: int) -> str:
    """A line for each name, the longest first; and for each pair of kernels between which nothing runs."""
    total: defaultdict[str, float] = defaultdict(float)
    count: defaultdict[str, int] = defaultdict(int)
    for each in kernels:
        total[each.name] += (each.end_us - each.begin_us) / 1000 / num_steps
        count[each.name] += 1
    lines = [
        f"{ms:9.3f} ms  {count[name] / num_steps:7.1f}  {kind_of(name):<10} {name[:LONGEST_NAME]}\n"
        for name, ms in sorted(total.items(), key=lambda item: -item[1])
    ]
    head = "milliseconds and launches of a step, kind, name\n"
    gaps = "\nidle milliseconds and gaps of a step, the kernels before and after\n"
    return "".join([head, *lines, gaps, *_gaps(kernels, num_steps)])


def _gaps(kernels: list[Kernel], num_steps: int) -> list[str]:
    """A line for each pair, the longest first."""
    total: defaultdict[str, float] = defaultdict(float)
    count: defaultdict[str, int] = defaultdict(int)
    for last, each in _neighbours(kernels):
        if each.begin_us > last.end_us:
            pair = f"{last.name[:LONGEST_NAME]} -> {each.name[:LONGEST_NAME]}"
            total[pair] += (each.begin_us - last.end_us) / 1000 / num_steps
            count[pair] += 1
    longest = sorted(total.items(), key=lambda item: -item[1])[:NUM_GAPS]
    return [f"{ms:9.3f} ms  {count[pair] / num_steps:7.1f}  {pair}\n" for pair, ms in longest]


def _neighbours(kernels: Iterable[Kernel]) -> Iterator[tuple[Kernel, Kernel]]:
    """Each kernel after the one that, of those that began before it, ends last."""
    last: Kernel | None = None
    for each in sorted(kernels, key=lambda kernel: kernel.begin_us):
        if last is not None:
            yield last, each
        last = each if last is None else max(last, each, key=lambda kernel: kernel.end_us)
