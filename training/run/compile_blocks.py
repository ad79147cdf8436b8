"""How the blocks of a network are computed: kept in memory or again, as they are or compiled."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch.utils.checkpoint import checkpoint as computed_again
from torch.utils.checkpoint import create_selective_checkpoint_contexts

from training.model.attention import operators
from training.trainable import Trainable

_aten = torch.ops.aten
_PRODUCTS = (
    _aten.mm.default,
    _aten.addmm.default,
    _aten.bmm.default,
    _aten.baddbmm.default,
    _aten._scaled_dot_product_flash_attention.default,
    _aten._scaled_dot_product_efficient_attention.default,
    _aten._scaled_dot_product_cudnn_attention.default,
    _aten._scaled_dot_product_flash_attention_for_cpu.default,
)


def products() -> list[Any]:
    """Operators whose results "selective" keeps: nearly all arithmetic, and less than half of the memory. What lies between is cheap to compute again."""
    return [*_PRODUCTS, *operators()]


def prepare_blocks(
    learner: Trainable, *, checkpointed: bool | Literal["selective"], compiled: bool
) -> None:
    """Block by block, before any wrapper: not keep its activations but compute them again. Compile it, and what is outside of them. Names of parameters stay.

    Layers of a language model are computed again, too, and not compiled: they are the library's.
    """
    if checkpointed:
        for block in [*learner.blocks, *learner.conditioner.tuned_layers]:
            block.forward = _again(block.forward, is_selective=checkpointed == "selective")
    if compiled:
        for block in learner.blocks:
            block.compile()
        learner.compile_ends()


def _again(forward: Callable[..., Any], *, is_selective: bool) -> Callable[..., Any]:
    """A function of our own, not a `partial` of torch's: that has no frame for torch.compile to look into, and nothing was compiled."""
    how: dict[str, Any] = {"use_reentrant": False}
    if is_selective:
        how["context_fn"] = partial(create_selective_checkpoint_contexts, products())

    def run(*arguments: Any, **named: Any) -> Any:
        return computed_again(forward, *arguments, **how, **named)

    return run
