"""Blocks that are computed again are compiled all the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.training.tiny import batch, network, noise_of, text_of
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
    prepare_blocks(Learner(made, torch.nn.Identity()), checkpointed=True, compiled=False)  # type: ignore[arg-type]
    for block in made.blocks:
        block.compile(backend=kept)
    loss_of(made.train(), b, text_of(b), *noise_of(b))
    assert graphs
