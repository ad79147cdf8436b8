"""Blocks that are computed again are compiled all the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmarks.op_counts import OpCounts, counted
from tests.training.tiny import batch, network, noise_of, text_of
from training.conditioning.hashed_words import NoTextConditioner
from training.learner import Learner
from training.loss import loss_of
from training.run.compile_blocks import prepare_blocks


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch.compile's own look at leaves
def test_a_block_that_is_computed_again_is_one_that_can_be_compiled() -> None:
    graphs: list[Any] = []

    def kept(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    made, b = network(), batch()
    prepare_blocks(Learner(made, NoTextConditioner()), checkpointed=True, compiled=False)
    for block in made.blocks:
        block.compile(backend=kept)
    loss_of(made.train(), b, text_of(b), *noise_of(b))
    assert graphs


def grown(checkpointed: bool | str) -> tuple[list[torch.Tensor], OpCounts]:
    """Gradients of a step, and the operators of its forward and backward pass."""
    made, b = network(), batch()
    prepare_blocks(Learner(made, NoTextConditioner()), checkpointed=checkpointed, compiled=False)

    def step() -> None:
        loss_of(made.train(), b, text_of(b), *noise_of(b)).sums.sum().backward()  # type: ignore[no-untyped-call]

    counts = counted(step)
    return [p.grad for p in made.parameters() if p.grad is not None], counts


def test_selective_computes_everything_again_but_products() -> None:
    """The same gradients, to the bit; not one matrix product or attention more; norms and gates once more."""
    (plain, once), (selective, some), (again, every) = map(grown, (False, "selective", True))
    assert len(plain) == len(selective) == len(again)
    for one, two, three in zip(plain, selective, again, strict=True):
        assert torch.equal(one, two)
        assert torch.equal(one, three)
    for name in ("mm", "_scaled_dot_product_flash_attention_for_cpu"):
        assert once.by_op[name] == some.by_op[name] < every.by_op[name]
    assert once.by_op["native_layer_norm"] < some.by_op["native_layer_norm"]
