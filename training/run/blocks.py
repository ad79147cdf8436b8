"""How the blocks of a network are computed: kept in memory or again, as they are or compiled."""

from __future__ import annotations

from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint as computed_again

from training.learner import Learner


def prepare_blocks(learner: Learner, *, checkpointed: bool, compiled: bool) -> None:
    """Block by block, before any wrapper: not keep its activations but compute them again; compile it. Names of parameters stay."""
    for block in learner.network.blocks:
        assert isinstance(block, nn.Module)
        if checkpointed:
            block.forward = partial(computed_again, block.forward, use_reentrant=False)
        if compiled:
            block.compile()
