"""From a checkpoint back into a learner, its optimiser and its averages, on however many ranks there are now."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import AdamW

from schemas.errors import ConfigError
from training.model.adapters import Bank
from training.run.checkpoint import AVERAGES, OPTIMISER, WEIGHTS, Checkpoint
from training.run.optimiser import EMA, MOMENTS, trained
from training.run.parallel import full_tensor, shard_like


def restore(
    learner: nn.Module, optimiser: AdamW, averages: EMA | None, checkpoint: Checkpoint
) -> None:
    """Everything, exactly.

    Raises:
        ConfigError: the checkpoint is of another network.
    """
    restore_weights(learner, checkpoint.tensors(WEIGHTS), where=str(checkpoint.folder))
    _restore_moments(learner, optimiser, checkpoint.tensors(OPTIMISER))
    if averages is not None:
        # A run that begins to average late does so from the weights it has.
        kept = checkpoint.tensors(AVERAGES if checkpoint.has_averages else WEIGHTS)
        for name, value in averages.values.items():
            fill(value, kept[name])


def restore_weights(
    learner: nn.Module, weights: dict[str, Tensor], *, where: str, may_grow: bool = False
) -> None:
    """Put weights into `learner`.

    Args:
        may_grow: it may have more embodiments, after those of the checkpoint; their layers stay as they were initialised.

    Raises:
        ConfigError: other parameters, or other shapes.
    """
    parameters = trained(learner)
    banks = {
        f"{name}.{part}"
        for name, module in learner.named_modules()
        if isinstance(module, Bank)
        for part in ("weight", "bias")
    }
    if odd := sorted(parameters.keys() ^ weights.keys()):
        raise ConfigError(
            f"the checkpoint is of another network: only one of them has {', '.join(odd[:3])}",
            remedy="use the recipe of the checkpoint, or another --out",
            where=where,
        )
    for name, parameter in parameters.items():
        value = weights[name]
        if may_grow and name in banks and value.shape[1:] == parameter.shape[1:]:
            value = _grown(full_tensor(parameter), value)
        if value.shape != parameter.shape:
            problem = (
                f"{name} has shape {list(value.shape)}; this network needs {list(parameter.shape)}"
            )
            raise ConfigError(
                f"the checkpoint is of another network: {problem}",
                remedy="use the recipe of the checkpoint, or another --out",
                where=where,
            )
        fill(parameter, value)


def _grown(fresh: Tensor, stored: Tensor) -> Tensor:
    """Rows of `stored` first, then what `fresh` has more."""
    return torch.cat([stored, fresh[len(stored) :].to(stored)])


@torch.no_grad()
def fill(target: Tensor, full: Tensor) -> None:
    """Overwrite `target`, or the piece of it that is here."""
    piece = shard_like(full, target)
    if isinstance(target, DTensor) and isinstance(piece, DTensor):
        target, piece = target.to_local(), piece.to_local()
    target.copy_(piece)


def _restore_moments(learner: nn.Module, optimiser: AdamW, saved: dict[str, Tensor]) -> None:
    for name, parameter in trained(learner).items():
        if f"step.{name}" not in saved:  # it never had a gradient
            continue
        state = {what: shard_like(saved[f"{what}.{name}"], parameter) for what in MOMENTS}
        state["step"] = saved[f"step.{name}"].to(parameter.device)  # as the fused kernels want it
        optimiser.state[parameter] = state
