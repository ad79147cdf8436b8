"""How the blocks of a network are computed: kept in memory or again, as they are or compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils.checkpoint import checkpoint as computed_again

from training.trainable import Trainable


def prepare_blocks(learner: Trainable, *, checkpointed: bool, compiled: bool) -> None:
    """Block by block, before any wrapper: not keep its activations but compute them again. Compile it. Names of parameters stay."""
    for block in learner.blocks:
        if checkpointed:
            block.forward = _again(block.forward)
        if compiled:
            block.compile()


def _again(forward: Callable[..., Any]) -> Callable[..., Any]:
    """A function of our own, not a `partial` of torch's: that has no frame for torch.compile to look into, and nothing was compiled."""

    def run(*arguments: Any, **named: Any) -> Any:
        return computed_again(forward, *arguments, use_reentrant=False, **named)

    return run
