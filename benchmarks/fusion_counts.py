"""What torch.compile fuses outside of the blocks, counted: kernels of a step, and bytes that they read and write. Nothing is timed.

Eager, an operator reads its arguments from memory and writes its result. Compiled, Inductor says what each of its kernels reads and writes. Its kernels are
those for a CPU; for a GPU it fuses by the same rules, and other kernels may come out. They are not built, and nothing is computed by them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from unittest import mock

import torch
from torch._inductor import config, metrics
from torch._inductor.async_compile import AsyncCompile

from benchmarks.op_counts import counted
from training.batch import Batch
from training.loss import Ends, inputs_of, terms_of
from training.model.network import Network
from training.model.settings import ModelSettings
from training.precision import computing

SIZES = (2, 4)  # of a batch: what grows from one to the other belongs to samples, not to weights


def ends_counts(settings: ModelSettings, batch_of: Callable[[int], Batch]) -> dict[str, float]:
    """Forward and backward of what is outside of the blocks, in bf16: kernels, MB of a sample, MB of a step whatever its size.

    Args:
        batch_of: samples, by their number.
    """
    network = Network(settings.model_copy(update={"num_layers": 1}))  # whose block is not called
    out: dict[str, float] = {}
    for name, count in (("eager", _eager), ("compiled", _compiled)):
        (num, few), (_, many) = (count(network, batch_of(size)) for size in SIZES)
        each = (many - few) / (SIZES[1] - SIZES[0])
        out[f"kernels_{name}"] = num
        out[f"mb_sample_{name}"] = round(each / 1e6, 1)
        out[f"mb_step_{name}"] = round((few - SIZES[0] * each) / 1e6, 1)
    return out


def _step(network: Network, batch: Batch, ends: Ends) -> None:
    size = len(batch.known.task)
    t = torch.linspace(0, 1, size)
    noise, no_parts = torch.ones_like(batch.future), torch.zeros(0, dtype=torch.long)
    with computing("bf16", torch.device("cpu")):
        inputs = ends.inputs(network, batch, t, torch.ones_like(batch.action), noise)
        terms = ends.terms(network, batch, inputs, inputs.streams, t, noise, "elements", no_parts)
    terms.sums.sum().backward()  # type: ignore[no-untyped-call]


def _eager(network: Network, batch: Batch) -> tuple[int, int]:
    network.zero_grad()
    counts = counted(lambda: _step(network, batch, Ends()))
    return counts.launches, counts.num_bytes


def _compiled(network: Network, batch: Batch) -> tuple[int, int]:
    network.zero_grad()
    torch._dynamo.reset()
    metrics.reset()
    log = torch._logging.getArtifactLogger("torch._inductor.compile_fx", "inductor_metrics")
    log.setLevel(logging.INFO)  # Inductor counts bytes for this log alone
    log.propagate = False
    ends = Ends(*(torch.compile(each, fullgraph=True) for each in (inputs_of, terms_of)))
    unbuilt = mock.patch.object(AsyncCompile, "cpp_pybinding", return_value=lambda *_: None)
    with config.patch(force_disable_caches=True), unbuilt:
        _step(network, batch, ends)
    kernels = [node for node, _ in metrics.nodes_num_elem if "Nop" not in type(node).__name__]
    return len(kernels), metrics.num_bytes_accessed
