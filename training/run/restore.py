"""From a checkpoint back into a learner, its optimiser and its averages, on however many ranks there are now."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import AdamW

from schemas.errors import ConfigError
from training.lara.lara import Lara
from training.lara.quantise import perplexity_of
from training.lara.settings import JointStage, NoLara
from training.model.adapters import Bank
from training.recipe import TrainRecipe
from training.run.checkpoint import (
    AVERAGES,
    OPTIMISER,
    SHARD_NUMBERS,
    WEIGHTS,
    Checkpoint,
    recipe_of,
)
from training.run.optimiser import EMA, LARA, MOMENTS, TEXT_LAYERS, kept, trained
from training.run.parallel import full_tensor, own_shard, shard_like

USAGE = "book.usage"  # of a latent action model
LEAST_USED = 2.0  # codes: with fewer, a latent action tells next to nothing


def restore(
    learner: nn.Module, optimiser: AdamW, averages: EMA | None, checkpoint: Checkpoint
) -> None:
    """Everything, exactly.

    Raises:
        ConfigError: the checkpoint is of another network.
    """
    if checkpoint.is_sharded:
        _restore_shards(learner, optimiser, averages, checkpoint)
        return
    restore_weights(learner, checkpoint.tensors(WEIGHTS), where=str(checkpoint.folder))
    _restore_moments(learner, optimiser, checkpoint.tensors(OPTIMISER))
    if averages is not None:
        # A run that begins to average late does so from the weights it has.
        kept = checkpoint.tensors(AVERAGES if checkpoint.has_averages else WEIGHTS)
        for name, value in averages.values.items():
            fill(value, kept[name])


def weights_of(checkpoint: Checkpoint, *, averaged: bool) -> dict[str, Tensor]:
    """As they were trained, or their averages beside what has none: a frozen latent action model, and how its codes are used.

    Raises:
        ConfigError: there are no averages.
    """
    weights = checkpoint.tensors(WEIGHTS)
    if not averaged:
        return weights
    if not checkpoint.has_averages:
        problem = "the checkpoint has no averages"
        repair = "remove --init-averages; a run with optimiser.ema has them"
        raise ConfigError(problem, remedy=repair, where=str(checkpoint.folder))
    return weights | checkpoint.tensors(AVERAGES)


def restore_weights(
    learner: nn.Module, weights: dict[str, Tensor], *, where: str, may_grow: bool = False
) -> None:
    """Put weights into `learner`.

    Args:
        may_grow: it may have more embodiments, after those of the checkpoint, and LARA's parts where the checkpoint has none; what is new stays as it
            was initialised, layers of a language model too. LARA's parts of a checkpoint are left where `learner` has none.

    Raises:
        ConfigError: other parameters, or other shapes.
    """
    parameters = kept(learner)
    if may_grow:
        of_lara = [any(k.startswith(LARA) for k in each) for each in (parameters, weights)]
        if of_lara[0] != of_lara[1]:
            parameters, weights = _without_lara(parameters), _without_lara(weights)
        parameters = {
            name: x
            for name, x in parameters.items()
            if name in weights or not name.startswith(TEXT_LAYERS)
        }
    banks = {
        f"{name}.{part}"
        for name, module in learner.named_modules()
        if isinstance(module, Bank)
        for part in ("weight", "bias")
    }
    _refuse_other_names(parameters, weights, where)
    for name, parameter in parameters.items():
        value = weights[name]
        if may_grow and name in banks and value.shape[1:] == parameter.shape[1:]:
            value = _grown(full_tensor(parameter), value)
        _refuse_other_shape(name, value.shape, parameter.shape, where)
        fill(parameter, value)


def _refuse_other_names(
    parameters: Mapping[str, object], weights: Mapping[str, object], where: str
) -> None:
    if left := sorted(k for k in weights.keys() - parameters.keys() if k.startswith(TEXT_LAYERS)):
        num_trained = len({k.split(".")[2] for k in weights if k.startswith(TEXT_LAYERS)})
        problem = f"it has trained layers of its language model, and this run does not train {left[0].split('.')[2]}"
        remedy = f"set text to {{kind: online, model: FOLDER, train_last: {num_trained}}}, or more"
        raise ConfigError(problem, remedy=remedy, where=where)
    if odd := sorted(parameters.keys() ^ weights.keys()):
        raise _of_another(f"only one of them has {', '.join(odd[:3])}", where)


def _refuse_other_shape(name: str, stored: torch.Size, shape: torch.Size, where: str) -> None:
    if stored != shape:
        problem = f"{name} has shape {list(stored)}; this network needs {list(shape)}"
        raise _of_another(problem, where)


def _of_another(problem: str, where: str) -> ConfigError:
    return ConfigError(
        f"the checkpoint is of another network: {problem}",
        remedy="use the recipe of the checkpoint, or another --out",
        where=where,
    )


def restore_latent_actions(
    lara: Lara, begun: Checkpoint, *, encoder_id: str, recipe: TrainRecipe
) -> None:
    """Put the latent action model of another run into `lara`.

    Args:
        recipe: of this run.

    Raises:
        ConfigError: that run has none, of other pictures or shapes, or with a code book of which next to nothing is used.
    """
    where = f"--init-lam {begun.folder}"
    weights = latent_action_tensors(lara, begun)
    _refuse_other_pictures(recipe, begun, where=where)
    if begun.state.encoder_id != encoder_id:
        problem = f"its latent action model is of encoder {begun.state.encoder_id}; the manifest's latents are of {encoder_id}"
        repair = f"set data.encoder={begun.state.encoder_id}, or train another with --recipe lam"
        raise ConfigError(problem, remedy=repair, where=where)
    refuse_collapsed(weights[USAGE], where=where)
    for name, x in lara.lam.state_dict(keep_vars=True).items():
        fill(x, weights[name])


def _refuse_other_pictures(recipe: TrainRecipe, begun: Checkpoint, *, where: str) -> None:
    """What no shape tells: heads, the order of the views and the time between the pictures.

    Raises:
        ConfigError: they are not those of `begun`.
    """
    ours, theirs = (_pairs_of(each, where=where) for each in (recipe, recipe_of(begun)))
    odd = [key for key in ours if ours[key] != theirs[key]]
    if odd:
        differences = "; ".join(
            f"{key} {theirs[key]}, and this recipe says {ours[key]}" for key in odd
        )
        problem = f"its latent action model was trained with {differences}"
        repair = "set them as in that run's recipe.yaml, or train another with --recipe lam"
        raise ConfigError(problem, remedy=repair, where=where)


def _pairs_of(recipe: TrainRecipe, *, where: str) -> dict[str, object]:
    lara = recipe.lara
    if isinstance(lara, NoLara):  # and yet there are weights of one
        raise ConfigError("the recipe of its checkpoint has no latent action model", where=where)
    return {
        "num_heads": lara.lam.num_heads,
        "cameras": list(recipe.data.cameras),
        "future_s": lara.future_s if isinstance(lara, JointStage) else recipe.data.future_s,
    }


def refuse_collapsed(usage: Tensor, *, where: str) -> None:
    """
    Args:
        usage: [num_codes] of late.

    Raises:
        ConfigError: next to nothing of a code book is used.
    """
    if (used := perplexity_of(usage)) < LEAST_USED:
        problem = (
            f"its code book collapsed: {used:.2f} of {len(usage)} codes are in use (perplexity)"
        )
        repair = "train it longer, or with a larger lara.lam.dead_share"
        raise ConfigError(problem, remedy=repair, where=where)


def latent_action_tensors(lara: Lara, begun: Checkpoint) -> dict[str, Tensor]:
    """The tensors of another run's latent action model, by their names in `lara.lam`, which may have no memory of its own.

    Raises:
        ConfigError: that run has none, or one of other shapes.
    """
    where, prefix = str(begun.folder), f"{LARA}lam."
    weights = {
        name.removeprefix(prefix): x
        for name, x in begun.tensors(WEIGHTS).items()
        if name.startswith(prefix)
    }
    if not weights:
        problem = "this run has no latent action model"
        raise ConfigError(problem, remedy="train one with --recipe lam", where=where)
    tensors = lara.lam.state_dict(keep_vars=True)
    odd = sorted(
        name
        for name in tensors.keys() | weights.keys()
        if name not in tensors or name not in weights or tensors[name].shape != weights[name].shape
    )
    if odd:
        problem = f"its latent action model has other shapes: {', '.join(odd[:3])}"
        repair = "set lara.lam and data.cameras as in that run's recipe.yaml"
        raise ConfigError(problem, remedy=repair, where=where)
    return weights


def _without_lara(named: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: x for name, x in named.items() if not name.startswith(LARA)}


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


@torch.no_grad()
def _restore_shards(
    learner: nn.Module, optimiser: AdamW, averages: EMA | None, checkpoint: Checkpoint
) -> None:
    """`restore` of a sharded one: each rank reads the pieces that it has, into their place."""
    where, shards = str(checkpoint.folder), checkpoint.shards()
    shapes = {file: shards.shapes.get(number, {}) for file, number in SHARD_NUMBERS.items()}
    targets: dict[str, dict[str, Tensor]] = {WEIGHTS: kept(learner), OPTIMISER: {}}
    for name, parameter in trained(learner).items():
        if f"step.{name}" not in shapes[OPTIMISER]:  # it never had a gradient
            continue
        state = {what: torch.zeros_like(parameter.detach()) for what in MOMENTS}
        state["step"] = torch.zeros((), device=parameter.device)  # as the fused kernels want it
        optimiser.state[parameter] = state
        targets[OPTIMISER] |= {f"{what}.{name}": x for what, x in state.items()}
    if averages is not None and checkpoint.has_averages:
        targets[AVERAGES] = averages.values
    for file, tensors in targets.items():
        _refuse_other_names(tensors, shapes[file], where)
        for name, x in tensors.items():
            _refuse_other_shape(name, shapes[file][name][0], x.shape, where)
    shards.load({SHARD_NUMBERS[file]: tensors for file, tensors in targets.items()})
    if averages is not None and not checkpoint.has_averages:
        for name, value in averages.values.items():  # see `restore`
            own_shard(value).copy_(own_shard(targets[WEIGHTS][name].detach()))
